"""pathwatch for DeepSpeed: `attach` after `deepspeed.initialize`."""

from pathwatch.integrations.deepspeed.attachment import attach
from pathwatch.integrations.deepspeed.probe import Probe, ProbeGroup
from pathwatch.integrations.deepspeed.stream import Stream
from pathwatch.integrations.deepspeed.watch import Watch

__all__ = ["Probe", "ProbeGroup", "Stream", "Watch", "attach"]
