"""A recorded run must come back as the windows a live run would have had."""

from pathlib import Path

import numpy as np

from pathwatch.server.analysis.windows import trace_geometry, trace_windows
from pathwatch.server.traces import load_trace

TRACES = Path(__file__).parents[2] / "data" / "traces"


def test_windows_of_a_log_point_hold_what_was_recorded() -> None:
    trace = load_trace(TRACES / "pair_s1.npz")
    windows = trace_windows(trace, 7)
    assert list(windows) == list(trace.groups)
    second = windows[trace.groups[1]]
    assert second.step == trace.steps_T[7]
    np.testing.assert_array_equal(second.losses_N, trace.losses_TGN[7, 1])
    np.testing.assert_array_equal(second.weights_NLK, trace.weights_TGNLK[7, 1].astype(np.float32))
    assert trace.target_weights_TGNLK is not None
    np.testing.assert_array_equal(
        second.carrying_weights_NLK, trace.target_weights_TGNLK[7, 1].astype(np.float32)
    )
    assert second.visits_N is None


def test_geometry_is_that_of_the_log_point() -> None:
    trace = load_trace(TRACES / "pair_s1.npz")
    geometry = trace_geometry(trace, 3)
    assert geometry is not None
    assert trace.gram_self_TLKK is not None
    np.testing.assert_array_equal(geometry.gram_self_LKK, trace.gram_self_TLKK[3])
