"""DDP and FSDP2 on two real processes: decisions alike on both, training undisturbed, routers read whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.mark.slow
def test_two_ranks(run_two_ranks: Callable[..., list[dict[str, Any]]]) -> None:
    first, second = run_two_ranks(Path(__file__).with_name("two_ranks.py"))
    for name in ("ddp", "fsdp2", "kept", "bf16", "hybrid"):
        one, other = first[name]["watched"], second[name]["watched"]
        # Bit for bit, with dropout drawing random numbers.
        assert one["losses"] == first[name]["plain"]["losses"], name
        assert other["losses"] == second[name]["plain"]["losses"], name
        assert one["losses"] != other["losses"]
        assert one["losses"][-1] < one["losses"][0]
        # Both decide at the same steps.
        assert one["checkpoints"] == other["checkpoints"], name
        assert len(one["checkpoints"]) >= 1
        assert one["stopped_at"] == other["stopped_at"] == 15
        # Seven samples over two ranks, each once; all of the same weights.
        assert sorted(one["sample_ids"] + other["sample_ids"]) == list(range(7)), name
        assert one["watermarks"] == other["watermarks"] == [0, 5, 10, 15, 20]
        assert (one["settings"], other["settings"]) == (
            {"rank": 0, "world_size": 2, "watch": True},
            {"rank": 1, "world_size": 2, "watch": False},
        )
        # Geometry comes from rank 0 alone, of whole matrices.
        assert not other["gram_self"]
        gates = np.array(one["gates"])
        assert gates.shape == (2, 4, 12)
        np.testing.assert_allclose(one["gram_self"][0], gates @ gates.transpose(0, 2, 1), atol=1e-5)
        assert not one["gathered"] + other["gathered"], "the probe left parameters gathered"
    # Sharded or not, it is the same model on the same data.
    np.testing.assert_allclose(
        first["fsdp2"]["watched"]["probe_losses"], first["hybrid"]["watched"]["probe_losses"], rtol=1e-4
    )
    assert "head.weight is split by tensor parallelism" in first["refused"]["tensor"]
    assert "sharded over 1 of 2 processes" in first["refused"]["part"]
    assert "use fully_shard (FSDP2)" in first["refused"]["flat"]
