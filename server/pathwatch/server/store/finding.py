"""What a check of stored data has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    NOTE = "note"
    """Harmless: the server sees to it by itself."""
    WRONG = "wrong"
    """To be seen to; the database itself is good."""
    DAMAGE = "damage"
    """The database is not as it was written; a snapshot helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    item: str
    """A file, or what in the database."""
    severity: Severity
    problem: str
    """What is wrong with it, without a full stop."""
    remedy: str
    """What to do."""
