"""Texts that nobody but whom they are for may see: written down, or in a file of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 8 << 10
"""Size of a file with one secret."""


class SecretError(ValueError):
    """A secret that cannot be had; the message says why, and holds none of it."""


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Shows itself only when `read`."""

    text: str = ""
    file: Path | None = None
    """Holds it instead of `text`, blanks around it aside; read anew each time, so that it may be replaced."""

    def read(self) -> str:
        """The secret. Raises SecretError."""
        if self.file is None:
            return self.text
        try:
            with self.file.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
            text = content.decode().strip()
        except OSError as error:
            raise SecretError(f"cannot read {self.file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SecretError(f"{self.file} holds no text") from None
        if not text or len(content) > MOST_BYTES:
            raise SecretError(f"{self.file} must hold 1 to {MOST_BYTES} bytes of text")
        return text

    def __repr__(self) -> str:
        return f"Secret(file={self.file})" if self.file else "Secret(…)"
