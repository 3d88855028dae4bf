"""A stream with a spool: outages longer than memory, what earlier lives left, and disks that fail."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pathwatch.client import RoutingStream, Spool, spool_folder, spooler
from pathwatch.client.spool_frames import header_bytes, read_frames, read_header
from pathwatch.v1 import routing_pb2

STEP_BYTES = 50_000
MEMORY = 4 * STEP_BYTES

Streams = Callable[..., RoutingStream]


def fill(stream: RoutingStream, steps: range) -> None:
    """Each step: two batches of 5 samples, together some 50 kB, and a watermark."""
    weights = np.full((5, 2, 600), 1 / 600, np.float32)
    for step in steps:
        for group in ("math", "code"):
            stream.observe(step=step, group=group, sample_ids=np.arange(5), weights=weights)
        stream.watermark(step)


def expected(steps: range) -> list[tuple[int, str]]:
    return [(step, what) for step in steps for what in ("math", "code", "watermark")]


def received(sidecar: Any) -> list[tuple[int, str]]:
    """What arrived, each message once, in the order of first arrival."""
    seen: dict[tuple[int, str], None] = {}
    for message in sidecar.messages:
        if message.HasField("batch"):
            seen.setdefault((message.batch.step, message.batch.group))
        elif message.HasField("watermark"):
            seen.setdefault((message.watermark.step, "watermark"))
    return list(seen)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def settled(stream: RoutingStream) -> Callable[[], bool]:
    """Whether all that memory should not hold is on disk."""
    return lambda: stream.stats.spooled_bytes > 0 and stream.stats.buffered_bytes <= MEMORY // 2


def fill_slowly(stream: RoutingStream, steps: range, eventually: Callable[..., Any]) -> None:
    """As a job would that is no faster than the disk."""
    for step in steps:
        fill(stream, range(step, step + 1))
        eventually(lambda: stream.stats.buffered_bytes <= MEMORY // 2)


def spool_and_close(address: str, folder: Path, steps: range, eventually: Any, **options: Any) -> None:
    """A life that ends with everything on disk."""
    stream = RoutingStream(address, run="run", buffer_bytes=MEMORY, spool=Spool(folder), **options)
    fill_slowly(stream, steps, eventually)
    stream.close(60)
    assert stream.stats.buffered_bytes == 0
    assert stream.stats.dropped_steps == 0


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spool's thread looks after its files at once, not every second."""
    monkeypatch.setattr(spooler, "_TICK", 0.02)


@pytest.fixture
def away(sidecar: Any) -> Any:
    """A sidecar that is not there, but has an address."""
    sidecar.stop()
    return sidecar


def test_an_outage_longer_than_memory_loses_nothing_and_keeps_the_order(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path
) -> None:
    stream = streams(away.address, buffer_bytes=MEMORY, spool=Spool(tmp_path))
    fill_slowly(stream, range(40), eventually)
    assert stream.stats.spooled_bytes > 30 * STEP_BYTES
    away.start()
    assert stream.flush(60)
    assert received(away) == expected(range(40))
    assert away.sequences() == sorted(set(away.sequences()))
    assert (stream.stats.dropped_steps, stream.stats.rejected, stream.stats.spool_error) == (0, 0, None)
    eventually(lambda: files(tmp_path) == [])
    fill(stream, range(40, 43))
    assert stream.flush(60)
    assert received(away) == expected(range(43))


def test_without_an_outage_nothing_is_written(sidecar: Any, streams: Streams, tmp_path: Path) -> None:
    stream = streams(sidecar.address, spool=Spool(tmp_path / "spool"))
    fill(stream, range(20))
    assert stream.flush(60)
    stream.close()
    assert not (tmp_path / "spool").exists()


def test_checkpoints_keep_their_place_through_the_spool(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path
) -> None:
    stream = streams(away.address, buffer_bytes=MEMORY, spool=Spool(tmp_path))
    for step in range(30):
        fill_slowly(stream, range(step, step + 1), eventually)
        if step % 10 == 0:
            stream.register_checkpoint(step=step, tag=f"saved-{step}")
    away.start()
    assert stream.flush(60)
    assert [event for event in away.events if event.startswith("checkpoint")] == [
        "checkpoint 0",
        "checkpoint 10",
        "checkpoint 20",
    ]
    for step in (0, 10, 20):
        assert away.events.index(f"checkpoint {step}") == away.events.index(f"watermark {step}") + 1


