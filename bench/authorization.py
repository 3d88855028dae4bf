"""What asking every call for a token costs: `python bench/authorization.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from answering import Door, measure

from pathwatch.server.access.audit import AuditLog
from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.token_file import open_tokens
from pathwatch.server.access.tokens import hash_of, new_secret
from pathwatch.server.api.authorization import Authorization
from pathwatch.v1 import routing_pb2

ROUNDS = 9
MESSAGES = 4000
CALLS = 400
TOKENS = 100


def messages() -> Iterator[routing_pb2.StreamRoutingRequest]:
    yield routing_pb2.StreamRoutingRequest(hello=routing_pb2.StreamHello(run="abc-1"))
    for sequence in range(1, MESSAGES):
        yield routing_pb2.StreamRoutingRequest(
            sequence=sequence, watermark=routing_pb2.Watermark(step=sequence)
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        secret = new_secret()
        path = Path(folder) / "tokens.yaml"
        entries = [
            {"name": f"t{i}", "sha256": hash_of(new_secret()).hex(), "scopes": ["read"]}
            for i in range(TOKENS)
        ]
        entries.append(
            {"name": "job", "sha256": hash_of(secret).hex(), "scopes": ["ingest"], "runs": ["abc-*"]}
        )
        path.write_text(yaml.safe_dump(entries))
        path.chmod(0o600)
        guard = Authorization(open_tokens(path, "tokens", AccessCounts()), AuditLog(None), AccessCounts())
        doors = {"open": Door([]), "guarded": Door([guard], (("authorization", f"Bearer {secret}"),))}
        costs = measure(doors, messages, CALLS, ROUNDS)
    for column, what in enumerate(("message of a stream", "call")):
        plain, guarded = (1e6 * costs[name][column] for name in ("open", "guarded"))
        print(
            f"{what}: {plain:.0f} µs open, {guarded:.0f} µs with one of {TOKENS + 1} tokens, bound to runs; "
            f"ratio {guarded / plain:.2f}"
        )


if __name__ == "__main__":
    main()
