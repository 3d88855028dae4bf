"""The counting device: what would make a host wait is counted, nothing else is, and values are right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# (waits, asynchronous copies to the host) of each; x is [4, 3] on the device, h the same on the host.
CASES = {
    "x.sum().item()": (1, 0),
    "bool((x > 0).all())": (1, 0),
    "float(x[0, 0])": (1, 0),
    "x.tolist()": (1, 0),
    "x.cpu()": (1, 0),
    "x.to('cpu')": (1, 0),
    "x.to('cpu', non_blocking=True)": (0, 1),
    "torch.empty(4, 3).copy_(x, non_blocking=True)": (1, 0),
    "torch.empty(4, 3, pin_memory=True).copy_(x, non_blocking=True)": (0, 1),
    "torch.empty(4, 3, pin_memory=True).copy_(x)": (1, 0),
    "h.to(x.device)": (1, 0),
    "h.pin_memory().to(x.device, non_blocking=True)": (0, 0),
    "x[x > 0]": (1, 0),
    "x.nonzero()": (1, 0),
    "x.unique()": (1, 0),
    "torch.accelerator.synchronize()": (1, 0),
    "recorded().synchronize()": (1, 0),
    "recorded().query()": (0, 0),
    "passed().synchronize()": (0, 0),
    "(x @ x.mT).softmax(-1).sum(0) + 1": (0, 0),
    "torch.zeros(3, device=x.device) + x[0]": (0, 0),
    "torch.arange(4, device=x.device)[:, None] * x": (0, 0),
    "torch.where(x > 0, x, 0).amax()": (0, 0),
    "h.tolist()": (0, 0),
}
SCRIPT = """
import json, sys
import torch
from bench.overhead.accelerator import Accelerator

device = Accelerator()
found = {}

def recorded():
    event = torch.Event("counted")
    event.record()
    return event

def passed():
    event = recorded()
    device.step += 1
    return event

with device.active():
    for case in json.loads(sys.argv[1]):
        h = torch.arange(-5.0, 7.0).reshape(4, 3)
        x = device.to_device(h.clone())
        device.reset()
        eval(case)
        found[case] = device.blocking.total(), device.copies.total()
    w = torch.nn.Parameter(device.to_device(torch.ones(3, 2)))
    (x @ w).square().mean().backward()
    gradient = w.grad.tolist()
print(json.dumps([found, gradient, str(x.device)]))
"""


@pytest.mark.slow
def test_waits_are_counted_and_nothing_else() -> None:
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(CASES))]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found, gradient, device = json.loads(ran.stdout.splitlines()[-1])
    assert {case: tuple(counts) for case, counts in found.items()} == CASES
    assert device == "counted:0"
    # d/dw of mean((h·w)²) with w = 1: 2/8 · hᵀ·(row sums of h), the same in both columns.
    rows = [[-5, -4, -3], [-2, -1, 0], [1, 2, 3], [4, 5, 6]]
    expected = [sum(row[d] * sum(row) for row in rows) / 4 for d in range(3)]
    assert gradient == [[value, value] for value in expected]
