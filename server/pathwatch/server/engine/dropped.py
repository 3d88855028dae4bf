"""What senders had to drop before they could send it, as they tell with their watermarks."""

from __future__ import annotations

from pathwatch.server.engine.streams import RankStream


class DroppedCounts:
    """Largest count that each session of an attempt has told. In memory alone: a restart begins anew."""

    def __init__(self, *, sessions_per_rank: int) -> None:
        """Of each rank the `sessions_per_rank` sessions that told last are remembered."""
        self._sessions_per_rank = sessions_per_rank
        self._told: dict[int, dict[str, int]] = {}
        """By rank and session, the one that told last at the end; who dropped nothing is not there."""

    def resume(self, stream: RankStream) -> None:
        """A session connects: what it told before a restart of this server is no news."""
        if stream.told_dropped and stream.session not in self._told.get(stream.rank, ()):
            self._remember(stream, stream.told_dropped)

    def rise(self, stream: RankStream, dropped: int) -> int:
        """A session has dropped so many observations, all in all; how many of them are news."""
        known = self._told.get(stream.rank, {}).get(stream.session, 0)
        if most := max(known, dropped):
            self._remember(stream, most)
        return max(0, dropped - known)

    def _remember(self, stream: RankStream, dropped: int) -> None:
        sessions = self._told.setdefault(stream.rank, {})
        sessions.pop(stream.session, None)
        sessions[stream.session] = dropped
        if len(sessions) > self._sessions_per_rank:
            del sessions[next(iter(sessions))]