@pytest.mark.slow
def test_beyond_max_bytes_the_oldest_whole_steps_go_and_are_counted(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path
) -> None:
    stream = streams(away.address, buffer_bytes=MEMORY, spool=Spool(tmp_path, max_bytes=1 << 20))
    stream.register_checkpoint(step=0, tag="first")
    for step in range(100):
        fill_slowly(stream, range(step, step + 1), eventually)
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 1 << 20
    dropped = stream.stats.dropped_steps
    assert 75 <= dropped < 95
    assert stream.stats.dropped_observations == 10 * dropped
    away.start()
    assert stream.flush(60)
    observed = [item for item in received(away) if item[1] != "watermark"]
    assert observed == [(step, group) for step in range(dropped, 100) for group in ("math", "code")]
    assert [request.checkpoint.tag for request in away.checkpoints] == ["first"]
    assert stream.stats.dropped_steps == dropped


def test_a_sidecar_that_acknowledges_nothing_fills_the_disk_not_memory(
    sidecar: Any, streams: Streams, eventually: Any, tmp_path: Path
) -> None:
    sidecar.acks = False
    stream = streams(sidecar.address, buffer_bytes=MEMORY, spool=Spool(tmp_path))
    fill_slowly(stream, range(30), eventually)
    eventually(lambda: received(sidecar) == expected(range(30)))
    sidecar.stop()
    sidecar.acks = True
    sidecar.messages.clear()
    sidecar.start()
    assert stream.flush(60)
    eventually(lambda: files(tmp_path) == [])
    assert stream.stats.dropped_steps == 0


def test_the_next_life_delivers_what_the_last_one_left_first_and_in_its_name(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path
) -> None:
    spool_and_close(away.address, tmp_path, range(20), eventually, session="first")
    spool_and_close(away.address, tmp_path, range(20, 30), eventually, session="second")
    assert files(tmp_path)
    stream = streams(away.address, session="third", spool=Spool(tmp_path))
    fill(stream, range(30, 33))
    away.start()
    assert stream.flush(60)
    assert received(away) == expected(range(33))
    assert [hello.session for hello in away.hellos if hello.session != "third"] == ["first", "second"]
    assert away.sequences() == [*range(1, 61), *range(1, 31), *range(1, 10)]
    eventually(lambda: files(tmp_path) == [])


