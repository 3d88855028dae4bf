"""What a server refuses to start with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pathwatch.server.config import (
    Limits,
    ServerConfig,
    TlsFiles,
    access_warnings,
    check,
    is_loopback,
    split_address,
)

TLS = Path(__file__).parents[1] / "data" / "tls"
FILES = TlsFiles(cert=TLS / "server.pem", key=TLS / "server.key", client_ca=TLS / "ca.pem")

TOKENS = Path("tokens.yaml")


def config(tmp_path: Path, **changes: object) -> ServerConfig:
    return ServerConfig(data=tmp_path, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"listen": "localhost:0", "http": "localhost:0"},
        {"listen": "[::1]:50051"},
        {"listen": "0.0.0.0:50051", "insecure": True},
        {"http": "0.0.0.0:9464", "insecure": True},
        {"http": "[::]:9464", "tls": FILES, "http_tls": True},
        {"listen": "0.0.0.0:50051", "tls": FILES},
    ],
)
def test_fine(tmp_path: Path, changes: dict[str, object]) -> None:
    assert check(config(tmp_path, **changes)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"listen": "0.0.0.0:50051"}, "listen: 0.0.0.0:50051 is reachable .* --insecure"),
        ({"listen": "sidecar.example:50051"}, "plaintext"),
        ({"listen": "[::]:50051"}, "plaintext"),
        ({"listen": "[::ffff:127.0.0.1]:50051"}, "plaintext"),
        ({"listen": "127.1:50051"}, "plaintext"),
        # Whatever it resolves to now: the name may be given to another address later.
        ({"listen": "ip6-localhost:50051"}, "plaintext"),
        ({"http": "0.0.0.0:9464"}, "http: 0.0.0.0:9464 is reachable .*--http-tls, or --insecure"),
        ({"http": "[::]:9464", "tls": FILES}, "http: .* would carry plaintext"),
        ({"http_tls": True}, "http_tls: .* --tls-cert and --tls-key"),
        ({"tokens": Path("none.yaml")}, "tokens: cannot read none.yaml: No such file"),
        ({"http_tokens": Path(__file__)}, "http_tokens: .*test_config.py: .*is not readable as YAML"),
        ({"audit_log": Path("/nowhere/audit.log")}, "audit_log: there is no folder /nowhere"),
        ({"limits": Limits(calls=2**28 + 1)}, "limits.calls: must be at most 268435456"),
        ({"limits": Limits(health_calls=10**12)}, "limits.health_calls: must be at most 268435456"),
        ({"limits": Limits(connections=10**400)}, "limits.connections: must be at most 268435456"),
        ({"limits": Limits(hello_seconds=10**400)}, "limits.hello_seconds: must be at most 9007199254740991"),
        ({"limits": Limits(answer_rows=2**63)}, "limits.answer_rows: must be at most 9007199254740991"),
        (
            {
                "limits": Limits(
                    message_bytes=2**30,
                    unacked_bytes_per_stream=2**30,
                    unacked_bytes_per_run=2**30,
                    unacked_bytes=2**30,
                )
            },
            "limits.message_bytes: must be at most 1073741823",
        ),
        ({"listen": "50051"}, "listen: '50051' is not HOST:PORT"),
        ({"http": "127.0.0.1:http"}, "http: .*port must be a number"),
        ({"http": "127.0.0.1:70000"}, "http: .*port must be a number"),
        ({"store": "postgres://me:secret@db"}, "store: 'postgres' is unknown"),
        ({"store": "mysql"}, "store: 'mysql' is unknown"),
        (
            {"tls": TlsFiles(cert=TLS / "none.pem", key=TLS / "server.key")},
            "tls cert: cannot read .*none.pem",
        ),
        ({"tls": TlsFiles(cert=TLS / "README.md", key=TLS / "server.key")}, "tls cert: .* not a PEM file"),
        (
            {"tls": TlsFiles(cert=TLS / "server.pem", key=TLS / "client.key")},
            "tls: the key .* does not belong",
        ),
        (
            {"tls": TlsFiles(cert=TLS / "client.key", key=TLS / "server.pem")},
            "tls: .* no certificate and key",
        ),
        (
            {"tls": TlsFiles(cert=TLS / "server.pem", key=TLS / "server.key", client_ca=TLS / "client.key")},
            "tls: .*client.key is no certificate",
        ),
        ({"limits": Limits(streams=0)}, "limits.streams: must be at least 1"),
        ({"compute_threads": 0}, "compute_threads"),
        ({"drain_seconds": float("nan")}, "drain_seconds"),
        ({"snapshot_minutes": -1.0}, "snapshot_minutes"),
        (
            {"finished_series_seconds": -1.0},
            "finished_series_seconds: must be a number of seconds, 0 or more",
        ),
        ({"finished_series_seconds": float("inf")}, "finished_series_seconds"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    (problem,) = check(config(tmp_path, **changes))
    assert re.search(words, problem)


def test_data_must_be_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert check(ServerConfig(data=file)) == [f"data: {file} is not a folder"]


def test_addresses() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("host:0") == ("host", 0)
    assert [is_loopback(h) for h in ("127.0.0.9", "::1", "localhost", "10.0.0.1", "example.org")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({}, []),
        ({"listen": "[::1]:1", "http": "localhost:1"}, []),
        (
            {"listen": "0.0.0.0:1", "insecure": True},
            ["whoever reaches it may do everything at 0.0.0.0:1, .* no --tokens"],
        ),
        ({"listen": "[::]:1", "tls": FILES}, ["whoever has a certificate of the client authority may do"]),
        ({"http": "0.0.0.0:1", "insecure": True}, ["whoever reaches 0.0.0.0:1 reads all runs' metrics"]),
        ({"listen": "0.0.0.0:1", "tls": FILES, "tokens": TOKENS}, []),
        (
            {"listen": "0.0.0.0:1", "insecure": True, "tokens": TOKENS},
            ["tokens travel to 0.0.0.0:1 in plaintext"],
        ),
        (
            {"http": "0.0.0.0:2", "insecure": True, "http_tokens": TOKENS},
            ["tokens travel to 0.0.0.0:2 in plaintext"],
        ),
        ({"http": "0.0.0.0:2", "tls": FILES, "http_tls": True, "http_tokens": TOKENS}, []),
    ],
)
def test_what_is_open_is_said(tmp_path: Path, changes: dict[str, object], warned: list[str]) -> None:
    said = access_warnings(config(tmp_path, **changes))
    assert len(said) == len(warned)
    for line, words in zip(said, warned, strict=True):
        assert re.search(words, line)
