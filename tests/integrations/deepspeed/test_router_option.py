"""`router=` of attach: the job says which modules are its routers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pathwatch.integrations.capture import Router, find_routers
from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))
PROBE = Probe(groups={"a": ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(4))}, interval=5)


def test_only_the_routers_that_a_job_names_are_read(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    chosen = {found.module: found for found in find_routers(engine.module.layers[1])}

    def router(name: str, module: nn.Module) -> Router | None:
        return chosen.get(module)

    with attach(engine, run="r", probe=PROBE, router=router, strict=True):
        engine.backward(engine(TOKENS).square().mean())
        engine.step()
        weights_NLK = streams[0].of("observe")[0]["weights"]
    assert weights_NLK.shape == (4, 1, 4)
    assert streams[0].settings["config"].topology.layers == 1


def test_a_router_that_names_none_is_an_error_of_the_configuration(make_engine: Callable) -> None:
    with pytest.raises(ValueError, match="router= recognized no module"):
        attach(make_engine(), run="r", probe=PROBE, router=lambda name, module: None, strict=True)
