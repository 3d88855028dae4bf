"""Jobs that are told several servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from pathwatch.client import Client
from pathwatch.integrations.pytorch import Probe, ProbeGroup, attach
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig

TOKENS = torch.randint(16, (8, 6), generator=torch.Generator().manual_seed(1))


def test_a_job_is_watched_by_the_one_that_is_there(
    make_torch_moe: Callable, patient: None, free_port: int, tmp_path: Path
) -> None:
    """And finds out there which attempt it is, each time it starts again."""
    group = ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(8), labels=TOKENS)
    probe = Probe(groups={"a": group}, interval=1, shift_labels=False)
    with BackgroundServer(ServerConfig(data=tmp_path)) as server:
        for attempt in range(2):
            model = make_torch_moe()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            servers = f"127.0.0.1:{free_port},{server.grpc_address}"
            with attach(model, optimizer, run="r", server=servers, probe=probe) as watch:
                cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten()).backward()
                optimizer.step()
                watch.close(60)
            with Client(server.grpc_address) as client:
                run = client.get_run("r")
            assert (run.attempt, run.step) == (attempt, 1)
