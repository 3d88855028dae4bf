"""Some of the groups stand for all of them."""

from __future__ import annotations

import pytest

from bench.advice.workload import GROUPS, Workload


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_what_some_groups_send_is_counted_for_all(groups: int) -> None:
    whole = Workload(ranks=3, samples=5).bytes_without_advice()

    some = Workload(ranks=3, samples=5, groups=groups).bytes_without_advice()

    assert some == whole


def test_watermarks_are_sent_once_for_all_groups() -> None:
    of_groups, watermarks = 1000, 40

    assert Workload(ranks=1, samples=1, groups=2).whole(of_groups, watermarks) == 4 * of_groups + watermarks
    assert Workload(ranks=1, samples=1, groups=len(GROUPS)).whole(of_groups, watermarks) == 1040


def test_the_windows_need_the_same_however_many_groups_are_sent() -> None:
    assert Workload(ranks=1, samples=1, groups=2).needed_bytes() == Workload(8, 80).needed_bytes()
