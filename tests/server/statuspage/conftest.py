"""Servers that were fed through the real client, and the schema of what they answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from recorded_run import LASTING, RecordedRun, made_up

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig

SCHEMA = Path(__file__).parents[3] / "docs" / "api-v1.schema.json"
GROUPS = ("code", "ünï <b>/&=", "math")
"""Of made-up runs."""


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    """docs/api-v1.schema.json."""
    document: dict[str, Any] = json.loads(SCHEMA.read_text())
    return document


@pytest.fixture(scope="session")
def check_document(schema: dict[str, Any]) -> Callable[[str, Any], None]:
    """Holds a document against a definition of the schema; fields that it does not name are faults too."""
    closed = _closed(schema)
    Draft202012Validator.check_schema(closed)

    def check(definition: str, document: Any) -> None:
        Draft202012Validator({**closed, "$ref": f"#/$defs/{definition}"}).validate(document)

    return check


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(each) for name, each in schema.items()}
    if "required" in schema:
        closed["additionalProperties"] = False
    return closed


@pytest.fixture(scope="session")
def made_up_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """Runs of little data, which stay as they are. `empty` sent nothing, `done` is finished and has distance
    per layer, `back` went back to an older step, `open` waits for a rank that never comes and is stale."""
    with BackgroundServer(ServerConfig(data=tmp_path_factory.mktemp("made-up"))) as server:
        with RecordedRun(server.grpc_address, "done", made_up(40, 1, groups=GROUPS), per_layer=True) as done:
            done.play()
            done.finish()
        with RecordedRun(
            server.grpc_address, "back", made_up(20, 2, groups=GROUPS), grace_seconds=LASTING
        ) as first:
            first.play()
        with RecordedRun(
            server.grpc_address,
            "back",
            made_up(20, 3, groups=GROUPS),
            attempt=1,
            first=9,
            grace_seconds=LASTING,
        ) as again:
            again.play(5)
        with (
            RecordedRun(server.grpc_address, "empty", made_up(1, 4), grace_seconds=LASTING),
            RecordedRun(
                server.grpc_address, "open", made_up(6, 5), world_size=3, grace_seconds=0.2
            ) as waiting,
        ):
            waiting.play()
            waiting.wait_stale()
            yield server
