"""`WindowSketch.state` stands for the content: where it is the same, so is what was made of the arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.server.sketch.run_sketch import Round
from pathwatch.server.sketch.window_sketch import WindowSketch

Make = Callable[..., Any]


@given(
    added=st.lists(
        st.tuples(
            st.integers(0, 3),  # step
            st.lists(st.integers(0, 20), min_size=1, max_size=3),  # samples
            st.sampled_from([None, None, None, 0, 1]),  # token part, of two
        ),
        min_size=1,
        max_size=30,
    ),
    capacity=st.sampled_from([1, 3, 8, 100]),
)
@example(added=[(0, [0], None), (0, [1], None)], capacity=8)
@example(added=[(0, [0], None), (1, [0], None)], capacity=1)
def test_the_same_state_is_the_same_content(
    make_block: Make, bits: Make, added: list[tuple[int, list[int], int | None]], capacity: int
) -> None:
    sketch = WindowSketch(layers=3, experts=4, capacity=capacity)

    def content() -> Any:
        if sketch.size == 0:
            return None
        window = sketch.arrays(group="math", first_step=0, step=3, ranks_missing=False)
        return None if window is None else bits([Round(0, 0, 3, {"math": window}, False, ())])

    state, before = sketch.state, content()
    for step, samples, part in added:
        if part is None:
            block = make_block(step, samples)
        else:  # of samples of their own, each once
            ids = [1000 + sample for sample in sorted(set(samples))]
            block = make_block(step, ids, token_part=part, token_parts=2)
        sketch.add(block, sample_hash("run", "math", block.sample_ids_N))
        after = content()
        assert sketch.state is not state or after == before
        state, before = sketch.state, after
