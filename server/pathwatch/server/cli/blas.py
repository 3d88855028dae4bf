"""Threads of the linear algebra library that NumPy brings, in commands that start a server."""

from __future__ import annotations

import os


def one_blas_thread() -> None:
    """To be called before NumPy is imported, which is when OpenBLAS reads this; a user's own choice stands.

    The compute pool is what uses the cores: OpenBLAS's own threads wait for each other, spinning, where
    others have work, too.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
