"""pathwatch for DeepSpeed: `attach` after `deepspeed.initialize`."""

from pathwatch.integrations.deepspeed.attachment import attach
from pathwatch.integrations.observing import Probe, ProbeGroup, Stream, Watch

__all__ = ["Probe", "ProbeGroup", "Stream", "Watch", "attach"]
