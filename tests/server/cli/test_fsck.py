"""`fsck` finds what is wrong with a data folder, says so, and puts a snapshot back."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from pathwatch.client import Client, RoutingStream
from pathwatch.server.app import BackgroundServer, StartError
from pathwatch.server.config import ServerConfig
from pathwatch.server.store.schema import VERSION
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.server.store.sqlite_folder import FILE_NAME
from pathwatch.server.store.sqlite_snapshots import Snapshots
from pathwatch.v1 import run_pb2

STORES = Path(__file__).parents[2] / "data" / "stores"
PAGE = 4096
Invoke = Callable[..., Result]


def train(
    address: str, run: str, steps: range, *, attempt: int = 0, last_watermark: int | None = None
) -> None:
    stream = RoutingStream(address, run=run, attempt=attempt)
    for step in steps:
        rng = np.random.default_rng([step, attempt])
        routers_LKD = rng.normal(size=(2, 4, 8))
        if step % 3 == 0:
            stream.geometry(
                step=step,
                gram_self=np.einsum("lkd,lmd->lkm", routers_LKD, routers_LKD).astype(np.float32),
                gram_next=np.einsum("lkd,lmd->lkm", routers_LKD[:-1], routers_LKD[1:]).astype(np.float32),
            )
        for group in ("code", "math"):
            stream.observe(
                step=step,
                group=group,
                sample_ids=np.arange(16),
                weights=rng.dirichlet(np.ones(4), size=(16, 2)).astype(np.float32),
                losses=(3 * np.exp(-step / 5) * rng.uniform(0.8, 1.2, 16)).astype(np.float32),
            )
        stream.register_checkpoint(step=step, tag=f"step-{step}")
        if last_watermark is None or step <= last_watermark:
            stream.watermark(step)
    assert stream.flush(60)
    stream.close()


def wait_judged(client: Client, run: str, step: int) -> None:
    deadline = time.monotonic() + 60
    while (closed := client.get_run(run).closed_step) < step:
        assert time.monotonic() < deadline, f"{run} is judged up to {closed} of {step}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server that saw it all: open windows, a rewind, a finished run, a deleted one."""
    folder = tmp_path_factory.mktemp("lived-in")
    topology = run_pb2.Topology(layers=2, experts=4)
    probe = run_pb2.RunConfig(topology=topology, keep_observations=True)
    stream = run_pb2.RunConfig(topology=topology, mode=run_pb2.OBSERVATION_MODE_STREAM, window_steps=4)
    with BackgroundServer(ServerConfig(data=folder)) as server, Client(server.grpc_address) as client:
        for run, config in {"probe": probe, "finished": probe, "deleted": probe, "stream": stream}.items():
            client.create_run(run, config)
            train(server.grpc_address, run, range(6))
            # Of rounds that are not judged a rewind leaves nothing.
            wait_judged(client, run, 3 if run == "stream" else 5)
        train(server.grpc_address, "probe", range(3, 9), attempt=1, last_watermark=6)
        train(server.grpc_address, "stream", range(5, 10), attempt=1)  # from the middle of a window
        client.finish_run("finished")
        client.delete_run("deleted")
        wait_judged(client, "probe", 6)
        wait_judged(client, "stream", 7)
    Snapshots(folder).take(folder / FILE_NAME)
    return folder


@pytest.fixture
def data(lived_in: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lived_in, tmp_path / "data"))


@pytest.fixture
def checked(command: Invoke) -> Callable[[Path], list[dict[str, Any]]]:
    """The findings of `fsck --json`; its exit code agrees with them."""

    def check(folder: Path) -> list[dict[str, Any]]:
        result = command("fsck", folder, "--json")
        *findings, summary = map(json.loads, result.stdout.splitlines())
        good = all(finding["severity"] == "note" for finding in findings)
        assert (summary["type"], summary["good"], summary["findings"]) == ("summary", good, len(findings))
        assert result.exit_code == (0 if good else 1), result.output
        assert all(finding["remedy"] for finding in findings)
        return findings

    return check


@pytest.fixture
def edited(data: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(data / FILE_NAME, isolation_level=None)) as db:
        yield db


@pytest.mark.slow
def test_a_folder_that_was_lived_in_is_good(
    command: Invoke, data: Path, checked: Callable[[Path], list[Any]]
) -> None:
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()}
    tables = {
        "batches",
        "geometries",
        "observations",
        "windows",
        "checkpoints",
        "signals",
        "ranks",
        "sessions",
    }
    with closing(sqlite3.connect(data / FILE_NAME)) as db:
        empty = [t for t in tables if not db.execute(f"SELECT count(*) FROM {t}").fetchone()[0]]  # noqa: S608
        assert empty == [], "the test would look at nothing"
        assert db.execute("SELECT count(*) FROM windows WHERE superseded").fetchone()[0] > 0
    assert checked(data) == []
    assert command("fsck", data).output == f"{data} is good\n"
    assert {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()} == before


