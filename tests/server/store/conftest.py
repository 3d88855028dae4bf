"""Every test of the store interface runs against every engine."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis_process import RedisProcess

from pathwatch.server.config.redis import RedisOptions, parse_redis_url
from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.store.interface import Store
from pathwatch.server.store.redis import RedisStore
from pathwatch.server.store.rows import (
    BatchRow,
    GeometryRow,
    PutBatch,
    PutCheckpoint,
    PutGeometry,
    PutRank,
    PutRound,
    PutRun,
    PutSession,
    PutSignal,
    RankRow,
    RunRow,
    SessionRow,
    SignalRow,
    WindowRow,
)
from pathwatch.server.store.sqlite import SqliteStore

ENGINES = ("sqlite", "redis")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """For many tests, each of which empties it."""
    server = RedisProcess(tmp_path_factory.mktemp("redis"), appendfsync="no")
    yield server
    server.kill()


@pytest.fixture(scope="session")
def new_store(redis_server: RedisProcess) -> Callable[[str, Path], Callable[[], Store]]:
    """What opens an empty store of an engine, and that same one again; the folder must be new."""

    def new_store(engine: str, folder: Path) -> Callable[[], Store]:
        if engine == "sqlite":
            return lambda: SqliteStore(folder)
        with redis_server.client() as client:
            client.flushall()
        return lambda: RedisStore(parse_redis_url(redis_server.url), RedisOptions(timeout_seconds=30))

    return new_store


@pytest.fixture(params=ENGINES)
def open_store(
    request: pytest.FixtureRequest, tmp_path: Path, new_store: Callable[[str, Path], Callable[[], Store]]
) -> Iterator[Callable[[], Store]]:
    """Opens the store; what was opened before is closed first, as a restart would."""
    opened = ExitStack()
    open_engine = new_store(request.param, tmp_path / "data")

    def open_again() -> Store:
        opened.close()
        return opened.enter_context(closing(open_engine()))

    with opened:
        yield open_again


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


@pytest.fixture
def fill() -> Callable[..., None]:
    """Commits a run's life up to a step, every row type, a commit per step; `size` bytes in each blob."""

    def fill(store: Store, steps: range, *, run: str = "run", size: int = 2000) -> None:
        for step in steps:
            blob = random.Random(step).randbytes(size)  # noqa: S311
            key = {"run": run, "attempt": 0, "step": step}
            window = WindowRow(
                **key,
                first_step=step,
                group="math",
                partial=False,
                judged=True,
                phase=1,
                reason="so it is",
                metrics={"train_loss": float(step)},
                layer_path_distance=(),
                evidence=blob,
                losses=blob,
            )
            row = RunRow(
                name=run,
                config=b"config",
                finished=False,
                attempt=0,
                first_step=0,
                step=step,
                closed_step=step,
                world_size=1,
                groups=("math",),
                created_at=0.0,
                updated_at=float(step),
            )
            store.commit(
                [
                    PutRank(row=RankRow(run=run, attempt=0, rank=0, world_size=1, watermark=step)),
                    PutSession(
                        row=SessionRow(run=run, attempt=0, rank=0, session="life", last_sequence=step + 1)
                    ),
                    PutRound(run=run, attempt=0, step=step, windows=(window,), observations=blob),
                    PutBatch(row=BatchRow(run=run, attempt=0, step=step + 1, batch=blob)),
                    PutGeometry(row=GeometryRow(run=run, attempt=0, step=step, geometry=blob)),
                    PutCheckpoint(run=run, checkpoint=Checkpoint(step=step, tag="tag", attempt=0)),
                    PutSignal(row=SignalRow(run=run, revision=step + 1, step=step, signal=blob)),
                    PutRun(row=row),
                ]
            )

    return fill


@pytest.fixture
def content() -> Callable[[Path], list[str]]:
    """All of a database as SQL, from a copy: what stands in the log beside it included."""

    def dump(path: Path) -> list[str]:
        with TemporaryDirectory() as folder:
            for file in path.parent.glob(f"{path.name}*"):
                shutil.copy(file, folder)
            with closing(sqlite3.connect(Path(folder, path.name))) as db:
                return [*db.iterdump(), *map(str, db.execute("PRAGMA user_version"))]

    return dump


@pytest.fixture
def overwrite() -> Callable[[Path, int, int], None]:
    """Fills a range of a file with ones, from another process: by closing it, SQLite's locks would go."""

    def overwrite(path: Path, offset: int, size: int) -> None:
        code = (
            "import sys; path, offset, size = sys.argv[1:]\n"
            "with open(path, 'r+b') as file: file.seek(int(offset)); file.write(b'\\xff' * int(size))"
        )
        subprocess.run([sys.executable, "-c", code, str(path), str(offset), str(size)], check=True)

    return overwrite
