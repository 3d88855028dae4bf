"""The look that all pictures of a report share."""

from __future__ import annotations

from typing import Any

INK, SECOND, FAINT = "#1A1A1A", "#6B6B6B", "#C9C9C9"
"""Main lines and words; lesser ones; frames and backgrounds."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SECOND,
    "ytick.color": SECOND,
    "svg.hashsalt": "pathwatch",
}
"""For `matplotlib.rc_context`."""