@pytest.mark.slow
def test_what_a_killed_server_left_is_read_and_left_alone(
    data: Path, tmp_path: Path, checked: Callable[[Path], list[Any]]
) -> None:
    with closing(SqliteStore(data)) as store:
        (run,) = [run for run in store.runs() if run.name == "stream"]
        with closing(sqlite3.connect(data / FILE_NAME)) as db:
            db.execute("UPDATE runs SET config=x'ff' WHERE name='stream'")
            db.commit()
            crashed = Path(shutil.copytree(data, tmp_path / "crashed"))
    log = crashed / f"{FILE_NAME}-wal"
    before = log.read_bytes()
    assert before
    (finding,) = checked(crashed)
    assert finding["item"] == f"configuration of run {run.name!r}"
    assert log.read_bytes() == before


UNREADABLE = {
    "UPDATE runs SET groups='[\"ma' WHERE name='probe'": ".*pathwatch.sqlite3",
    "UPDATE windows SET metrics='{' WHERE run='stream' AND step=3": ".*pathwatch.sqlite3",
    "UPDATE runs SET config=x'0aff' WHERE name='probe'": "configuration of run 'probe'",
    "UPDATE batches SET batch=substr(batch, 1, 40) WHERE run='probe' AND step=8": (
        "batch at step 8 of run 'probe'"
    ),
    "UPDATE geometries SET geometry=x'12'": r"geometry at step \d+ of run '\w+'",
    "UPDATE windows SET evidence=zeroblob(500) WHERE run='stream' AND step=3 AND \"group\"='math'": (
        "evidence of the window of group 'math' at step 3 of run 'stream'"
    ),
    "UPDATE windows SET losses=substr(losses, 9) WHERE run='finished' AND step=2 AND \"group\"='code'": (
        "losses of the window of group 'code' at step 2 of run 'finished'"
    ),
    "UPDATE observations SET observations=substr(observations, 3) WHERE run='probe' AND step=5": (
        "kept observations at step 5 of run 'probe'"
    ),
    "UPDATE signals SET signal=x'ffff' WHERE run='stream' AND revision=2": "signal 2 of run 'stream'",
    "UPDATE last_signals SET signal=(SELECT signal FROM last_signals WHERE run='stream') WHERE run='probe'": (
        "last signal of run 'probe'"
    ),
}


@pytest.mark.parametrize("change", UNREADABLE)
def test_what_cannot_be_read_again_is_named(
    data: Path, edited: sqlite3.Connection, checked: Callable[[Path], list[Any]], change: str
) -> None:
    assert edited.execute(change).rowcount > 0
    edited.close()
    findings = checked(data)
    assert {finding["severity"] for finding in findings} == {"damage"}
    assert all(re.fullmatch(UNREADABLE[change], finding["item"]) for finding in findings), findings
    assert re.search("cannot be read|is damaged", findings[0]["problem"])


CONTRADICTIONS = {
    "DELETE FROM runs WHERE name='finished'": "run 'finished', which does not exist",
    "UPDATE sessions SET attempt=2 WHERE run='probe'": "attempts up to 2 of run 'probe', which is at 1",
    "UPDATE runs SET closed_step=4 WHERE name='probe'": "windows up to step 6, but was judged up to step 4",
    "UPDATE windows SET first_step=step+1 WHERE run='stream' AND step=3": "end before they begin",
    "DELETE FROM signals WHERE run='probe' AND revision=3": "signals, from 1 to",
    "DELETE FROM last_signals WHERE run='probe'": "the last given was None",
}


@pytest.mark.parametrize("change", CONTRADICTIONS)
def test_rows_that_contradict_each_other_are_named(
    data: Path, edited: sqlite3.Connection, checked: Callable[[Path], list[Any]], change: str
) -> None:
    assert edited.execute(change).rowcount > 0
    edited.close()
    findings = checked(data)
    assert {finding["severity"] for finding in findings} == {"damage"}
    assert all(CONTRADICTIONS[change] in finding["problem"] for finding in findings), findings


