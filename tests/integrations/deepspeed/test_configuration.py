"""Settings from DeepSpeed's configuration, from arguments and from the environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pathwatch.client import Credentials, Spool
from pathwatch.integrations.deepspeed import Checkpoints, Probe, ProbeGroup, Stream, attach
from pathwatch.v1 import run_pb2

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))
GROUPS = {"a": ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(4))}


def begun(engine: Any, **arguments: Any) -> None:
    with attach(engine, **arguments) as watch:
        watch.begin()


def test_a_block_alone_is_enough(make_engine: Callable, streams: list) -> None:
    block = {
        "run": "r",
        "server": "file:///etc/shards",
        "attempt": 3,
        "stream": {"window_steps": 50, "shift_labels": False},
        "policy": "quorum",
        "policy_options": {"quorum": 0.5},
        "detector": "mine",
        "thresholds": [0.6, 0.7],
        "keep_observations": True,
        "check_interval": 7,
        "tls": {"ca": "/ca.pem", "cert": "/c.pem", "key": "/k.pem"},
        "token_file": "/job.token",
    }
    begun(make_engine(pathwatch=block))
    (stream,) = streams
    assert (stream.settings["run"], stream.settings["server"]) == ("r", "file:///etc/shards")
    assert stream.settings["attempt"] == 3
    assert stream.settings["credentials"] == Credentials(
        root_ca="/ca.pem",
        cert="/c.pem",
        key="/k.pem",
        token_file="/job.token",  # noqa: S106
    )
    config = stream.settings["config"]
    assert (config.mode, config.window_steps) == (run_pb2.OBSERVATION_MODE_STREAM, 50)
    assert (config.policy, dict(config.policy_options)) == ("quorum", {"quorum": "0.5"})
    assert (config.detector, list(config.thresholds)) == ("mine", [0.6, 0.7])
    assert config.keep_observations
    assert config.stop_margin_steps == 8


def test_a_configuration_file_is_read_as_a_dict_is(
    make_model: Callable, streams: list, tmp_path: Path
) -> None:
    import deepspeed

    path = tmp_path / "ds.json"
    block = {"run": "from-file", "stream": {"window_steps": 5}}
    path.write_text(json.dumps({"train_micro_batch_size_per_gpu": 4, "pathwatch": block}))
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=str(path))[0]
    begun(engine)
    assert streams[0].settings["run"] == "from-file"


def test_arguments_win_over_the_block(make_engine: Callable, streams: list) -> None:
    block = {
        "run": "block",
        "policy": "quorum",
        "thresholds": [0.5],
        "probe": {"interval": 20, "batch_size": 2, "shift_labels": False},
    }
    config = run_pb2.RunConfig(policy="patience", delta=0.1)
    probe = Probe(groups=GROUPS, batch_size=3)
    engine = make_engine(pathwatch=block)
    passes = []
    engine.module.register_forward_hook(lambda *_: passes.append(engine.module.training))
    begun(engine, run="argument", config=config, probe=probe)
    settings = streams[0].settings
    assert settings["run"] == "argument"
    assert (settings["config"].policy, settings["config"].delta) == ("patience", 0.1)
    assert list(settings["config"].thresholds) == [0.5]
    assert passes == [False, False]  # four samples, three at a time


def test_a_probe_takes_from_the_block_what_it_leaves_open(make_engine: Callable, streams: list) -> None:
    engine = make_engine(pathwatch={"run": "r", "probe": {"interval": 2}})
    with attach(engine, probe=Probe(groups=GROUPS)):
        for _ in range(4):
            engine.backward(engine(TOKENS).square().mean())
            engine.step()
    assert [event["step"] for event in streams[0].of("watermark")] == [0, 2, 4]


def test_the_environment_is_asked_last(
    make_engine: Callable, streams: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATHWATCH_RUN", "environment")
    monkeypatch.setenv("PATHWATCH_SERVER", "127.0.0.1:4321,127.0.0.1:4323")
    begun(make_engine(), stream=Stream(window_steps=5))
    begun(make_engine(pathwatch={"run": "block", "stream": {"window_steps": 5}}), server="dns:///shards:4322")
    told = [(stream.settings["run"], stream.settings["server"]) for stream in streams]
    assert told == [("environment", "127.0.0.1:4321,127.0.0.1:4323"), ("block", "dns:///shards:4322")]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"stream": {"window_steps": 5}, "chek_interval": 5},
            "'chek_interval'; did you mean 'check_interval'",
        ),
        (
            {"stream": {"window_step": 5}},
            r"pathwatch.stream: unknown 'window_step'; did you mean 'window_steps'",
        ),
        ({"probe": {"groups": {}}}, "pathwatch.probe: unknown 'groups'"),
        ({"tls": {"root": "x"}}, "pathwatch.tls: unknown 'root'; known are ca, cert, key"),
        ({"token": "x"}, "holds a token, .* token_file, or in PATHWATCH_TOKEN"),
        ({"token_file": 3}, "token_file must be a text, is 3"),
        ({"stream": {"window_steps": 0}}, "pathwatch.stream: window_steps must be at least 1"),
        (
            {"stream": {"window_steps": 5}, "check_interval": "5"},
            "check_interval must be a whole number, is '5'",
        ),
        ({"stream": {"window_steps": 5}, "strict": 1}, "strict must be true or false, is 1"),
        ({"checkpoints": {"keep": 0}}, "pathwatch.checkpoints: checkpoints: keep must be at least 1"),
        (
            {"spool": {"folder": "x", "max_bytes": 9}},
            "pathwatch.spool: spool: max_bytes is 9, must be at least",
        ),
        ({"probe": {"interval": 5}}, "give what to read as an argument"),
        ({"run": "r"}, "either probe= or stream="),
        ([], "must be a mapping"),
    ],
)
def test_a_wrong_block_is_named_and_with_strict_refused(
    make_engine: Callable, streams: list, caplog: pytest.LogCaptureFixture, block: Any, message: str
) -> None:
    if isinstance(block, dict):
        block = {"run": "r", **block}
    engine = make_engine(pathwatch=block)
    with pytest.raises(ValueError, match=message):
        attach(engine, strict=True)
    caplog.clear()
    with attach(engine) if block else pytest.raises(ValueError, match=message) as watch:
        if not block:
            attach(engine)
        else:
            engine.backward(engine(TOKENS).square().mean())
            engine.step()
            assert not watch.should_stop()
            assert not watch.should_checkpoint()
            assert sum("training goes on" in record.message for record in caplog.records) == 1
    assert not streams


def test_a_wrong_block_lets_the_keywords_meant_for_us_not_reach_the_model(
    make_engine: Callable, streams: list
) -> None:
    engine = make_engine(pathwatch={"check_intervall": 20})
    with attach(engine, run="r", stream=Stream(window_steps=5, groups="source")):
        engine.backward(engine(TOKENS, source=["a"] * 4).square().mean())
        engine.step()
    assert not streams


def test_a_disabled_watch_does_nothing_and_answers_no(
    make_engine: Callable, streams: list, tmp_path: Path
) -> None:
    engine = make_engine(pathwatch={"enabled": False})
    with attach(engine) as watch:
        engine.backward(engine(TOKENS).square().mean())
        engine.step()
        engine.save_checkpoint(str(tmp_path))
        watch.batch(groups="a", sample_ids=[1], shape=(1, 6))
        answers = (watch.should_checkpoint(), watch.should_stop(), watch.signal, watch.best_checkpoint())
    assert answers == (False, False, None, None)
    assert not streams


def test_an_unknown_argument_is_refused_with_the_nearest(make_engine: Callable) -> None:
    with pytest.raises(ValueError, match="unknown 'sever'; did you mean 'server'"):
        attach(make_engine(), run="r", sever="x", stream=Stream(window_steps=5))
    with pytest.raises(ValueError, match="PATHWATCH_RUN"):
        attach(make_engine(), stream=Stream(window_steps=5))


def test_checkpoints_of_the_block(make_engine: Callable, streams: list) -> None:
    from pathwatch.integrations.deepspeed.configuration import settings_of

    block = {"run": "r", "stream": {"window_steps": 5}, "checkpoints": {"links": False, "keep": 3}}
    assert settings_of(block, {}).checkpoints == Checkpoints(links=False, keep=3)
    assert settings_of({**block, "checkpoints": None}, {}).checkpoints is None
    assert settings_of(block, {"checkpoints": Checkpoints()}).checkpoints == Checkpoints()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("/scratch/spool", Spool("/scratch/spool")),
        ({"folder": "/scratch/spool", "max_bytes": 1 << 30}, Spool("/scratch/spool", 1 << 30)),
        (None, None),
    ],
)
def test_spool_of_the_block(said: object, meant: Spool | None) -> None:
    from pathwatch.integrations.deepspeed.configuration import settings_of  # imports DeepSpeed

    block = {"run": "r", "stream": {"window_steps": 5}, "spool": said}
    assert settings_of(block, {}).spool_settings() == meant


def test_a_spool_is_handed_on_to_the_stream(make_engine: Callable, streams: list, tmp_path: Path) -> None:
    begun(make_engine(pathwatch={"run": "r", "stream": {"window_steps": 5}, "spool": str(tmp_path)}))
    assert streams[0].settings["spool"] == Spool(str(tmp_path))


@pytest.mark.parametrize(
    ("block", "credentials"),
    [
        ({}, None),
        ({"token_file": "/t"}, Credentials(token_file="/t")),  # noqa: S106
        ({"tls": {}}, Credentials(tls=True)),
        ({"insecure": True, "token_file": "/t"}, Credentials(insecure=True, token_file="/t")),  # noqa: S106
    ],
)
def test_how_the_sidecar_is_reached(block: dict, credentials: Credentials | None) -> None:
    from pathwatch.integrations.deepspeed.configuration import settings_of  # imports DeepSpeed

    block = {"run": "r", "stream": {"window_steps": 5}, **block}
    assert settings_of(block, {}).credentials == credentials
