"""Waits take nothing of the random numbers that a job draws."""

import random

import pytest

from pathwatch.client import Client, PathwatchError, RoutingStream
from pathwatch.v1 import run_pb2

NOWHERE = "127.0.0.2:1"


def test_what_a_job_draws_does_not_depend_on_a_sidecar_that_is_away(eventually):
    random.seed(1)
    before = random.getstate()
    stream = RoutingStream(NOWHERE, run="run", config=run_pb2.RunConfig())
    eventually(lambda: stream.stats.last_error)
    with Client(f"{NOWHERE},127.0.0.2:2") as client, pytest.raises(PathwatchError):
        client.get_run("run")
    stream.close(1.0)
    assert random.getstate() == before
