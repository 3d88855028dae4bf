"""Real text found on this machine, by kind: whatever Python, PyTorch and the system bring along."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LENGTH = 128
"""Bytes a sequence predicts; it has one more, to predict them from."""
PER_FILE = 4
"""Sequences taken of one file at most: deferred samples must not be the rest of files that are trained on."""

STDLIB = sysconfig.get_path("stdlib")
LIBRARIES = sysconfig.get_path("purelib")
HEADERS = sysconfig.get_path("include")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of text: files under some folders whose names fit. A folder may be missing."""

    name: str
    folders: tuple[str, ...]
    fits: Callable[[str], bool]

    def files(self) -> Iterator[Path]:
        """In the same order on every call."""
        for root in self.folders:
            for folder, inner, names in os.walk(root):
                # The standard library's folder holds the installed libraries, which are a kind of their own.
                inner[:] = sorted(name for name in inner if name != "site-packages")
                yield from (Path(folder, name) for name in sorted(names) if self.fits(name))


def _ends(*endings: str) -> Callable[[str], bool]:
    return lambda name: name.endswith(endings)


def _licence(name: str) -> bool:
    return name.upper().startswith(("LICEN", "COPYING", "NOTICE", "GPL", "LGPL", "GFDL", "MPL", "APACHE"))


KINDS = (
    Kind("python", (STDLIB,), _ends(".py")),
    Kind("libraries", (LIBRARIES,), _ends(".py")),
    Kind("headers", ("/usr/include", HEADERS, LIBRARIES), _ends(".h", ".hpp", ".cuh")),
    Kind("stubs", (LIBRARIES,), _ends(".pyi")),
    Kind("docs", (LIBRARIES, "/usr/share/doc"), _ends("METADATA", ".md", ".rst", ".txt")),
    Kind("json", (LIBRARIES, "/usr/share"), _ends(".json")),
    Kind("licences", (LIBRARIES, "/usr/share/common-licenses"), _licence),
)
"""The first four are there wherever this example can run: PyTorch itself brings headers and stubs."""


@dataclass(frozen=True, slots=True)
class Text:
    """Sequences of one kind, [N, LENGTH + 1] bytes each; no file has sequences in both."""

    train: NDArray[np.uint8]
    """In random order."""
    held_out: NDArray[np.uint8]


def read(kind: Kind, train: int, held_out: int, rng: np.random.Generator) -> Text | None:
    """So many sequences of a kind from files in random order; None if there is not enough text.

    A paragraph that was there before (a licence, a generated header) is left out: it would make training
    text out of held-out text.
    """
    files = list(kind.files())
    rng.shuffle(files)  # type: ignore[arg-type]
    known: set[bytes] = set()
    parts: dict[str, list[NDArray[np.uint8]]] = {"held_out": [], "train": []}
    wanted = {"held_out": held_out, "train": train}
    for part in parts:
        while files and sum(map(len, parts[part])) < wanted[part]:
            sequences = _sequences(files.pop(), known)
            parts[part].append(rng.permutation(sequences)[:PER_FILE])
        if sum(map(len, parts[part])) < wanted[part]:
            return None
    return Text(
        **{part: rng.permutation(np.concatenate(found))[: wanted[part]] for part, found in parts.items()}
    )


def _sequences(path: Path, known: set[bytes]) -> NDArray[np.uint8]:
    """Sequences of a file, without paragraphs that are known; none of a file that cannot be read."""
    try:
        text = path.read_bytes()
    except OSError:
        return np.empty((0, LENGTH + 1), dtype=np.uint8)
    new = [paragraph for paragraph in text.split(b"\n\n") if paragraph.strip() not in known]
    known.update(paragraph.strip() for paragraph in new)
    joined = np.frombuffer(b"\n\n".join(new), dtype=np.uint8)
    count = len(joined) // (LENGTH + 1)
    return joined[: count * (LENGTH + 1)].reshape(count, LENGTH + 1)
