"""Rank 0 asks which checkpoints the service prefers, links these, and deletes others where it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.observing import checkpoint_folders as folders
from pathwatch.integrations.observing.checkpoints import Checkpoints, SavedCheckpoints, superfluous
from pathwatch.integrations.observing.sidecar import Sidecar
from pathwatch.v1 import run_pb2, signal_pb2

_logger = QuietLogger("pathwatch.integrations")


class CheckpointKeeper:
    """Acts on the service's ranking of what the job has saved."""

    def __init__(self, settings: Checkpoints | None, saved: SavedCheckpoints, sidecar: Sidecar) -> None:
        self._settings = settings
        self._saved = saved
        self._sidecar = sidecar

    @property
    def idle(self) -> bool:
        """Nothing is to be done in checkpoint folders."""
        settings = self._settings
        if settings is None or not (settings.links or settings.keep):
            return True
        return not any(saved.path for saved in self._saved)

    def best(self, group: str | None, signal: signal_pb2.Signal | None) -> str | None:
        """Tag of the best checkpoint: by the service's ranking; without an answer by the newest signal."""
        ranking = self._sidecar.ranking(group)
        if ranking is not None:
            return next((checkpoint.tag for checkpoint in self._present(ranking)), None)
        step = None if signal is None else _best_step(signal, group)
        saved = None if step is None else self._saved.at(step)
        return None if saved is None or saved.deleted else saved.tag

    def arrange(self, groups: Sequence[str]) -> None:
        """Bring links up to date, then delete what is not needed. Without an answer nothing is touched."""
        settings = self._settings
        if settings is None:
            return
        rankings: list[list[int]] = []
        for group in (None, *groups):
            ranking = self._sidecar.ranking(group)
            if ranking is None:
                return
            present = self._present(ranking)
            rankings.append([checkpoint.step for checkpoint in present])
            if settings.links and present:
                self._link(present[0].step, group)
        if settings.keep is not None:
            self._delete(rankings, settings.keep)

    def _present(self, ranking: Sequence[run_pb2.Checkpoint]) -> list[run_pb2.Checkpoint]:
        """Those not deleted, each once: the one a job resumed from is registered in both attempts."""
        by_step = {checkpoint.step: checkpoint for checkpoint in reversed(ranking)}
        ordered = [by_step[step] for step in dict.fromkeys(checkpoint.step for checkpoint in ranking)]
        saved = [(checkpoint, self._saved.at(checkpoint.step)) for checkpoint in ordered]
        return [checkpoint for checkpoint, known in saved if known is None or not known.deleted]

    def _link(self, step: int, group: str | None) -> None:
        saved = self._saved.at(step)
        if saved is not None and saved.path is not None and Path(saved.path).is_dir():
            folders.link(Path(saved.path), folders.link_name(group))

    def _delete(self, rankings: Sequence[Sequence[int]], keep: int) -> None:
        present = [saved for saved in self._saved if saved.path is not None and not saved.deleted]
        for saved in superfluous(present, rankings, keep):
            path = Path(saved.path or "")
            if folders.deletable(path):
                folders.delete(path)
                self._saved.mark_deleted(saved)
                _logger.info("pathwatch deleted checkpoint %s: neither new nor preferred", path)


def _best_step(signal: signal_pb2.Signal, group: str | None) -> int | None:
    for status in (signal,) if group is None else (s for s in signal.groups if s.group == group):
        if status.HasField("best_checkpoint_step"):
            return status.best_checkpoint_step
    return None
