"""What loading the integration brings with it: a job that does not shard pays for no sharding."""

from imports import loaded_after


def test_importing_the_integration_loads_no_sharding() -> None:
    """It takes about a second."""
    loaded = loaded_after("import pathwatch.integrations.pytorch")
    assert "torch.nn" in loaded
    assert not {"torch.distributed.fsdp", "torch.distributed.tensor", "torch._dynamo"} & loaded


def test_attaching_loads_none_either() -> None:
    code = """
import torch
from pathwatch.integrations.pytorch import ModuleJob
job = ModuleJob(torch.nn.Linear(2, 2), lambda: 0)
job.layout(0), job.device, job.forward({"input": torch.ones(1, 2)}), job.router_matrices([])
"""
    assert not {"torch.distributed.fsdp", "torch.distributed.tensor"} & loaded_after(code)
