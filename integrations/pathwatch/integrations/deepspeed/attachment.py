"""Connecting a DeepSpeed engine to the sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.deepspeed.checkpointing import keep_in_checkpoints, state_in
from pathwatch.integrations.deepspeed.configuration import block_of, settings_of, stream_of_keywords
from pathwatch.integrations.deepspeed.following import follow
from pathwatch.integrations.deepspeed.monitoring import write_to_monitor
from pathwatch.integrations.deepspeed.pipeline_job import job_of
from pathwatch.integrations.observing import Options, Settings, Watch

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_logger = QuietLogger("pathwatch.integrations")


def attach(
    engine: DeepSpeedEngine, *, client_state: Mapping[str, Any] | None = None, **options: Unpack[Options]
) -> Watch:
    """Watch a DeepSpeed engine: call on every rank, after `deepspeed.initialize`.

        with attach(engine, run="my-run", probe=Probe(groups=...)) as watch:
            for batch in batches:
                ...
                engine.step()
                if watch.should_checkpoint():
                    engine.save_checkpoint(out)
                if watch.should_stop():
                    break

    Until the watch is closed, the engine's checkpoints hold its state and are made known by themselves;
    `load_checkpoint` takes it up again.

    Args:
        engine: what `deepspeed.initialize` returned; its steps are followed until the watch is closed.
        client_state: what `engine.load_checkpoint` gave back, where it was called before `attach`.
        options: the fields of `observing.Settings`; `run`, and either `probe` or `stream`, are needed, here
            or in the block `"pathwatch": {…}` of DeepSpeed's configuration. Arguments win.

    Raises:
        ValueError: arguments that do not fit together; with `strict` also a block or a model that cannot be
            followed, which otherwise is logged, and the job trains on unobserved. Nothing is raised later.
    """
    watch = Watch(job_of(engine), _settings(engine, options))
    follow(engine, watch)
    keep_in_checkpoints(engine, watch)
    write_to_monitor(engine, watch)
    if client_state is not None:
        watch.load_state_dict(state_in(client_state))
    return watch


def _settings(engine: DeepSpeedEngine, options: Options) -> Settings:
    block: Mapping[str, Any] = {}
    try:
        block = block_of(engine)
        return settings_of(block, options)
    except ValueError as error:
        strict = options.get("strict", block.get("strict"))
        if strict is True or not block:
            raise
        _logger.error("pathwatch observes nothing, training goes on: %s", error)
        # The model does not know the keywords that are meant for us, observed or not.
        return Settings.of({"enabled": False, "stream": stream_of_keywords(block, options)})
