"""Whether the fragments of a sample tell the same story: what no single message can show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.sketch.errors import SketchError
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.server.sketch.token_part import NO_COUNT, TokenPart


def check_agreement(
    block: ObservationBlock,
    index_N: NDArray[np.intp],
    rows_N: NDArray[np.intp],
    samples_S: NDArray[np.void],
    parts: Mapping[int, TokenPart],
) -> None:
    """Raise SketchError where observations `index_N` of a block contradict what came of the same step.

    `rows_N`: row of each in `samples_S` and in the parts, −1 = none. Whole observations that come twice
    with different content are no error here: the smaller values stand (token_part.py).
    """
    is_fragment = block.layers is not None or block.token_parts > 1
    if is_fragment:
        _refuse_repetition(block.sample_ids_N[index_N])
    known_N = (rows_N >= 0) & (samples_S["step"][rows_N] == block.step)
    index_N, rows_N = index_N[known_N], rows_N[known_N]

    def refuse_where(wrong_N: NDArray[np.bool_], field: str, message: str) -> None:
        if wrong_N.any():
            sample_id = int(block.sample_ids_N[index_N[wrong_N.argmax()]])
            where = f"sample {sample_id} of group {block.group!r} at step {block.step}"
            raise SketchError(field, f"{where}: {message}", sample_id)

    refuse_where(
        samples_S["token_parts"][rows_N] != block.token_parts,
        "batch.fragment.token_parts",
        f"{block.token_parts} here, another number in a fragment sent before; "
        "split all fragments of a sample alike",
    )
    if not is_fragment:
        return
    part = parts.get(block.token_part)
    if part is not None:
        for field, stored_S, sent_N in (
            ("batch.token_counts", part.tokens_S, block.tokens_N),
            ("batch.target_token_counts", part.target_tokens_S, block.target_tokens_N),
        ):
            stored_N = stored_S[rows_N]
            refuse_where(
                (stored_N != NO_COUNT) & (stored_N != sent_N[index_N]),
                field,
                f"another number in a fragment of token part {block.token_part} sent before; "
                "count the same tokens whatever layers are held",
            )
    refuse_where(
        (samples_S["target_weights_missing"][rows_N] & (block.target_weights_NLK is not None))
        | (samples_S["target_weights_came"][rows_N] & target_weights_missing(block)[index_N]),
        "batch.target_weights",
        "in one fragment, but not in another that holds other tokens beside its target tokens; "
        "send them in all fragments or in none",
    )


def target_weights_missing(block: ObservationBlock) -> NDArray[np.bool_]:
    """[N] whether the weights over target tokens must differ from those over all tokens but did not come."""
    target_tokens_N = block.target_tokens_N
    absent = block.target_weights_NLK is None
    missing_N: NDArray[np.bool_] = (target_tokens_N != 0) & (target_tokens_N != block.tokens_N) & absent
    return missing_N


def _refuse_repetition(sample_ids_N: NDArray[np.int64]) -> None:
    sample_ids, counts = np.unique(sample_ids_N, return_counts=True)
    if (counts > 1).any():
        sample_id = int(sample_ids[counts > 1][0])
        raise SketchError(
            "batch.sample_ids",
            f"sample {sample_id} occurs twice in one fragment; send each once per batch",
            sample_id,
        )
