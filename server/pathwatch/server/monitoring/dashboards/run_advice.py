"""The top of *Run*: what is advised, where each group stands, and the numbers behind it."""

from __future__ import annotations

from pathwatch.server.monitoring.dashboards.panels import AnyPanel, number, timeline
from pathwatch.server.monitoring.dashboards.queries import (
    GROUPS,
    RUN,
    Query,
    data_age,
    of_groups,
    of_run,
    over_all_groups,
)
from pathwatch.server.monitoring.dashboards.states import (
    AMBER,
    GREEN,
    GREY,
    action_number,
    action_words,
    phase_number,
    phase_words,
    words,
)
from pathwatch.server.monitoring.dashboards.tables import Column, merged


def advice() -> list[AnyPanel]:
    return [
        number(
            "Advice",
            "What the run should do now. CONTINUE: train on. CHECKPOINT: save this step, it is worth "
            "keeping. STOP: nothing more is to be gained, compute is wasted from the stop step on. The "
            "reason in words is on the status page; the table below holds the numbers behind it.",
            "none",
            Query(action_number(RUN, "run")),
            span=4,
            mappings=action_words(),
            runbooks=["PathwatchStopAdvised", "PathwatchStopIgnored"],
        ),
        number(
            "Stop at step",
            "The step at which all ranks are told to stop. Empty: train on.",
            "locale",
            Query(of_run("run_stop_at_step")),
            no_value="train on",
        ),
        number(
            "Best checkpoint",
            "Step of the best registered checkpoint so far, over all groups: the one to keep; and how many "
            "are registered. No best: none can be judged yet.",
            "locale",
            Query(over_all_groups("best_checkpoint_step"), "best, step"),
            Query(of_run("checkpoints"), "registered"),
            no_value="none yet",
            span=4,
        ),
        number(
            "Step",
            "Newest step that data came from, and the newest step that was judged. Far apart: see data "
            "health.",
            "locale",
            Query(of_run("run_step"), "newest"),
            Query(of_run("run_closed_step"), "judged"),
        ),
        number(
            "Data last came",
            "Time since observations of an active run last came; lower = fresher. Empty: the run is "
            "finished, or its sidecar does not answer: see the signal beside.",
            "s",
            Query(of_run("state_age_seconds")),
            runbooks=["PathwatchRunWithoutData"],
        ),
        number(
            "Signal",
            "STALE: no data for so long that nobody knows how the run is doing; phases read UNKNOWN and the "
            "advice is CONTINUE, whatever it was before. sidecar silent: Prometheus hears nothing of it: "
            "it was deleted, has been finished for long, or its sidecar is down.",
            "none",
            Query(f"{of_run('run_stale')} + 2 * (1 - {of_run('run_active')})"),
            mappings=words({0: ("fresh", GREEN), 1: ("STALE", AMBER), 2: ("finished", GREY)}),
            no_value="sidecar silent",
            runbooks=["PathwatchRunStale", "PathwatchSidecarDown"],
        ),
        number(
            "Ranks",
            "Ranks that should send, ranks whose streams are open, and ranks without whom the newest round "
            "was judged. Missing should be 0.",
            "locale",
            Query(of_run("expected_ranks"), "expected"),
            Query(of_run("connected_ranks"), "connected"),
            Query(of_run("missing_ranks"), "missing"),
            span=4,
            runbooks=["PathwatchRanksMissing"],
        ),
    ]


def standing() -> list[AnyPanel]:
    return [
        timeline(
            "Phases",
            "Where each group stands. UNKNOWN: too little or stale data. LEARNING: losses still fall. "
            "MEMORIZED: samples are learnt by heart. GENERALIZING: pathways become shared, a rule is "
            "forming. GENERALIZED: it has formed, more training adds little. OVERFITTING: loss on samples "
            "not trained on rises. REGRESSING: what was gained is being lost.",
            Query(phase_number(GROUPS, "group"), "{{group}}"),
            phase_words(),
            runbooks=[
                f"PathwatchGroup{phase}"
                for phase in ("Generalizing", "Generalized", "Overfitting", "Regressing")
            ],
        ),
        merged(
            ["group"],
            "Why: the numbers behind each phase",
            "Newest judged window of each group. Memorized: share of samples learnt by heart. Path "
            "distance: lower = more shared. Ratio: within the group / to other groups, lower = pathways of "
            "its own. Loss gap: loss on samples not trained on minus loss on samples trained on, higher = "
            "more memorized. Behind: steps between the run's newest and the group's newest judged step. "
            "Partial: ranks were missing.",
            [
                Column(
                    title="phase",
                    expr=phase_number(GROUPS, "group"),
                    unit="none",
                    mappings=phase_words(),
                ),
                Column(title="since step", expr=of_groups("group_phase_since_step")),
                Column(title="memorized", expr=of_groups("memorized_ratio"), unit="percentunit", decimals=0),
                Column(title="path distance", expr=of_groups("path_distance"), unit="none", decimals=2),
                Column(title="ratio", expr=of_groups("path_distance_ratio"), unit="none", decimals=3),
                Column(title="loss gap", expr=of_groups("loss_gap"), unit="suffix:nats", decimals=3),
                Column(title="train loss", expr=of_groups("train_loss"), unit="suffix:nats", decimals=3),
                Column(title="best checkpoint", expr=of_groups("best_checkpoint_step")),
                Column(title="samples", expr=of_groups("window_samples")),
                Column(title="behind", expr=data_age(), unit="suffix:steps"),
                Column(
                    title="partial",
                    expr=of_groups("window_partial"),
                    unit="none",
                    mappings=words({0: ("no", "transparent"), 1: ("PARTIAL", AMBER)}),
                ),
            ],
            height=7,
            runbooks=["README"],
        ),
    ]
