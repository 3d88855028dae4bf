"""Lines of the audit log: whole, in the right file, and not without end."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from pathwatch.server.access import audit
from pathwatch.server.access.audit import REFUSALS_PER_SECOND, AuditLog

CALL = {"peer": "ipv4:10.0.0.1:5", "token": "ops", "method": "/DeleteRun", "run": "a", "outcome": "OK"}


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_json_whatever_the_run_is_called(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    log.record(**(CALL | {"run": 'a"\n{"forged": 1}\x1b[2J\u2028'}), refused=False)
    log.close()
    (entry,) = lines(path)
    assert entry.pop("time") > "2026"
    assert entry == CALL | {"run": 'a"\n{"forged": 1}\x1b[2J\u2028'}
    assert path.read_bytes().count(b"\n") == 1
    assert path.read_bytes().isascii()


def test_it_is_appended_to_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for _ in range(2):
        log = AuditLog(path)
        log.record(**CALL, refused=False)
        log.close()
    assert len(lines(path)) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    log.record(**CALL, refused=False)
    path.rename(tmp_path / "audit.log.1")
    log.record(**CALL, refused=False)
    log.record(**CALL, refused=False)
    log.close()
    assert [len(lines(tmp_path / name)) for name in ("audit.log.1", "audit.log")] == [1, 2]
    assert path.stat().st_mode & 0o777 == 0o600


def test_calls_go_on_where_it_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    log = AuditLog(folder / "audit.log")
    (folder / "audit.log").unlink()
    folder.rmdir()
    log.record(**CALL, refused=False)
    log.record(**CALL, refused=False)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert '"method": "/DeleteRun"' in caplog.text
    folder.mkdir()
    log.record(**CALL, refused=False)
    log.close()
    assert len(lines(folder / "audit.log")) == 1


def test_refusals_are_bounded_and_control_calls_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(audit, "time", SimpleNamespace(monotonic=lambda: now[0]))
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    for _ in range(1000):
        log.record(**CALL, refused=True)
    assert len(lines(path)) == REFUSALS_PER_SECOND
    log.record(**CALL, refused=False)
    assert lines(path)[-1]["suppressed"] == 1000 - REFUSALS_PER_SECOND
    now[0] += 1
    log.record(**CALL, refused=True)
    log.close()
    assert len(lines(path)) == REFUSALS_PER_SECOND + 2
    assert "suppressed" not in lines(path)[-1]


def test_without_a_file_it_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        AuditLog(None).record(**CALL, refused=False)
    (record,) = caplog.records
    assert record.name == "pathwatch.server.audit"
    assert {key: getattr(record, key) for key in CALL} == CALL
