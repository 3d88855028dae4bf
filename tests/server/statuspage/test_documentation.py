"""docs/api.md says what the API does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_requests import ask

from pathwatch.server.app import BackgroundServer
from pathwatch.server.statuspage import events, gate, rankings, resources
from pathwatch.server.statuspage.events import EVENTS

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


def test_every_field_is_described(schema: dict[str, Any]) -> None:
    """The tables hold the fields of the schema with its words, in its order."""
    sections = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    assert [section.split("\n", 1)[0] for section in sections] == list(schema["$defs"])
    for section in sections:
        definition = schema["$defs"][section.split("\n", 1)[0]]
        assert definition["description"] in section
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", section, flags=re.MULTILINE)
        properties = definition["properties"]
        assert [(name, words) for name, _, words in rows] == [
            (name, field["description"]) for name, field in properties.items()
        ]
        assert definition["required"] == list(properties)


@pytest.mark.parametrize("line", re.findall(r"^    (curl .+)$", PAGE, flags=re.MULTILINE))
def test_the_examples(made_up_server: BackgroundServer, line: str) -> None:
    (url,) = [word for word in shlex.split(line) if word.startswith("http")]
    parts = urlsplit(url.replace("/demo", "/done"))
    reply = ask(made_up_server.http_address, f"{parts.path}?{parts.query}" if parts.query else parts.path)
    assert reply.status == 200, reply.content


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (resources.MAX_POINTS, "`points` (2 to {}, default 1000)"),
        (resources.MAX_LAYER_POINTS, "`points` (2 to {}, default 200)"),
        (resources.MAX_METRICS, "at most {}; default: all"),
        (f"{resources.MAX_WINDOWS:,}", "An answer holds at most {} windows"),
        (resources.MAX_WINDOWS // 1000, "with more than {}\ngroups each has fewer than 1000"),
        (events.MAX_SIGNALS, "the newest {} signals"),
        (EVENTS, "at most the newest {} "),
        (gate.AT_ONCE, "{} requests read history at a time"),
        (f"{gate.WAIT_SECONDS:.0f}", "others wait up to {} s"),
        (f"{rankings.WAIT_SECONDS:.0f}", "A ranking that takes longer than {} s"),
    ],
)
def test_the_numbers(number: object, words: str) -> None:
    spelled = {"2": "Two"}.get(str(number), str(number)) if words.startswith("{}") else str(number)
    assert words.format(spelled) in PAGE
