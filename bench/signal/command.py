"""The command line of `python bench/signal`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import repeat
from pathlib import Path

from bench.signal import tables
from bench.signal.measuring import MeasuredRun, measure_file
from bench.signal.methods import MethodScore, score_baselines, score_detector
from bench.signal.summary import Summary, summarize
from bench.signal.variants import VARIANTS
from pathwatch.server import plugins
from pathwatch.server.report.labels import LabelsError
from pathwatch.server.traces import TraceError

DESCRIPTION = """\
Scores a detector and a policy on recorded runs, beside simple rules.

Every trace is played step by step, each log point a registered checkpoint; no method sees the labels or the
future. A rule with a threshold is fitted leaving out one run at a time: the threshold applied to a run was
chosen on all others. Scores: test accuracy smoothed over five log points, a group generalizes where it passes
0.5; or validation loss, a group overfits where it ends 2 % above its minimum. Regret: accuracy below the best
of the whole run. docs/science.md says what the numbers mean, docs/traces.md describes the files.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, score, print; exits with 2 where an argument or a file is of no use."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        policy, policy_options = parse_policy(options.policy)
        detector_factory = partial(plugins.load_detector, options.detector)
        policy_factory = partial(plugins.load_policy, policy, policy_options)
        policy_factory()
        files = find_files(options.traces, options.labels)
        runs = _measure(files, options.detector, options.variant, options.jobs)
        name = f"{options.detector} + {options.policy}"
        ours = score_detector(runs, detector_factory, policy_factory, name)
    except (ValueError, TraceError, LabelsError, plugins.PluginError) as error:
        parser.error(str(error))
    methods = [(method, summarize(method.runs)) for method in (ours, *score_baselines(runs))]
    _print(methods)
    if options.json is not None:
        described = {"detector": options.detector, "policy": options.policy, "variant": options.variant}
        report = {**described, "methods": [_json(method, numbers) for method, numbers in methods]}
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


def parse_policy(text: str) -> tuple[str, Mapping[str, str]]:
    """`NAME[:option=value,…]`. Raises ValueError."""
    name, _, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")] if rest else []
    if not name or not all(option and equals for option, equals, _ in pairs):
        raise ValueError(f"--policy {text!r}: wanted NAME or NAME:option=value,option=value")
    return name, {option: value for option, _, value in pairs}


def find_files(folders: Sequence[Path], labels: Path | None) -> list[tuple[Path, Path]]:
    """Each trace of the folders with its labels file. Raises ValueError."""
    files = []
    for folder in folders:
        traces = sorted(folder.glob("*.npz"))
        if not traces:
            raise ValueError(f"{folder}: no traces (*.npz) there")
        for path in traces:
            labels_path = (labels or folder / "labels") / f"{path.stem}.labels.npz"
            if not labels_path.is_file():
                raise ValueError(
                    f"{path}: its labels are not at {labels_path}; name their folder by --labels"
                )
            files.append((path, labels_path))
    return files


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python bench/signal",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--traces",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="folder of traces (docs/traces.md); may be given several times",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR",
        help="folder of NAME.labels.npz (default: labels/ beside the traces)",
    )
    parser.add_argument(
        "--detector", default=plugins.DEFAULT_DETECTOR, metavar="NAME", help="plug-in (default: %(default)s)"
    )
    parser.add_argument(
        "--policy",
        default=plugins.DEFAULT_POLICY,
        metavar="NAME[:OPTION=VALUE,…]",
        help="plug-in and its options (default: %(default)s)",
    )
    parser.add_argument(
        "--variant", choices=VARIANTS, default="as-is", help="damage the traces first (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here, too")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="processes that measure traces (default: %(default)s)",
    )
    return parser


def _measure(files: Sequence[tuple[Path, Path]], detector: str, variant: str, jobs: int) -> list[MeasuredRun]:
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: wanted 1 or more")
    paths, labels_paths = zip(*files, strict=True)
    work = (measure_file, paths, labels_paths, repeat(detector), repeat(variant))
    if jobs == 1:
        return list(map(*work))
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(*work))


def _print(methods: Sequence[tuple[MethodScore, Summary]]) -> None:
    ours, numbers = methods[0]
    named = [(method.method, of_method) for method, of_method in methods]
    print(tables.group_table(ours))
    if any(run.accuracy for run in ours.runs):
        print(
            f"\nTest accuracy\n{tables.accuracy_table(named)}\n{ours.method}: {tables.regret_line(numbers)}"
        )
    if any(not run.accuracy for run in ours.runs):
        print(f"\nValidation loss\n{tables.text_table(named)}")
    if len(ours.runs) < 2:
        print("\nOne run only: rules with a threshold are left out, there is nothing to fit them on.")


def _json(method: MethodScore, numbers: Summary) -> dict[str, object]:
    runs = [asdict(run) | {"fitted": fit} for run, fit in zip(method.runs, method.fitted, strict=True)]
    return {"method": method.method, "summary": numbers, "runs": runs}
