"""What is stored turns out to be damaged: nothing is acknowledged on top of it, and it is named."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest

from pathwatch.server.config import Limits
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.sqlite_folder import FILE_NAME


def overwrite(path: Any) -> None:
    """All but the first pages, from another process: by closing the file, SQLite's locks would go."""
    code = (
        "import os, sys\n"
        "with open(sys.argv[1], 'r+b') as file:\n"
        "    size = os.fstat(file.fileno()).st_size\n"
        "    file.seek(8192)\n"
        "    file.write(b'\\xff' * (size - 8192))"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


@pytest.mark.slow
def test_damage_while_serving_stops_acknowledgements(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.observe(make_batch(10))
    last = rank.watermark(10)
    eventually(lambda: rank.acked == last)
    eventually(lambda: bench.view().run.closed_step == 10)
    with closing(sqlite3.connect(bench.folder / FILE_NAME)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(bench.folder / FILE_NAME)
    with pytest.raises(StoreError, match=r"is damaged .*malformed"):
        list(bench.store.windows("run"))
    rank.observe(make_batch(20))
    rank.watermark(20)
    failures = bench.engine.stats.commit_failures
    eventually(lambda: bench.engine.stats.commit_failures >= failures + 2)
    assert rank.acked == last
    assert rank.ended is None, "the rank waits, it is not sent away"
    assert bench.view().run.step == 10, "what is not stored is not shown"
    assert bench.view().last_signal.run == "run", "the last signal still stands"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE batches SET batch=substr(batch, 1, 30)", "DecodeError|RefusedError"),
        ("UPDATE runs SET config=x'ff'", "DecodeError"),
        ("UPDATE runs SET groups='[\"ma'", "list of groups of run 'run' is damaged"),
        ("UPDATE last_signals SET signal=x'ff'", "DecodeError"),
    ],
)
def test_a_run_that_cannot_be_taken_up_is_named(
    bench: Any, make_batch: Any, eventually: Any, change: str, what: str
) -> None:
    bench.create()
    rank = bench.join()
    last = rank.observe(make_batch(10))
    eventually(lambda: rank.acked == last)
    bench.stop()
    with closing(sqlite3.connect(bench.folder / FILE_NAME)) as db:
        kept = (bench.folder / FILE_NAME).read_bytes()
        assert db.execute(change).rowcount > 0
        db.commit()
    with pytest.raises(StoreError, match=what) as refused:
        bench.start()
    assert "pathwatch fsck" in str(refused.value)
    bench.store.close()
    (bench.folder / FILE_NAME).write_bytes(kept)
    bench.start()


def test_what_was_acknowledged_outlives_lower_limits(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    last = rank.observe(make_batch(10, n=50))
    eventually(lambda: rank.acked == last)
    bench.limits = Limits(samples_per_message=10, name_length=3)
    bench.restart()
    rank = bench.join(session="new")
    rank.watermark(10)
    eventually(lambda: bench.view().run.closed_step == 10)
    assert bench.view().windows["math"].metrics["window_samples"] == 50
