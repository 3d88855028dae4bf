"""Recorded and made-up runs, and a way to play them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.phases.detector import PathwayDropDetector
from pathwatch.server.phases.verdict import Evidence, GroupVerdict, Phase
from pathwatch.server.traces import Trace, load_trace

TRACES = Path(__file__).parents[2] / "data" / "traces"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A recorded run: its trace, the evidence of its rounds, and labels that only tests see."""

    trace: Trace
    rounds: list[dict[str, Evidence]]
    labels: Mapping[str, NDArray[np.generic]]

    @property
    def steps(self) -> list[int]:
        return [int(step) for step in self.trace.steps_T]

    def smoothed(self, name: str, group: str) -> NDArray[np.float64]:
        """A label averaged over five log points."""
        values = self.labels[name][:, self.trace.groups.index(group)].astype(float)
        padded = np.pad(values, 2, mode="edge")
        return np.convolve(padded, np.ones(5) / 5, mode="valid")


def windows(
    trace: Trace, samples: slice = slice(None), targets: bool = True, visits: bool = True
) -> list[dict[str, WindowArrays]]:
    rounds = []
    for t, step in enumerate(trace.steps_T):
        round_ = {}
        for g, group in enumerate(trace.groups):
            count = len(trace.losses_TGN[t, g, samples])
            round_[group] = WindowArrays(
                group=group,
                first_step=int(step),
                step=int(step),
                sample_ids_N=np.arange(trace.samples, dtype=np.int64)[samples],
                losses_N=trace.losses_TGN[t, g, samples].astype(np.float64),
                weights_NLK=trace.weights_TGNLK[t, g, samples].astype(np.float32),
                target_weights_NLK=None
                if trace.target_weights_TGNLK is None
                else trace.target_weights_TGNLK[t, g, samples].astype(np.float32),
                targets_N=trace.targets_GN[g, samples] if targets and trace.targets_GN is not None else None,
                visits_N=trace.visits_TGN[t, g, samples] if visits and trace.visits_TGN is not None else None,
                tokens_N=np.ones(count, dtype=np.int64),
            )
        rounds.append(round_)
    return rounds


@lru_cache
def _recorded(name: str, stride: int, targets: bool, visits: bool) -> Run:
    trace = load_trace(TRACES / f"{name}.npz")
    detector = PathwayDropDetector()
    rounds = [
        {group: detector.measure(window) for group, window in round_.items()}
        for round_ in windows(trace, slice(None, None, stride), targets, visits)
    ]
    labels = dict(np.load(TRACES / "labels" / f"{name}.labels.npz"))
    return Run(trace=trace, rounds=rounds, labels=labels)


@pytest.fixture
def recorded() -> Callable[..., Run]:
    """A recorded run by name; every `stride`-th sample, with or without targets and visits."""

    def load(name: str, *, stride: int = 1, targets: bool = True, visits: bool = True) -> Run:
        return _recorded(name, stride, targets, visits)

    return load


@pytest.fixture
def play() -> Callable[..., list[dict[str, GroupVerdict]]]:
    """Plays rounds into a detector, a fresh one unless given; the verdicts after each round."""

    def run(
        steps: Sequence[int],
        rounds: Sequence[Mapping[str, Evidence]],
        detector: PathwayDropDetector | None = None,
    ) -> list[dict[str, GroupVerdict]]:
        detector = detector or PathwayDropDetector()
        return [dict(detector.update(step, round_)) for step, round_ in zip(steps, rounds, strict=True)]

    return run


@pytest.fixture
def history() -> Callable[[list[dict[str, GroupVerdict]], str], list[tuple[Phase, int]]]:
    """The phases of a group and since when."""

    def of(played: list[dict[str, GroupVerdict]], group: str) -> list[tuple[Phase, int]]:
        found: list[tuple[Phase, int]] = []
        for verdicts in played:
            if group in verdicts and (not found or found[-1][0] is not verdicts[group].phase):
                found.append((verdicts[group].phase, verdicts[group].since_step))
        return found

    return of


@pytest.fixture
def make_window() -> Callable[..., WindowArrays]:
    """A made-up window: routing logits are `shared` parts of a target's and `own` parts of a sample's."""

    def make(
        step: int,
        *,
        group: str = "g",
        own: float = 1.0,
        shared: float = 0.3,
        loss: float = 0.05,
        unseen_loss: float | None = None,
        samples: int = 96,
        layers: int = 3,
        experts: int = 8,
        targets: bool = True,
        visits: bool = False,
        seed: int = 0,
    ) -> WindowArrays:
        fixed = np.random.default_rng(seed)
        of_target = fixed.normal(size=(12, layers, experts))
        of_sample = fixed.normal(size=(samples, layers, experts))
        jitter = np.random.default_rng([seed, step]).normal(size=(samples, layers, experts))
        targets_N = (np.arange(samples) % 12).astype(np.int32)
        logits = shared * of_target[targets_N] + own * of_sample + 0.1 * jitter
        weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        losses = loss * np.exp(0.3 * np.random.default_rng([seed, step, 1]).normal(size=samples))
        visits_N = np.full(samples, step, dtype=np.int32) if visits else None
        if unseen_loss is not None:
            held_back = slice(0, samples // 3)
            losses[held_back] *= unseen_loss / loss
            visits_N = np.full(samples, 5, dtype=np.int32)
            visits_N[held_back] = 0
        return WindowArrays(
            group=group,
            first_step=step,
            step=step,
            sample_ids_N=np.arange(samples, dtype=np.int64) + 1000,
            losses_N=losses,
            weights_NLK=weights.astype(np.float32),
            targets_N=targets_N if targets else None,
            visits_N=visits_N,
            tokens_N=np.ones(samples, dtype=np.int64),
        )

    return make
