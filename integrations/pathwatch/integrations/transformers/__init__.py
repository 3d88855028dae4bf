"""pathwatch for the Trainer of transformers: a callback, and deferred samples."""

from pathwatch.integrations.observing import Checkpoints, Probe, ProbeGroup, Stream
from pathwatch.integrations.transformers.callback import PathwatchCallback
from pathwatch.integrations.transformers.deferring import defer

__all__ = ["Checkpoints", "PathwatchCallback", "Probe", "ProbeGroup", "Stream", "defer"]
