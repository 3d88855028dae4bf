"""How the log reads: for people on a terminal, as JSON lines for everything else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


def set_up_logging(format_name: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send all of this process's log, from `level` on, to `stream` (stderr) as `console`, `json` or `auto`:
    the one on a terminal, the other elsewhere. What a line was given as `extra` becomes fields."""
    stream = stream or sys.stderr
    is_terminal = stream.isatty()
    for_people = format_name == "console" or (format_name == "auto" and is_terminal)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(for_people=for_people, colors=is_terminal))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _formatter(*, for_people: bool, colors: bool) -> logging.Formatter:
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if for_people:
        last += [_for_people, structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, sort_keys=False)]
    else:
        # Pure ASCII: nothing that a terminal would obey, whoever named a group, gets to `cat server.log`.
        last += [_as_json, structlog.processors.JSONRenderer(ensure_ascii=True, allow_nan=False)]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last)


def _for_people(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Numbers short, texts unable to command the terminal or to look like another line."""
    return {
        key: _printable(str(value), keep="\n\t") if key == "exception" else _readable(value)
        for key, value in event.items()
    }


def _readable(value: object) -> object:
    match value:
        case str():
            return _printable(value)
        case float():
            return f"{value:.4g}"
        case Mapping():
            return " ".join(f"{_readable(str(key))}={_readable(item)}" for key, item in value.items())
        case Sequence():
            return " ".join(str(_readable(item)) for item in value)
    return value


def _printable(text: str, keep: str = "") -> str:
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _as_json(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {key: _finite(value) for key, value in event.items()}


def _finite(value: object) -> object:
    """JSON has no word for NaN and infinity."""
    match value:
        case float() if value != value or value in (float("inf"), float("-inf")):
            return str(value)
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case str():
            return value
        case Sequence():
            return [_finite(item) for item in value]
    return value
