"""pathwatch for DeepSpeed: `attach` after `deepspeed.initialize`."""

from pathwatch.integrations.deepspeed.attachment import attach
from pathwatch.integrations.deepspeed.engine_job import EngineJob
from pathwatch.integrations.observing import Checkpoints, Probe, ProbeGroup, Stream, Watch

__all__ = ["Checkpoints", "EngineJob", "Probe", "ProbeGroup", "Stream", "Watch", "attach"]
