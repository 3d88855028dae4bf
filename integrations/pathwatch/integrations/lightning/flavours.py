"""Lightning comes as two packages with classes of their own; which of them a job uses."""

from __future__ import annotations

import importlib
import sys
from typing import Any

FLAVOURS = ("lightning.pytorch", "pytorch_lightning")


def callback_base() -> type[Any]:
    """What a callback inherits from: `Callback` of the flavours imported so far, else of the one there is.

    Raises:
        ImportError: Lightning is not installed.
    """
    names = [name for name in FLAVOURS if name in sys.modules] or [_installed()]
    return type("Callback", tuple(sys.modules[name].Callback for name in names), {})


def _installed() -> str:
    for name in FLAVOURS:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        return name
    raise ImportError("Lightning is not installed: pip install 'pathwatch[lightning]'")