def test_damaged_pages_are_named_and_a_snapshot_put_back(
    command: Invoke, data: Path, checked: Callable[[Path], list[Any]]
) -> None:
    whole = bytearray((data / FILE_NAME).read_bytes())
    whole[10 * PAGE : 11 * PAGE] = b"\xff" * PAGE
    (data / FILE_NAME).write_bytes(whole)
    findings = checked(data)
    assert {(finding["item"], finding["severity"]) for finding in findings} == {
        (str(data / FILE_NAME), "damage")
    }
    assert "restore" in findings[0]["remedy"]
    done = command("fsck", data, "--restore")
    assert done.exit_code == 0
    aside = data / f"{FILE_NAME}.damaged-1"
    assert f"restored {Snapshots(data).all()[0].path}" in done.output
    assert f"what stood there is kept as {aside}" in done.output
    assert aside.read_bytes() == whole
    (note,) = checked(data)
    assert (note["item"], note["severity"]) == (str(aside), "note")
    with BackgroundServer(ServerConfig(data=data)) as server, Client(server.grpc_address) as client:
        assert {run.name for run in client.list_runs()} == {"probe", "finished", "stream"}


def test_a_good_database_is_not_replaced(command: Invoke, data: Path) -> None:
    before = (data / FILE_NAME).read_bytes()
    done = command("fsck", data, "--restore")
    assert (done.exit_code, done.output) == (0, f"{data} is good\n")
    assert (data / FILE_NAME).read_bytes() == before


def test_a_lost_database_is_put_back(command: Invoke, data: Path) -> None:
    (data / FILE_NAME).unlink()
    lost = command("fsck", data)
    assert lost.exit_code == 2
    assert "there is no database" in lost.stderr
    (line,) = map(json.loads, command("fsck", data, "--restore", "--json").stdout.splitlines())
    assert line["restored"] == str(Snapshots(data).all()[0].path)
    assert line["aside"] is None
    assert command("fsck", data).exit_code == 0


def test_snapshots_are_checked_and_leftovers_named(data: Path, checked: Callable[[Path], list[Any]]) -> None:
    (snapshot,) = Snapshots(data).all()
    left = snapshot.path.with_name("000002.sqlite3.part")
    left.write_bytes(b"half a sna")
    with snapshot.path.open("r+b") as file:
        file.truncate(5 * PAGE)
    found = {finding["item"]: finding["severity"] for finding in checked(data)}
    assert found == {str(snapshot.path): "wrong", str(left): "note"}


def test_without_a_good_snapshot_nothing_is_restored(command: Invoke, data: Path) -> None:
    for path in (Snapshots(data).all()[0].path, data / FILE_NAME):
        path.write_bytes(b"not a database " * 1000)
    done = command("fsck", data, "--restore")
    assert done.exit_code == 2
    assert "no good snapshot" in done.stderr
    assert (data / FILE_NAME).read_bytes() == b"not a database " * 1000


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), noise=st.binary(min_size=8, max_size=64))
@example(place=0.008104471444451589, noise=b"\x01\x01\x01\x01\x01\x01\x01\x80")  # a name that is no text
def test_what_keeps_a_server_from_starting_is_found(
    command: Invoke, lived_in: Path, tmp_path_factory: pytest.TempPathFactory, place: float, noise: bytes
) -> None:
    folder = Path(shutil.copytree(lived_in, tmp_path_factory.mktemp("noisy") / "data"))
    whole = bytearray((folder / FILE_NAME).read_bytes())
    offset = int(place * len(whole))
    whole[offset : offset + len(noise)] = noise
    (folder / FILE_NAME).write_bytes(whole)
    found = command("fsck", folder)
    assert found.exit_code in (0, 1, 2)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    refused = ""
    try:
        with BackgroundServer(ServerConfig(data=folder)):
            pass
    except StartError as error:
        refused = str(error) or "without a word"
        event("refused to start")
    assert refused == "" or found.exit_code != 0
    assert refused != "without a word"


# What cannot be checked.


def test_while_a_server_uses_the_folder(command: Invoke, data: Path) -> None:
    with closing(SqliteStore(data)):
        done = command("fsck", data, "--restore")
    assert done.exit_code == 2
    assert done.stderr == f"pathwatch: another pathwatch server uses {data}; stop it or give another --data\n"


def test_no_folder(command: Invoke, tmp_path: Path) -> None:
    assert command("fsck", tmp_path / "nowhere").exit_code == 2
    assert command("fsck", tmp_path).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_for_us_to_read(command: Invoke, data: Path, edited: sqlite3.Connection) -> None:
    edited.execute(f"PRAGMA user_version={VERSION + 1}")
    newer = command("fsck", data)
    edited.execute("PRAGMA application_id=1")
    foreign = command("fsck", data)
    assert (newer.exit_code, foreign.exit_code) == (2, 2)
    assert "newer pathwatch" in newer.stderr
    assert "another program" in foreign.stderr


def test_an_older_file_is_checked_as_far_as_it_goes(
    tmp_path: Path, checked: Callable[[Path], list[Any]]
) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.executescript((STORES / "version-1.sql").read_text())
    (note,) = checked(tmp_path)
    assert note["severity"] == "note"
    assert "schema 1" in note["problem"]
    SqliteStore(tmp_path).close()
    assert checked(tmp_path) == []
