"""What is saved is what is loaded, and a failure leaves the old file alone."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from pathwatch.server.trace_file import save_trace
from pathwatch.server.traces import Trace, load_trace

T, G, N, L, K = 3, 2, 4, 2, 5


def trace(**changes: object) -> Trace:
    random = np.random.default_rng(0)
    weights = random.dirichlet(np.ones(K), size=(T, G, N, L)).astype(np.float32)
    whole = Trace(
        name="small",
        steps_T=np.array([0, 25, 50]),
        groups=("math", "code"),
        losses_TGN=np.where(random.random((T, G, N)) < 0.1, np.nan, 0.5).astype(np.float32),
        weights_TGNLK=weights,
        target_weights_TGNLK=weights[:, :, ::-1].astype(np.float16),
        targets_GN=np.arange(G * N, dtype=np.int32).reshape(G, N) - 1,
        visits_TGN=np.full((T, G, N), 2, dtype=np.int32),
        gram_self_TLKK=random.normal(size=(T, L, K, K)).astype(np.float32),
        gram_next_TLKK=random.normal(size=(T, L - 1, K, K)).astype(np.float32),
        meta={"run": "small", "sample_ids": {"math": [1, 2, 3, 4]}},
    )
    return replace(whole, **changes)


def assert_same(a: Trace, b: Trace) -> None:
    for field in fields(Trace):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, field.name
            np.testing.assert_array_equal(left, right, err_msg=field.name)
        else:
            assert left == right, field.name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_weights_TGNLK": None, "targets_GN": None, "visits_TGN": None},
        {"gram_self_TLKK": None, "gram_next_TLKK": None, "meta": {}},
    ],
)
def test_a_saved_trace_is_loaded_as_it_was(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "small.npz"
    save_trace(trace(), path)
    save_trace(trace(**changes), path)
    assert_same(load_trace(path), trace(**changes))
    assert [file.name for file in tmp_path.iterdir()] == ["small.npz"]


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.npz"
    save_trace(trace(), path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_trace(trace(meta={"new": 1}), path)
    assert load_trace(path).meta == trace().meta
    assert [file.name for file in tmp_path.iterdir()] == ["small.npz"]
