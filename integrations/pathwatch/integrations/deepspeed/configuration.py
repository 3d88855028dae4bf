"""The `"pathwatch": {…}` block of a DeepSpeed configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any, cast

from pathwatch.client import Credentials, Spool
from pathwatch.integrations.observing import Checkpoints, Options, Probe, Settings, Stream
from pathwatch.integrations.observing.settings import refuse_unknown

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

BLOCK = "pathwatch"

_PLAIN: Mapping[str, type] = {
    "run": str,
    "server": str,
    "attempt": int,
    "policy": str,
    "policy_options": dict,
    "detector": str,
    "thresholds": list,
    "keep_observations": bool,
    "check_interval": int,
    "strict": bool,
    "enabled": bool,
}
_WORDS = {str: "a text", int: "a whole number", bool: "true or false", dict: "a mapping", list: "a list"}
_CREDENTIALS = {"ca": "root_ca", "cert": "cert", "key": "key"}
_BY_ARGUMENT = {"groups", "forward", "visits"}
"""Parts of a probe that are no JSON values."""


def block_of(engine: DeepSpeedEngine) -> Mapping[str, Any]:
    """The block of the configuration that `deepspeed.initialize` was given; empty where there is none.

    Raises:
        ValueError: it is no mapping.
    """
    # What DeepSpeed made of a dict, a path or an encoded text; it keeps keys that it does not know.
    block = engine._config._param_dict.get(BLOCK, {})
    if not isinstance(block, Mapping):
        raise ValueError(f"DeepSpeed configuration: {BLOCK!r} must be a mapping, is {block!r}")
    return block


def stream_of_keywords(block: Mapping[str, Any], arguments: Options) -> Stream | None:
    """A stream with the keywords that the job's forward calls carry for us, whatever else is wrong."""
    stream = arguments.get("stream")
    if isinstance(stream, Stream):
        return stream
    said = block.get("stream")
    said = said if isinstance(said, Mapping) else {}
    names = {key: said[key] for key in ("groups", "sample_ids") if isinstance(said.get(key), str)}
    return Stream(window_steps=1, **names) if "groups" in names else None


def merged(block: Mapping[str, Any], arguments: Options) -> Options:
    """Options of the block and of `attach`; arguments win.

    Of a probe given as an argument, what it leaves at its default comes from the block.

    Raises:
        ValueError: a key is unknown, a value not of its kind; the text names it.
    """
    options = _typed(block)
    given = dict(arguments)
    config = arguments.get("config")
    for name in () if config is None else [item.name for item, _ in config.ListFields()]:
        options.pop(name, None)
    probe = given.get("probe")
    if isinstance(probe, Probe):
        given["probe"] = _completed(probe, options.pop("probe", {}))
    elif "probe" in options:
        raise ValueError(
            f"{BLOCK}.probe says how to read a probe; give what to read as an argument: probe=Probe(groups=…)"
        )
    return cast(Options, options | given)


def settings_of(block: Mapping[str, Any], arguments: Options) -> Settings:
    """Settings of a watch, from the block, the arguments of `attach`, and the environment.

    Raises:
        ValueError: what they say is unknown, missing, or does not fit together.
    """
    return Settings.of(merged(block, arguments))


def _typed(block: Mapping[str, Any]) -> dict[str, Any]:
    if "token" in block:
        raise ValueError(
            f"DeepSpeed configuration, {BLOCK}: holds a token, for whoever reads it; "
            "keep it in a file of its own, named by token_file, or in PATHWATCH_TOKEN"
        )
    known = [*_PLAIN, "stream", "probe", "checkpoints", "spool", "tls", "insecure", "token_file"]
    refuse_unknown(block, known, f"DeepSpeed configuration, {BLOCK}")
    options: dict[str, Any] = {}
    for name, value in block.items():
        if name in _PLAIN:
            _check(value, _PLAIN[name], name)
            options[name] = value
    if "policy_options" in block:
        options["policy_options"] = {key: str(value) for key, value in block["policy_options"].items()}
    if "stream" in block:
        options["stream"] = _made(Stream, block["stream"], "stream")
    if "spool" in block:
        spool = block["spool"]
        options["spool"] = spool if spool is None or isinstance(spool, str) else _made(Spool, spool, "spool")
    if "checkpoints" in block:
        settings = block["checkpoints"]
        options["checkpoints"] = None if settings is None else _made(Checkpoints, settings, "checkpoints")
    if "probe" in block:
        _check(block["probe"], dict, "probe")
        known = [item.name for item in fields(Probe) if item.name not in _BY_ARGUMENT]
        refuse_unknown(block["probe"], known, f"DeepSpeed configuration, {BLOCK}.probe")
        options["probe"] = block["probe"]
    credentials = _credentials(block)
    if credentials is not None:
        options["credentials"] = credentials
    return options


def _credentials(block: Mapping[str, Any]) -> Credentials | None:
    tls, insecure = block.get("tls"), block.get("insecure", False)
    token_file = block.get("token_file")
    _check(insecure, bool, "insecure")
    if token_file is not None:
        _check(token_file, str, "token_file")
    if tls is None:
        return Credentials(insecure=insecure, token_file=token_file) if insecure or token_file else None
    _check(tls, dict, "tls")
    refuse_unknown(tls, list(_CREDENTIALS), f"DeepSpeed configuration, {BLOCK}.tls")
    for name, value in tls.items():
        _check(value, str, f"tls.{name}")
    files = {_CREDENTIALS[name]: value for name, value in tls.items()}
    return Credentials(insecure=insecure, token_file=token_file, tls=not files, **files)


def _made(kind: type[Any], values: object, where: str) -> Any:
    """A dataclass from a mapping of the block."""
    if not isinstance(values, Mapping):
        raise ValueError(f"DeepSpeed configuration: {BLOCK}.{where} must be a mapping, is {values!r}")
    names = [item.name for item in fields(kind)]
    refuse_unknown(values, names, f"DeepSpeed configuration, {BLOCK}.{where}")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"DeepSpeed configuration, {BLOCK}.{where}: {error}") from error


def _completed(probe: Probe, values: Mapping[str, Any]) -> Probe:
    """The probe with what the block says of anything it leaves at its default."""
    defaults = {item.name: item.default for item in fields(probe) if item.default is not MISSING}
    left = {name: value for name, value in values.items() if getattr(probe, name) == defaults[name]}
    try:
        return replace(probe, **left)
    except (TypeError, ValueError) as error:
        raise ValueError(f"DeepSpeed configuration, {BLOCK}.probe: {error}") from error


def _check(value: object, kind: type, where: str) -> None:
    # In Python, but not in JSON, true is a number.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"DeepSpeed configuration: {BLOCK}.{where} must be {_WORDS[kind]}, is {value!r}")
