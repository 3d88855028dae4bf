"""The parts of a report beyond what the service said: correlations, cohorts, the bound."""

from __future__ import annotations

from collections.abc import Mapping

from pathwatch.server.analysis.cohort_study import StudySettings, cohort_study
from pathwatch.server.analysis.correlation import correlation_table
from pathwatch.server.analysis.scores import ScoreSeries, ScoresError, targets
from pathwatch.server.report.bound_section import bound_section
from pathwatch.server.report.cohort_section import cohort_section
from pathwatch.server.report.correlation_section import correlation_section
from pathwatch.server.report.data import RunHistory
from pathwatch.server.report.run_series import run_series
from pathwatch.server.report.section import Section
from pathwatch.server.traces import Trace


def further_sections(
    history: RunHistory,
    kept: Trace | str,
    scores: Mapping[tuple[str, str], ScoreSeries] | None,
    *,
    must_fit: bool,
) -> list[Section]:
    """`kept`: the run as a trace, or why there is none; `scores` by (group, test).

    What is missing is named in a section of its own. Raises ScoresError where scores do not fit that must.
    """
    sections, missing = [], []
    if scores is not None:
        try:
            chosen, remarks = targets(run_series(history), scores)
            sections.append(correlation_section(correlation_table(chosen, remarks=remarks)))
        except ScoresError as error:
            if must_fit:
                raise
            missing.append(f"Correlations with the labels: {error}.")
    if isinstance(kept, Trace):
        sections += [cohort_section(cohort_study(kept, StudySettings())), bound_section(kept)]
    else:
        missing.append(f"Cohorts and the bound, which need every sample's routing over the run: {kept}.")
    if missing:
        sections.append(Section(title="Not shown", paragraphs=tuple(missing)))
    return sections
