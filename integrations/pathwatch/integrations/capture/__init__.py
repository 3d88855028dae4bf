"""Reading the routers of a mixture-of-experts model: pure PyTorch, nothing is sent from here."""

from pathwatch.integrations.capture.compilation import uncompiled
from pathwatch.integrations.capture.content_ids import content_ids
from pathwatch.integrations.capture.geometry import gram_matrices
from pathwatch.integrations.capture.hostcopy import HostCopy
from pathwatch.integrations.capture.isolation import undisturbed
from pathwatch.integrations.capture.losses import TokenLosses, keeping_losses, matching_losses
from pathwatch.integrations.capture.recorder import Recording, RouterRecorder
from pathwatch.integrations.capture.reduction import (
    Reading,
    SilentRoutersError,
    reduce_reading,
)
from pathwatch.integrations.capture.routers import (
    Router,
    RouterHook,
    linear_scores,
    output_at,
    whole_shape,
)
from pathwatch.integrations.capture.scores import ScoreKind, routing_weights
from pathwatch.integrations.capture.search import NoRoutersError, find_routers
from pathwatch.integrations.capture.segments import segment_ids_of_offsets, segment_ids_of_positions
from pathwatch.integrations.capture.tokens import TokenSelection

__all__ = [
    "HostCopy",
    "NoRoutersError",
    "Reading",
    "Recording",
    "Router",
    "RouterHook",
    "RouterRecorder",
    "ScoreKind",
    "SilentRoutersError",
    "TokenLosses",
    "TokenSelection",
    "content_ids",
    "find_routers",
    "gram_matrices",
    "keeping_losses",
    "linear_scores",
    "matching_losses",
    "output_at",
    "reduce_reading",
    "routing_weights",
    "segment_ids_of_offsets",
    "segment_ids_of_positions",
    "uncompiled",
    "undisturbed",
    "whole_shape",
]
