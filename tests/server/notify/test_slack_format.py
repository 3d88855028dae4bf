"""Messages that Slack takes, whatever somebody called a group or a detector gave as its reason."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.changes.diff import ActionChange, BestCheckpointChange, Change, PhaseChange
from pathwatch.server.notify.events import Notification
from pathwatch.server.notify.slack_format import message

URL = "https://pathwatch.example"
HOSTILE = st.text(
    st.sampled_from("<>&|!@#*_`~\n\r\t abé😀\u202e") | st.characters(exclude_categories=["Cs"]), max_size=4000
)


def phase(**changes: Any) -> PhaseChange:
    values: dict[str, Any] = {
        "run": "run",
        "revision": 3,
        "at": 1_700_000_000.0,
        "step": 30,
        "group": "math",
        "before": "MEMORIZED",
        "after": "GENERALIZED",
        "reason": "paths fell",
        "evidence": {"drop": 0.25, "z": 4.0},
    }
    return PhaseChange(**(values | changes))


def action(**changes: Any) -> ActionChange:
    values: dict[str, Any] = {
        "run": "run",
        "revision": 3,
        "at": 1_700_000_000.0,
        "step": 30,
        "before": "CONTINUE",
        "after": "STOP",
        "stop_at_step": 35,
        "reason": "all groups generalized",
        "best_checkpoint_step": 20,
    }
    return ActionChange(**(values | changes))


def best(**changes: Any) -> BestCheckpointChange:
    values: dict[str, Any] = {
        "run": "run",
        "revision": 3,
        "at": 1_700_000_000.0,
        "step": 30,
        "group": "",
        "before": None,
        "after": 20,
    }
    return BestCheckpointChange(**(values | changes))


def texts(content: Any) -> list[str]:
    """Every text of a message, however deep."""
    if isinstance(content, dict):
        return [text for key, value in content.items() for text in texts(value) if key != "type"]
    if isinstance(content, list):
        return [text for item in content for text in texts(item)]
    return [content] if isinstance(content, str) else []


def check(content: dict[str, Any]) -> None:
    """As Slack's documentation has it: lengths, escapes, kinds of blocks."""
    assert json.loads(json.dumps(content)) == content
    assert content["text"]
    assert 1 <= len(content["blocks"]) <= 50
    for block in content["blocks"]:
        (limit, shown) = {
            "header": (150, [block.get("text")]),
            "section": (3000, [block.get("text")]),
            "context": (3000, block.get("elements")),
        }[block["type"]]
        for text in shown:
            assert 1 <= len(text["text"]) <= limit
            assert text["type"] == ("plain_text" if block["type"] == "header" else "mrkdwn")
            assert text.get("verbatim") is (None if block["type"] == "header" else True)
    for text in texts(content):
        # The only links are ours; nothing of another's can begin a link or a mention, or half an escape.
        bare = re.sub(rf"<{re.escape(URL)}[^<>|\s]*\|open the (run|status page)>", "", text)
        assert not re.search(r"[<>]|&(?!(amp|lt|gt);)", bare)


@pytest.mark.parametrize(
    ("change", "text", "others"),
    [
        (phase(), "run: math is GENERALIZED, was MEMORIZED", ["paths fell", "step 30 · drop 0.25 · z 4"]),
        (action(), "run: STOP at step 35", ["all groups generalized", "step 30 · best checkpoint: step 20"]),
        (action(after="CONTINUE", before="STOP"), "run: CONTINUE, was STOP", ["all groups generalized"]),
        (best(), "run: the best checkpoint is that of step 20", ["step 30"]),
        (best(group="math"), "run: the best checkpoint of math is that of step 20", ["step 30"]),
        (best(after=None), "run: no checkpoint is the best any more", ["step 30"]),
    ],
)
def test_what_people_read(change: Change, text: str, others: list[str]) -> None:
    content = message(Notification([change]), URL)
    check(content)
    assert content["text"] == text
    assert texts(content["blocks"])[0] == text
    for other in others:
        assert any(other in found for found in texts(content["blocks"]))
    assert f"<{URL}/#/runs/run|open the run>" in texts(content["blocks"])[-1]
    assert URL not in str(message(Notification([change]), ""))


@pytest.mark.slow
@given(name=HOSTILE.filter(bool), reason=HOSTILE, evidence=st.dictionaries(HOSTILE, st.floats()))
def test_nothing_hostile_gets_through(name: str, reason: str, evidence: dict[str, float]) -> None:
    check(message(Notification([phase(group=name, reason=reason, evidence=evidence)]), URL))
    check(message(Notification([action(run=name, reason=reason)]), URL))
    check(message(Notification([phase(group=name), best(group=name)] * 60), URL))


def test_a_mention_is_shown_not_made() -> None:
    content = message(Notification([phase(reason="<!channel> & <https://evil.example|click>")]), URL)
    assert "&lt;!channel&gt; &amp; &lt;https://evil.example|click&gt;" in texts(content)


def test_a_summary_lists_some_and_counts_the_others() -> None:
    changes = [phase(group=f"g{number}") for number in range(57)]
    content = message(Notification(changes), URL)
    check(content)
    assert content["text"] == "57 changes in run run"
    assert "• run: g19 is GENERALIZED, was MEMORIZED (step 30)" in texts(content)
    assert not any("g20" in text for text in texts(content))
    assert texts(content)[-1] == f"and 37 more <{URL}|open the status page>"
    two = message(Notification([phase(), phase(run="other")]), "")
    assert two["text"] == "2 changes in 2 runs"
