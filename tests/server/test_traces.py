"""Traces: what is right is read as it is, what is wrong is refused in one line that says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pathwatch.server.traces import TraceError, load_trace

T, G, N, L, K = 3, 2, 4, 2, 5


def arrays(seed: int = 0) -> dict[str, Any]:
    """A whole trace, every array there."""
    random = np.random.default_rng(seed)
    weights = random.dirichlet(np.ones(K), size=(T, G, N, L)).astype(np.float16)
    gram = random.normal(size=(T, L, K, K)).astype(np.float32)
    return {
        "steps": np.array([0, 25, 50]),
        "groups": np.array(["math", "code"]),
        "losses": random.random((T, G, N)).astype(np.float32),
        "weights": weights,
        "target_weights": weights[:, :, ::-1].copy(),
        "targets": np.arange(G * N, dtype=np.int32).reshape(G, N) - 1,
        "visits": np.full((T, G, N), -1, dtype=np.int32),
        "gram_self": gram,
        "gram_next": gram[:, 1:].copy(),
        "meta": np.array(json.dumps({"name": "small"})),
    }


def save(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "trace.npz"
    np.savez_compressed(path, **content)
    return path


def refused(folder: Path, content: dict[str, Any]) -> str:
    path = save(folder, content)
    with pytest.raises(TraceError) as caught:
        load_trace(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_a_whole_trace_is_read_as_it_is(tmp_path: Path) -> None:
    content = arrays()
    trace = load_trace(save(tmp_path, content))
    assert (trace.name, trace.groups) == ("trace", ("math", "code"))
    assert (trace.layers, trace.experts, trace.samples) == (L, K, N)
    assert trace.meta == {"name": "small"}
    np.testing.assert_array_equal(trace.steps_T, content["steps"])
    np.testing.assert_array_equal(trace.losses_TGN, content["losses"])
    np.testing.assert_array_equal(trace.weights_TGNLK, content["weights"])
    assert trace.weights_TGNLK.dtype == np.float16
    for name, read in (
        ("target_weights", trace.target_weights_TGNLK),
        ("targets", trace.targets_GN),
        ("visits", trace.visits_TGN),
        ("gram_self", trace.gram_self_TLKK),
        ("gram_next", trace.gram_next_TLKK),
    ):
        assert read is not None
        np.testing.assert_array_equal(read, content[name])


def test_only_four_arrays_are_needed(tmp_path: Path) -> None:
    content = {name: arrays()[name] for name in ("steps", "groups", "losses", "weights")}
    trace = load_trace(save(tmp_path, content))
    assert trace.target_weights_TGNLK is None
    assert trace.targets_GN is None
    assert trace.visits_TGN is None
    assert trace.gram_self_TLKK is None
    assert trace.meta == {}


def test_a_loss_may_be_missing(tmp_path: Path) -> None:
    content = arrays()
    content["losses"][1, 1, 2] = np.nan
    assert np.isnan(load_trace(save(tmp_path, content)).losses_TGN[1, 1, 2])


@pytest.mark.parametrize("name", ["steps", "groups", "losses", "weights"])
def test_a_missing_array_is_named(tmp_path: Path, name: str) -> None:
    content = arrays()
    del content[name]
    assert f"`{name}` is missing" in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("steps", np.array([0, 50, 25]), "steps: must start at 0 or above and rise strictly"),
        ("steps", np.array([-1, 0, 25]), "steps: must start at 0 or above and rise strictly"),
        ("steps", np.array([0.0, 25.0, 50.0]), "steps: dtype float64; wanted integers"),
        ("groups", np.array(["math", "math"]), "groups: wanted at least one name, none empty, none twice"),
        ("losses", np.zeros((T, G + 1, N), np.float32), "losses: shape [3, 3, 4]; wanted [3, 2, N]"),
        ("losses", np.zeros((T, G, 0), np.float32), "losses: no samples"),
        (
            "weights",
            np.full((T, G, N, L), 0.5, np.float16),
            "weights: shape [3, 2, 4, 2]; wanted [3, 2, 4, L, K]",
        ),
        ("weights", np.full((T, G, N, L, K), 0.2), "weights: dtype float64; wanted float16 or float32"),
        (
            "target_weights",
            np.full((T, G, N, 1, 1), 1, np.float16),
            "target_weights: shape [3, 2, 4, 1, 1]; wanted",
        ),
        ("targets", np.zeros((G, N + 1), np.int32), "targets: shape [2, 5]; wanted [2, 4]"),
        (
            "visits",
            np.full((T, G, N), -2, np.int32),
            "visits: step index 0, group 'math', sample 0 is below -1",
        ),
        (
            "gram_next",
            np.zeros((T, L, K, K), np.float32),
            "gram_next: shape [3, 2, 5, 5]; wanted [3, 1, 5, 5]",
        ),
        ("gram_self", np.full((T, L, K, K), np.nan, np.float32), "gram_self: 150 values are not finite"),
        ("meta", np.array("{"), "meta: not JSON"),
        ("meta", np.array("[]"), "meta: a JSON list; wanted an object"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, name: str, value: Any, says: str) -> None:
    assert refused(tmp_path, {**arrays(), name: value}).startswith(says)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.nan, "layer 1, expert 3 is not finite"),
        (-0.25, "layer 1, expert 3 is negative"),
        (0.9, "layer 1 is a row that does not sum to one"),
    ],
)
def test_a_wrong_weight_is_found(tmp_path: Path, value: float, says: str) -> None:
    content = arrays()
    content["weights"][...] = 1 / K
    content["weights"][2, 1, 3, 1, 3] = value
    said = refused(tmp_path, content)
    assert said == f"weights: step index 2, group 'code', sample 3, {says} (1 such in all)"


def test_one_gram_without_the_other_is_refused(tmp_path: Path) -> None:
    content = arrays()
    del content["gram_next"]
    assert "belong together" in refused(tmp_path, content)


def test_pickles_are_refused(tmp_path: Path) -> None:
    content = {**arrays(), "groups": np.array(["math", None], dtype=object)}
    assert "Object arrays cannot be loaded" in refused(tmp_path, content)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"not a readable \.npz file"):
        load_trace(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file"):
        load_trace(tmp_path / "nowhere.npz")


@pytest.mark.slow
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_whole(tmp_path: Path, data: st.DataObject) -> None:
    """Flipped and cut bytes: the trace's own error, or, where nothing that is read was hit, the trace."""
    content = bytearray(save(tmp_path, arrays()).read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path / "damaged.npz"
    path.write_bytes(content[: cut if data.draw(st.booleans()) else None])
    said = None
    try:
        trace = load_trace(path)
    except TraceError as error:
        said = str(error)
    if said is None:
        np.testing.assert_array_equal(trace.weights_TGNLK, arrays()["weights"])
    else:
        assert said.startswith(f"{path}: ")
        assert "\n" not in said
