"""Connecting a DeepSpeed engine to the sidecar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from pathwatch.integrations.deepspeed.engine_job import EngineJob
from pathwatch.integrations.deepspeed.following import follow
from pathwatch.integrations.observing import Options, Settings, Watch

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def attach(engine: DeepSpeedEngine, **options: Unpack[Options]) -> Watch:
    """Watch a DeepSpeed engine: call on every rank, after `deepspeed.initialize`.

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
        engine: what `deepspeed.initialize` returned; its steps are followed until the watch is closed.
        options: the fields of `observing.Settings`; `run`, and either `probe` or `stream`, are needed.

    Raises:
        ValueError: arguments that do not fit together; with `strict=True` also a model without routers.
            Nothing is raised later.
    """
    watch = Watch(EngineJob(engine), Settings.of(options))
    follow(engine, watch)
    return watch
