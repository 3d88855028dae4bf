"""A rank that has nobody to agree with."""

from __future__ import annotations

import pytest

from pathwatch.integrations.observing.agreement import Agreement


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_of_a_disabled_watch_knows_of_no_checkpoint(rank: int) -> None:
    agreement = Agreement(joined=False)
    agreement.rank = rank
    assert agreement.first_text(None) is None
