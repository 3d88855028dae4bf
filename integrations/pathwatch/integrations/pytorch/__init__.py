"""pathwatch for training loops in plain PyTorch: `attach` to one process, DDP or FSDP2."""

from pathwatch.integrations.observing import Checkpoints, Probe, ProbeGroup, Stream, Watch
from pathwatch.integrations.pytorch.attachment import attach
from pathwatch.integrations.pytorch.module_job import ModuleJob
from pathwatch.integrations.pytorch.placement import check_data_parallel

__all__ = [
    "Checkpoints",
    "ModuleJob",
    "Probe",
    "ProbeGroup",
    "Stream",
    "Watch",
    "attach",
    "check_data_parallel",
]
