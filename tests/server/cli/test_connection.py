"""What `--server` takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ports import lasting_port


@pytest.mark.parametrize("form", ["list", "file", "name"])
@pytest.mark.parametrize("said_by", ["option", "environment"])
def test_one_of_several_servers_that_answers_is_enough(
    command: Callable[..., Result], scripted: Any, tmp_path: Path, form: str, said_by: str
) -> None:
    away = f"127.0.0.1:{lasting_port()}"
    path = tmp_path / "shards"
    path.write_text(f"{away}\n{scripted.address}\n")
    port = scripted.address.rpartition(":")[2]
    server = {
        "list": f"{away},{scripted.address}",
        "file": f"file://{path}",
        "name": f"dns:///localhost:{port}",
    }[form]
    arguments = ["--server", server] if said_by == "option" else []
    environment = {"PATHWATCH_SERVER": server} if said_by == "environment" else {}
    result = command("signal", "pair", "--json", *arguments, **environment)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["action"] == "CONTINUE"


def test_where_none_answers_all_are_named_in_one_line(command: Callable[..., Result]) -> None:
    away = [f"127.0.0.1:{lasting_port()}" for _ in range(2)]
    result = command("runs", "--server", ",".join(away))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "no pathwatch server at" in line
    assert all(address in line for address in away)
