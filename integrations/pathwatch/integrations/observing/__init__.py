"""Observing a training job, whatever its framework: what the framework rooms beside this one build on."""

from pathwatch.integrations.observing.checkpoints import Checkpoints
from pathwatch.integrations.observing.job import Job
from pathwatch.integrations.observing.layout import Layout
from pathwatch.integrations.observing.places import Place, agreed_layout
from pathwatch.integrations.observing.probe import Probe, ProbeGroup
from pathwatch.integrations.observing.scalars import scalars
from pathwatch.integrations.observing.settings import Options, Settings
from pathwatch.integrations.observing.stream import Stream
from pathwatch.integrations.observing.watch import Watch

__all__ = [
    "Checkpoints",
    "Job",
    "Layout",
    "Options",
    "Place",
    "Probe",
    "ProbeGroup",
    "Settings",
    "Stream",
    "Watch",
    "agreed_layout",
    "scalars",
]
