"""Where the Dockerfile's first stage is run in the tests."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import image
import pytest


def test_steps_find_python_and_what_pip_is_told_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian has no `python`, only `python3.11`."""
    tools, prefix, settings = (tmp_path / name for name in ("tools", "prefix", "settings"))
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python{}.{}".format(*sys.version_info)).symlink_to(Path(sys.executable).resolve())
    tools.mkdir()
    (tools / "sh").symlink_to(str(shutil.which("sh")))
    (settings / "pip").mkdir(parents=True)
    (settings / "pip" / "pip.conf").write_text("[global]\n")
    monkeypatch.setattr(sys, "base_prefix", str(prefix))
    for name in ("PIP_CONFIG_FILE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    given = {
        "PATH": tools,
        "XDG_CONFIG_HOME": settings,
        "HTTPS_PROXY": "http://proxy:1",
        "SSL_CERT_FILE": "/ca",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    dockerfile = tmp_path / "Dockerfile"
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    dockerfile.write_text(f"FROM base AS build\nRUN python -c '{show}' > environment\n")
    monkeypatch.setattr(image, "DOCKERFILE", dockerfile)
    image.build_first_stage(tmp_path, {})
    found = json.loads((tmp_path / "environment").read_text())
    assert found["HTTPS_PROXY"] == "http://proxy:1"
    assert found["SSL_CERT_FILE"] == "/ca"
    assert found["PIP_CONFIG_FILE"] == str(settings / "pip" / "pip.conf")
    assert found["HOME"] == str(tmp_path)
