"""Running a compiled model as it was written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what `torch.compile` compiled eagerly inside the block: compiled code calls no hooks put on later.

    What is compiled stays so, and is used again afterwards.

    Raises:
        RuntimeError: called from within compiled code.
    """
    if "torch._dynamo" not in sys.modules:
        yield  # nothing was ever compiled; importing the compiler would take seconds
        return
    with torch.compiler.set_stance("force_eager"):
        yield
