"""The sidecar that freezes while training is timed."""

from __future__ import annotations

import pytest

from bench.overhead.outages import Sending, freezable
from pathwatch.client import Client, PathwatchError


@pytest.mark.robustness
def test_the_sidecar_freezes_once_it_has_taken_something_and_thaws_when_detached() -> None:
    with freezable() as (address, process):
        variant = Sending("frozen", address, frozen=process)
        variant.attach(job=None)  # type: ignore[arg-type] # nothing of the job is used
        try:
            variant.after_step(None)
            variant.settle()
            with (
                Client(address, timeout=1.0) as client,
                pytest.raises(PathwatchError, match="did not answer"),
            ):
                client.get_run("frozen")
            variant.after_step(None)
        finally:
            variant.detach()
        with Client(address, timeout=30.0) as client:
            assert client.get_run("frozen").groups == ["text"]
    assert variant.taken == 2
