"""Checkpoints in their order, asked for once per state of a run, however many look."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TypeAlias

from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.phases.verdict import RankedCheckpoint
from pathwatch.server.statuspage.documents import VERSION
from pathwatch.server.statuspage.failures import busy, not_found
from pathwatch.server.statuspage.values import JsonObject, number

WAIT_SECONDS = 5.0
"""Longest wait for a ranking; it goes on after that, for whoever asks again."""
RETRY_SECONDS = 2
KEPT = 32
"""Rankings that are held; those of finished runs take long to make."""

Key: TypeAlias = tuple[str, str, str]
"""Run, tag of its state, group."""
Ranked: TypeAlias = list[RankedCheckpoint]


class Rankings:
    """Used from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Future[Ranked]] = OrderedDict()

    def ranked(self, run: str, state: str, group: str) -> Ranked:
        """Best first, for one group or ("") over all. `state` says how far the run is. Raises ApiError."""
        key = (run, state, group)
        future = self._future(key)
        try:
            return future.result(WAIT_SECONDS)
        except TimeoutError as error:
            raise busy("the checkpoints are still being ranked; ask again", RETRY_SECONDS) from error
        except RefusedError as refusal:
            self._forget(key)
            if refusal.code is Code.NOT_FOUND:
                raise not_found(refusal.message) from refusal
            raise busy(f"the checkpoints cannot be ranked: {refusal.message}", RETRY_SECONDS) from refusal
        except Exception:
            self._forget(key)
            raise

    def _future(self, key: Key) -> Future[Ranked]:
        run, _, group = key
        with self._lock:
            future = self._kept.get(key)
            if future is None:
                future = self._kept[key] = self._engine.rank_checkpoints(run, group or None, 0)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return future

    def _forget(self, key: Key) -> None:
        with self._lock:
            self._kept.pop(key, None)


def checkpoints_document(run: str, group: str, ranked: Ranked) -> JsonObject:
    """The ranking as RankCheckpoints gives it."""
    return {
        "version": VERSION,
        "run": run,
        "group": group or None,
        "checkpoints": [
            {
                "rank": rank,
                "step": place.checkpoint.step,
                "attempt": place.checkpoint.attempt,
                "tag": place.checkpoint.tag,
                "score": number(place.score),
                "reason": place.reason,
            }
            for rank, place in enumerate(ranked, 1)
        ],
    }
