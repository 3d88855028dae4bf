"""Lines of the log as people and machines get them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.logs.setup import set_up_logging

log = logging.getLogger("pathwatch.server.test")
HOSTILE = "a\n2026-01-01 forged line\x1b[2J\x9b31m\u202eevil\u2028"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(write: Callable[[], None], form: str = "auto", *, level: str = "info", stream=None) -> str:
    stream = stream or io.StringIO()
    root = logging.getLogger()
    root.handlers[:] = []
    set_up_logging(form, level, stream)
    for handler in root.handlers:  # not what threads of other tests have to say
        handler.addFilter(logging.Filter(log.name))
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)  # not Ray's, which adds to every record of its process
    try:
        write()
    finally:
        logging.setLogRecordFactory(factory)
    return stream.getvalue()


def test_a_file_gets_json_lines_with_fields() -> None:
    def write() -> None:
        log.warning("limit %s: %s", "runs", "past it", extra={"run": "a", "evidence": {"drop": float("nan")}})

    (line,) = written(write).splitlines()
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "pathwatch.server.test",
        "event": "limit runs: past it",
        "run": "a",
        "evidence": {"drop": "nan"},
    }


def test_a_terminal_gets_text_in_colours() -> None:
    text = written(lambda: log.info("phase changed", extra={"run": "a", "drop": 0.123456}), stream=Terminal())
    assert "\x1b[" in text
    plain = written(
        lambda: log.info("phase changed", extra={"run": "a", "evidence": {"drop": 0.123456}}), "console"
    )
    assert "phase changed" in plain
    assert "run=a" in plain
    assert "drop=0.1235" in plain
    assert "\x1b" not in plain


@pytest.mark.parametrize("form", ["json", "console"])
def test_nobody_forges_a_line_or_commands_the_terminal(form: str) -> None:
    text = written(
        lambda: log.info(
            "said %s", HOSTILE, extra={"group": HOSTILE, "list": [HOSTILE], "map": {HOSTILE: 1}}
        ),
        form,
    )
    assert len(text.splitlines()) == 1
    assert text.rstrip("\n").isprintable()
    if form == "json":
        assert json.loads(text)["group"] == HOSTILE


@given(st.text(), st.dictionaries(st.text(max_size=5), st.floats() | st.text() | st.none() | st.integers()))
def test_a_line_is_a_line_whatever_it_holds(text: str, fields: dict[str, object]) -> None:
    for form in ("json", "console"):
        line = written(lambda: log.info("%s", text, extra={"fields": fields}), form)
        assert line.endswith("\n")
        assert len(line.splitlines()) == 1


def test_an_exception_stays_with_its_line() -> None:
    def write() -> None:
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            log.exception("a fault", extra={"run": "a"})

    (line,) = written(write).splitlines()
    entry = json.loads(line)
    assert (entry["run"], entry["event"]) == ("a", "a fault")
    assert "Traceback" in entry["exception"]
    assert "ValueError" in entry["exception"]
    shown = written(write, "console")
    assert "Traceback" in shown
    assert "\x1b" not in shown


def test_less_is_written_from_a_higher_level_on() -> None:
    def write() -> None:
        log.debug("detail")
        log.info("news")
        log.error("trouble")

    assert written(write, level="error").count("\n") == 1
    assert written(write, level="debug").count("\n") == 3
