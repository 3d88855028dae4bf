"""A job finds its token in the environment, whatever its framework."""

from __future__ import annotations

import pytest

from pathwatch.client import Credentials
from pathwatch.integrations.observing import Settings, Stream


@pytest.mark.parametrize("options", [{}, {"credentials": None}])
def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    monkeypatch.setenv("PATHWATCH_TOKEN", "s3cret")
    settings = Settings.of({"run": "r", "stream": Stream(window_steps=5), **options})
    assert settings.credentials == Credentials(token="s3cret")  # noqa: S106
    assert "s3cret" not in repr(settings)


def test_credentials_that_are_given_keep_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATHWATCH_TOKEN", "s3cret")
    own = Credentials(token_file="/job.token")  # noqa: S106
    settings = Settings.of({"run": "r", "stream": Stream(window_steps=5), "credentials": own})
    assert settings.credentials is own