def test_what_older_attempts_left_is_removed_and_counted(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool_and_close(away.address, tmp_path, range(20), eventually, attempt=1)
    stream = streams(away.address, attempt=2, spool=Spool(tmp_path))
    eventually(lambda: files(tmp_path) == [])
    away.start()
    fill(stream, range(15, 17))
    assert stream.flush(60)
    assert received(away) == expected(range(15, 17))
    assert (stream.stats.dropped_steps, stream.stats.dropped_observations) == (20, 200)
    assert "of attempts that are over, 200 observations" in caplog.text


@pytest.mark.parametrize(
    "other", [{"rank": 1, "world_size": 2}, {"attempt": 3}], ids=["another rank", "a later attempt"]
)
def test_what_others_left_is_left_alone(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, other: dict[str, int]
) -> None:
    spool_and_close(away.address, tmp_path, range(20), eventually, **other)
    theirs = files(tmp_path)
    away.start()
    stream = streams(away.address, spool=Spool(tmp_path), world_size=2)
    fill(stream, range(2))
    assert stream.flush(60)
    assert received(away) == expected(range(2))
    stream.close()
    assert files(tmp_path) == theirs


def test_files_of_a_life_that_goes_on_are_left_alone(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    living = streams(away.address, session="living", buffer_bytes=MEMORY, spool=Spool(tmp_path))
    fill_slowly(living, range(20), eventually)
    theirs = files(tmp_path)
    assert theirs
    stream = streams("127.0.0.1:1", session="next", spool=Spool(tmp_path))
    eventually(lambda: "still runs" in caplog.text)
    stream.close(0.5)
    assert files(tmp_path) == theirs


def test_what_the_sidecar_refuses_for_ever_is_dropped_and_does_not_hold_up_this_life(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path
) -> None:
    spool_and_close(away.address, tmp_path, range(20), eventually, session="first")
    away.refused_sessions = {"first"}
    away.start()
    stream = streams(away.address, session="second", spool=Spool(tmp_path))
    fill(stream, range(30, 33))
    assert stream.flush(60)
    assert received(away) == expected(range(30, 33))
    assert stream.stats.dropped_observations == 200
    eventually(lambda: files(tmp_path) == [])


def test_damage_costs_what_is_damaged_and_is_said(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool_and_close(away.address, tmp_path, range(30), eventually)
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data[:-100])
    away.start()
    stream = streams(away.address, spool=Spool(tmp_path))
    assert stream.flush(60)
    arrived = received(away)
    assert len(arrived) == 90 - 2 - 1  # in the middle a batch; at the end a watermark, and part of a batch
    assert [item for item in expected(range(30)) if item in arrived] == arrived
    assert stream.stats.spool_damages == 2
    assert stream.stats.dropped_observations == 10
    assert "is damaged before byte" in caplog.text
    eventually(lambda: files(tmp_path) == [])


def test_a_file_whose_header_is_damaged_is_left_alone_and_said(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool_and_close(away.address, tmp_path, range(20), eventually)
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    away.start()
    stream = streams(away.address, spool=Spool(tmp_path))
    fill(stream, range(20, 22))
    assert stream.flush(60)
    assert received(away) == expected(range(20, 22))
    assert files(tmp_path) == [path]
    assert stream.stats.spool_damages == 1
    assert path.name in (stream.stats.spool_error or "")
    assert caplog.text.count(path.name) == 1


@pytest.mark.parametrize("wrong", [{"run": None}, {"born": "yesterday"}, {"pid": []}, {"index": {}}])
def test_one_malformed_header_costs_its_own_file_alone(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    spool_and_close(away.address, tmp_path, range(20), eventually)
    (good,) = files(tmp_path)
    with good.open("rb") as file:
        fields, _, start = read_header(file)
    strange = good.with_name(good.name.replace("-000000.", "-000001."))
    strange.write_bytes(header_bytes(fields | wrong) + good.read_bytes()[start:])
    away.start()
    stream = streams(away.address, spool=Spool(tmp_path))
    fill(stream, range(20, 22))
    assert stream.flush(60)
    assert received(away) == expected(range(22))
    eventually(lambda: files(tmp_path) == [strange])
    assert strange.name in (stream.stats.spool_error or "")


def test_messages_on_disk_that_are_too_large_for_the_server_are_counted_and_said_once(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool_and_close(away.address, tmp_path, range(20), eventually)
    away.options = [("grpc.max_receive_message_length", 20_000)]
    away.start()
    stream = streams(away.address, spool=Spool(tmp_path))
    assert stream.flush(60)
    assert received(away) == [(step, "watermark") for step in range(20)]
    assert stream.stats.dropped_observations == 20 * 10
    # Said by the spool's thread after it has let go of them, which is all that `flush` waits for.
    eventually(lambda: "larger than the server takes" in caplog.text)
    eventually(lambda: files(tmp_path) == [])
    assert caplog.text.count("larger than the server takes") == 1


@pytest.mark.parametrize("fails", ["header", "frames"])
def test_writes_that_fail_leave_no_files_that_nobody_counts(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, monkeypatch: Any, fails: str
) -> None:
    failed = 0
    full = True
    write = os.write

    def write_or_fail(descriptor: int, data: Any) -> int:
        nonlocal failed
        if full and (fails == "header" or len(data) > 10_000):
            failed += 1
            write(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(spool_folder.os, "write", write_or_fail)
    monkeypatch.setattr("pathwatch.client.spooler._RETRY", 0.01)
    monkeypatch.setattr("pathwatch.client.spooler._TICK", 0.01)
    stream = streams(away.address, buffer_bytes=MEMORY, spool=Spool(tmp_path))
    fill(stream, range(10))
    eventually(lambda: failed > 5)
    full = False
    eventually(settled(stream))
    on_disk = sum(file.stat().st_size for file in files(tmp_path))
    assert on_disk == stream.stats.spooled_bytes


@pytest.mark.slow
def test_a_full_disk_is_said_once_and_steps_are_dropped_and_counted_until_there_is_room(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    full = threading.Event()
    write = os.write

    def write_or_fail(descriptor: int, data: Any) -> int:
        if full.is_set():
            write(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(spool_folder.os, "write", write_or_fail)
    monkeypatch.setattr("pathwatch.client.spooler._RETRY", 0.01)
    stream = streams(away.address, buffer_bytes=MEMORY, spool=Spool(tmp_path))
    fill_slowly(stream, range(20), eventually)
    full.set()
    fill(stream, range(20, 60))
    eventually(lambda: stream.stats.spool_error)
    fill(stream, range(60, 62))
    dropped = stream.stats.dropped_steps
    assert 30 <= dropped <= 42
    assert stream.stats.dropped_observations == 10 * dropped
    full.clear()
    eventually(settled(stream))
    fill_slowly(stream, range(62, 80), eventually)
    away.start()
    assert stream.flush(60)
    arrived = [item for item in received(away) if item[1] != "watermark"]
    assert len(arrived) == 2 * (80 - stream.stats.dropped_steps)
    assert [item for item in expected(range(80)) if item in arrived] == arrived
    assert stream.stats.dropped_steps == dropped
    said = [r.getMessage() for r in caplog.records if "cannot write: No space left" in r.getMessage()]
    assert len(said) == 1


class HungFileSystem:
    """Calls that do not return until it is thawed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.thawed = threading.Event()
        self.thawed.set()
        for name in names:
            monkeypatch.setattr(spool_folder.os, name, self._slow(getattr(os, name)))

    def _slow(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wait_and_call(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread().name == "pathwatch-spool":
                self.thawed.wait()
            return call(*arguments, **options)

        return wait_and_call

    def freeze(self) -> None:
        self.thawed.clear()


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Any:
    system = HungFileSystem(monkeypatch, "write", "open")
    yield system
    system.thawed.set()


def test_a_hung_disk_holds_up_nothing_and_what_it_does_not_take_is_dropped_and_counted(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, hung: HungFileSystem
) -> None:
    stream = streams(away.address, buffer_bytes=MEMORY, spool=Spool(tmp_path))
    fill_slowly(stream, range(20), eventually)
    hung.freeze()
    fill(stream, range(20, 60))
    stats = stream.stats
    assert stats.buffered_bytes <= MEMORY
    assert 30 <= stats.dropped_steps <= 40
    assert not stream.flush(0)
    hung.thawed.set()
    away.start()
    assert stream.flush(60)
    arrived = [item for item in received(away) if item[1] != "watermark"]
    assert len(arrived) == 2 * (60 - stats.dropped_steps)
    assert [item for item in expected(range(60)) if item in arrived] == arrived


def test_a_hung_disk_does_not_hold_up_the_end(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, hung: HungFileSystem
) -> None:
    stream = streams(away.address, buffer_bytes=MEMORY, spool=Spool(tmp_path))
    fill_slowly(stream, range(20), eventually)
    hung.freeze()
    fill(stream, range(20, 40))
    stream.close(1.0)
    assert stream.stats.buffered_bytes > 0
    assert stream.stats.spooled_bytes > 0


@pytest.mark.slow
def test_what_a_hung_disk_holds_is_given_up_in_time_for_the_rest(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, hung: HungFileSystem, monkeypatch: Any
) -> None:
    monkeypatch.setattr("pathwatch.client.buffer._HUNG", 0.5)
    stream = streams(away.address, buffer_bytes=MEMORY, spool=Spool(tmp_path))
    fill_slowly(stream, range(20), eventually)
    hung.freeze()
    fill(stream, range(20, 21))
    monkeypatch.setattr("pathwatch.client.spooler.read_segment", lambda *_: hung.thawed.wait())
    away.start()
    eventually(lambda: (20, "watermark") in received(away))
    assert stream.stats.dropped_observations >= 100


SCRIPT = """
import os, sys, threading
import numpy as np
from pathwatch.client import RoutingStream, Spool, spool_folder
call = os.{hanging}
def hang(*arguments, **options):
    if threading.current_thread().name == "pathwatch-spool":
        print("hangs", flush=True)
        threading.Event().wait()
    return call(*arguments, **options)
spool_folder.os.{hanging} = hang
stream = RoutingStream("127.0.0.1:1", run="run", buffer_bytes=200_000, spool=Spool(sys.argv[1]))
for step in range(40):
    stream.observe(step=step, group="math", sample_ids=[1], weights=np.full((1, 2, 600), 1 / 600, np.float32))
    stream.watermark(step)
print("trained", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("hanging", ["write", "scandir"])
def test_a_process_ends_though_its_disk_hangs(tmp_path: Path, hanging: str) -> None:
    script = SCRIPT.format(hanging=hanging)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "hangs" in done.stdout
    assert "trained" in done.stdout


MANY = """
import os, sys, threading, time
import numpy as np
from pathwatch.client import RoutingStream, Spool, buffer, spool_folder, stream as module
module._EXIT_TIMEOUT = 20.0
buffer._PATIENCE = 600.0
write = os.write
def slowly(descriptor, data):
    if threading.current_thread().name == "pathwatch-spool":
        time.sleep(1.4)  # 2.8 s for each stream: too long for one after the other, ample for all at once
    return write(descriptor, data)
spool_folder.os.write = slowly
spool = Spool(sys.argv[1])
streams = [RoutingStream("127.0.0.1:1", run="run", rank=rank, world_size=8, spool=spool) for rank in range(8)]
for stream in streams:
    stream.observe(step=1, group="math", sample_ids=[1], weights=np.full((1, 2, 4), 0.25, np.float32))
"""


@pytest.mark.slow
def test_the_end_keeps_what_every_one_of_many_streams_holds(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", MANY, str(tmp_path)], timeout=60, check=True)
    kept = []
    for path in files(tmp_path):
        with path.open("rb") as file:
            fields, seed, start = read_header(file)
            kept += [fields["rank"] for item, _ in read_frames(file, seed, start, path.stat().st_size)]
    assert sorted(kept) == list(range(8))


def test_a_file_says_whose_it_is_and_is_for_its_owner_only(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path
) -> None:
    spool_and_close(away.address, tmp_path / "a" / "b", range(20), eventually, session="it")
    (path,) = files(tmp_path / "a" / "b")
    header = path.read_bytes()[16:]
    said, _ = json.JSONDecoder().raw_decode(header[: header.index(b"}") + 1].decode())
    assert (said["run"], said["attempt"], said["rank"], said["session"]) == ("run", 0, 0, "it")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("folder", "max_bytes"), [("", 1 << 30), ("x", 1000)])
def test_settings_that_cannot_be_are_refused(folder: str, max_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"spool: (folder|max_bytes)"):
        Spool(folder, max_bytes)


def test_a_folder_that_cannot_be_made_costs_the_spool_alone(
    away: Any, streams: Streams, eventually: Any, tmp_path: Path, caplog: Any
) -> None:
    (tmp_path / "file").write_text("")
    stream = streams(away.address, buffer_bytes=MEMORY, spool=Spool(tmp_path / "file" / "spool"))
    fill(stream, range(40))
    eventually(lambda: stream.stats.spool_error)
    assert stream.stats.dropped_steps > 30
    away.start()
    assert stream.flush(60)
    assert len(received(away)) == 3 * (40 - stream.stats.dropped_steps)
    # Said by the spool's thread, after it has noted the error.
    eventually(lambda: "WARNING" in caplog.text and "cannot write" in caplog.text)


def test_messages_are_what_they_were(away: Any, streams: Streams, eventually: Any, tmp_path: Path) -> None:
    """To the byte, also through the spool and another life."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(600), (30, 5, 2)).astype(np.float32)
    direct = routing_pb2.StreamRoutingRequest()
    for spooled in (True, False):
        if not spooled:
            direct = away.received("batch")
            away.messages.clear()
        stream = RoutingStream(away.address, run="run", buffer_bytes=MEMORY, spool=Spool(tmp_path))
        for step in range(30):
            stream.observe(step=step, group="math", sample_ids=np.arange(5), weights=weights[step])
            eventually(lambda stream=stream: stream.stats.buffered_bytes <= MEMORY // 2)
        if spooled:
            stream.close(60)
            away.start()
            stream = RoutingStream(away.address, run="run", spool=Spool(tmp_path))
        assert stream.flush(60)
        stream.close()
    assert [m.SerializeToString(deterministic=True) for m in direct] == [
        m.SerializeToString(deterministic=True) for m in away.received("batch")
    ]
