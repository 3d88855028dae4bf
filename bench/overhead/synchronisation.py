"""How often each variant makes the host wait for the device. Prints JSON; run in a process of its own.

    python -m bench.overhead.synchronisation [--every N] [--steps S]

A small OLMoE is trained by a plain PyTorch loop on an `Accelerator` that counts. What the model itself waits
for is left out: only the code of the variant's package counts.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from bench.overhead import models
from bench.overhead.accelerator import Accelerator, OnDevice, Place
from bench.overhead.attribution import is_of
from bench.overhead.others import Moewatch, RouterLogits
from bench.overhead.ours import Pathwatch, count_observations
from bench.overhead.variants import Variant
from pathwatch.integrations.capture import losses
from pathwatch.integrations.observing import Watch
from pathwatch.integrations.pytorch import attach

NOWHERE = "127.0.0.1:1"
"""Nobody listens there: messages are made, and stay."""


class AcceleratedJob:
    """A plain PyTorch training loop on the counting device."""

    def __init__(self, accelerator: Accelerator) -> None:
        model = models.olmoe(layers=2, experts=4, width=16, hidden=16)
        # The only one that neither needs a kernel of its own nor a CPU.
        model.set_experts_implementation("eager")
        self.module: nn.Module = accelerator.move(model)
        self._optimizer = torch.optim.SGD(self.module.parameters(), lr=0.01, foreach=False)

    def attach(self, **options: Any) -> Watch:
        """pathwatch for plain PyTorch."""
        return attach(self.module, self._optimizer, **options)

    def step(self, tokens_BS: Tensor, extra: Mapping[str, Any]) -> object:
        """Forward, backward, update."""
        output: Any = self.module(input_ids=tokens_BS, labels=tokens_BS, **extra)
        output.loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return output


def count(accelerator: Accelerator, variant: Variant, steps: int) -> list[dict[str, Any]]:
    """What the variant did in each step: operations on the device, copies to the host, and waits for it."""
    rows = []
    # Stream mode keeps the model's own losses only where it knows the tensors: here they are these.
    with accelerator.active(), patch.object(losses, "Tensor", OnDevice):
        job = AcceleratedJob(accelerator)
        variant.attach(job)
        generator = torch.Generator().manual_seed(2)
        for _ in range(steps):
            tokens_BS = torch.randint(models.VOCABULARY, (4, 16), generator=generator)
            on_device_BS = accelerator.to_device(tokens_BS)
            accelerator.reset()
            variant.after_step(job.step(on_device_BS, variant.extra()))
            rows.append(
                {
                    "launched": _own(accelerator.launched, variant).total(),
                    "copies": _own(accelerator.copies, variant).total(),
                    "blocking": _own(accelerator.blocking, variant).total(),
                    "where": sorted(
                        {f"{p.operation} {p.module}:{p.line}" for p in _own(accelerator.blocking, variant)}
                    ),
                }
            )
        variant.detach()
    if not variant.taken:
        raise RuntimeError(f"{variant.name} took nothing in")
    return rows


def _own(counts: Counter[Place], variant: Variant) -> Counter[Place]:
    return Counter({place: n for place, n in counts.items() if is_of(place.module, variant.package)})


def main() -> None:
    """Count for every variant, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead.synchronisation", description=__doc__)
    parser.add_argument("--every", type=int, default=4, metavar="N", help="take something in every N steps")
    parser.add_argument("--steps", type=int, default=12, metavar="S", help="steps of each variant")
    options = parser.parse_args()
    count_observations()
    accelerator = Accelerator()
    every: int = options.every
    variants: list[Variant] = [
        Pathwatch.stream(NOWHERE, every, job="counted"),
        Pathwatch.probe(NOWHERE, every, job="counted"),
        RouterLogits(),
        Moewatch(every),
    ]
    counts = {variant.name: count(accelerator, variant, options.steps) for variant in variants}
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
