"""What must be remembered of a sample's losses to know at any time since when it has been memorized.

t* is the step after the last loss that violates a limit: above ε, above last + δ or below last − δ.
The last loss above a limit is a *suffix maximum* (larger than all that follow), whatever the limit;
the last one below is a suffix minimum. So two monotone stacks hold every candidate. Three kinds of
candidates can go without changing any later answer:

* of those more than 2δ from the newest loss y all but the newest: a future last loss v within δ of
  y is more than δ away from them, and for any other v it is y that violates, and comes later
  (3δ in the code: the exact bound would depend on rounding);
* those equal to or less extreme than a later one;
* peaks of at most ε and δ: losses are >= 0, so they are within δ of anything below them.

What remains is strictly ordered, within 3δ of the newest loss and, for peaks, above δ: few, unless a
loss creeps one way for hundreds of windows. Beyond MAX_CANDIDATES the one whose neighbours are
closest is dropped: t* is then that of a limit at most 6δ / (MAX_CANDIDATES − 1) off, 5 % of δ.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final

MAX_CANDIDATES: Final = 128


class LossTrail:
    """Losses of one sample, in order of step."""

    __slots__ = ("_first_step", "_peaks", "_valleys", "loss", "step")

    def __init__(self, step: int, loss: float) -> None:
        self.step = step
        """Step of the newest loss."""
        self.loss = loss
        """The newest loss, nats."""
        self._first_step = step
        self._peaks = _Peaks()
        self._valleys = _Peaks()  # of the losses' negatives

    def __len__(self) -> int:
        """Candidates held."""
        return len(self._peaks) + len(self._valleys)

    def append(self, step: int, loss: float, *, delta: float, least_epsilon: float) -> None:
        """Add the loss at a later step, to be asked about for this δ and any ε from `least_epsilon` up."""
        if self.loss > min(delta, least_epsilon):
            self._peaks.push(self.loss, followed_at=step)
        self._valleys.push(-self.loss, followed_at=step)
        self._peaks.forget(loss, 3 * delta)
        self._valleys.forget(-loss, 3 * delta)
        self.step = step
        self.loss = loss

    def memorized_step(self, epsilon: float, delta: float) -> int:
        """t* for these limits, −1 = not memorized."""
        if self.loss > epsilon:
            return -1
        return max(
            self._first_step,
            self._peaks.step_after_above(0.0, epsilon),
            self._peaks.step_after_above(self.loss, delta),
            self._valleys.step_after_above(-self.loss, delta),
        )


class _Peaks:
    """Values that exceed all later ones, oldest and largest first, each with the step that followed it."""

    __slots__ = ("_followed_at", "_values")

    def __init__(self) -> None:
        self._values = array("d")
        self._followed_at = array("q")

    def __len__(self) -> int:
        return len(self._values)

    def push(self, value: float, *, followed_at: int) -> None:
        while self._values and self._values[-1] <= value:
            self._values.pop()
            self._followed_at.pop()
        self._values.append(value)
        self._followed_at.append(followed_at)

    def forget(self, newest: float, reach: float) -> None:
        """Of the candidates more than `reach` above the newest loss keep the newest one."""
        while len(self._values) > 1 and self._values[1] - newest > reach:
            del self._values[0]
            del self._followed_at[0]
        if len(self._values) > MAX_CANDIDATES:
            values = self._values
            closest = min(range(1, len(values) - 1), key=lambda i: values[i - 1] - values[i + 1])
            del self._values[closest]
            del self._followed_at[closest]

    def step_after_above(self, base: float, limit: float) -> int:
        """Step after the last value that exceeds `base` by more than `limit`; −1 = none does."""
        count = self._count_above(base, limit)
        return self._followed_at[count - 1] if count else -1

    def _count_above(self, base: float, limit: float) -> int:
        # Differences, not base + limit: rounded as the definition rounds them.
        return bisect_left(self._values, -limit, key=lambda value: base - value)
