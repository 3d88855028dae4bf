"""Connecting a DeepSpeed engine to the sidecar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathwatch.client import Credentials, RoutingStream
from pathwatch.integrations.capture import RouterRecorder, find_routers
from pathwatch.integrations.deepspeed.probe import Probe
from pathwatch.integrations.deepspeed.stream import Stream
from pathwatch.integrations.deepspeed.watch import Watch
from pathwatch.v1 import run_pb2

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def attach(
    engine: DeepSpeedEngine,
    *,
    run: str,
    server: str = "127.0.0.1:50051",
    probe: Probe | None = None,
    stream: Stream | None = None,
    attempt: int = 0,
    config: run_pb2.RunConfig | None = None,
    keep_observations: bool = False,
    credentials: Credentials | None = None,
    check_interval: int = 10,
) -> Watch:
    """Watch a DeepSpeed engine: call on every rank, after `deepspeed.initialize` and any `load_checkpoint`.

        with attach(engine, run="my-run", probe=Probe(groups=...)) as watch:
            for batch in batches:
                ...
                engine.step()
                if watch.should_checkpoint():
                    engine.save_checkpoint(out, tag=(tag := f"step{engine.global_steps}"))
                    watch.checkpoint_saved(tag)
                if watch.should_stop():
                    break

    Args:
        engine: what `deepspeed.initialize` returned; its `step` is followed until the watch is closed.
        run: name of the run; created on the server unless it exists.
        server: HOST:PORT of the sidecar. It may come later, or never: training is not held up.
        probe: re-read these training samples every N steps. This or `stream`.
        stream: observe the training batches, each described by `Watch.batch`.
        attempt: 0, and one more each time the job is restarted from a checkpoint.
        config: settings of the run beyond topology and mode, e.g. its policy; the same on every rank.
        keep_observations: have the sidecar keep the routing of every sample of every window, so that the run
            can be exported and analysed (docs/integration.md says how much that is).
        credentials: how to reach a server that is not on this machine.
        check_interval: optimizer steps between two agreements of the ranks on what the service wants.

    Raises:
        ValueError: no routers found, or arguments that do not fit together. Nothing is raised later.
    """
    if (probe is None) == (stream is None):
        raise ValueError("give either probe= or stream=")
    if check_interval < 1:
        raise ValueError(f"check_interval must be at least 1, got {check_interval}")
    routers = find_routers(engine.module)
    settings = run_pb2.RunConfig()
    if config is not None:
        settings.CopyFrom(config)
    settings.keep_observations |= keep_observations
    settings.topology.CopyFrom(run_pb2.Topology(layers=len(routers), experts=routers[0].experts))
    if stream is None:
        settings.mode = run_pb2.OBSERVATION_MODE_PROBE
    else:
        settings.mode = run_pb2.OBSERVATION_MODE_STREAM
        settings.window_steps = stream.window_steps
    # Ranks learn of a stop up to one agreement late, and apply it one step after.
    settings.stop_margin_steps = max(settings.stop_margin_steps, check_interval + 1)

    def open_stream(attempt: int) -> RoutingStream:
        return RoutingStream(
            server,
            run=run,
            attempt=attempt,
            rank=engine.global_rank,
            world_size=engine.world_size,
            config=settings,
            credentials=credentials,
            watch=engine.global_rank == 0,
        )

    return Watch(
        engine,
        RouterRecorder(routers),
        probe=probe,
        stream_mode=stream,
        open_stream=open_stream,
        attempt=attempt,
        check_interval=check_interval,
    )
