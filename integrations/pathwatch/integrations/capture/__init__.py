"""Reading the routers of a mixture-of-experts model: pure PyTorch, nothing is sent from here."""

from pathwatch.integrations.capture.geometry import gram_matrices
from pathwatch.integrations.capture.hostcopy import HostCopy
from pathwatch.integrations.capture.isolation import undisturbed
from pathwatch.integrations.capture.recorder import Recording, RouterRecorder
from pathwatch.integrations.capture.reduction import HostReading, Reading, reduce_reading, unpack
from pathwatch.integrations.capture.routers import (
    Router,
    RouterHook,
    linear_scores,
    output_at,
    whole_shape,
)
from pathwatch.integrations.capture.scores import ScoreKind, routing_weights
from pathwatch.integrations.capture.search import NoRoutersError, find_routers
from pathwatch.integrations.capture.tokens import TokenSelection

__all__ = [
    "HostCopy",
    "HostReading",
    "NoRoutersError",
    "Reading",
    "Recording",
    "Router",
    "RouterHook",
    "RouterRecorder",
    "ScoreKind",
    "TokenSelection",
    "find_routers",
    "gram_matrices",
    "linear_scores",
    "output_at",
    "reduce_reading",
    "routing_weights",
    "undisturbed",
    "unpack",
    "whole_shape",
]
