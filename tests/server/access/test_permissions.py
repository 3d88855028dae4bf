"""Files with secrets that others can get at are pointed out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.token_file import open_tokens


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        (0o600, []),
        (0o640, []),
        (0o644, ["can be read by all users of this machine: chmod o-r"]),
        (0o660, ["can be changed by other users: chmod go-w"]),
        (0o666, ["can be changed by other users", "can be read by all users"]),
    ],
)
def test_a_file_of_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, says: list[str]
) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text("[]")
    path.chmod(mode)
    open_tokens(path, "tokens", AccessCounts())
    assert len(caplog.records) == len(says)
    for record, words in zip(caplog.records, says, strict=True):
        assert words in record.getMessage()
        assert str(path) in record.getMessage()
