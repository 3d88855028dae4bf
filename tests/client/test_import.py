"""What loading the client brings with it: a training job and a scheduler pay for no more than they use."""

from imports import loaded_after


def test_importing_the_client_loads_neither_numpy_nor_what_only_the_server_needs():
    loaded = loaded_after("from pathwatch.client import *")
    assert "grpc" in loaded
    packages = {name.partition(".")[0] for name in loaded}
    assert not packages & {"numpy", "torch", "scipy", "rapidfuzz", "click", "rich", "yaml", "structlog"}
    assert not [name for name in loaded if name.startswith("pathwatch.server")]


def test_asking_for_signals_needs_no_numpy():
    code = "from pathwatch.client import Client\nwith Client('127.0.0.1:1'): pass"
    assert "numpy" not in loaded_after(code)


def test_a_stream_loads_numpy_before_the_first_step():
    """Loading it takes a hundred times as long as a call of the stream may keep training."""
    code = "from pathwatch.client import RoutingStream\nRoutingStream('127.0.0.1:1', run='run').close(0)"
    assert "numpy" in loaded_after(code)
