"""The arrows of docs/architecture.md, read from the code's own imports."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What a room may import of pathwatch, itself included. Rooms not named here hold no code.
ALLOWED = {
    "pathwatch.client": {"pathwatch.v1"},
    "pathwatch.integrations.capture": set(),
    "pathwatch.integrations.deferred": set(),
    "pathwatch.integrations.observing": {
        "pathwatch.v1",
        "pathwatch.client",
        "pathwatch.integrations.capture",
        "pathwatch.integrations.deferred",
    },
    "pathwatch.integrations.signals": {"pathwatch.v1", "pathwatch.client"},
    "pathwatch.integrations.katib": {"pathwatch.katib"},
    "pathwatch.integrations": {
        "pathwatch.v1",
        "pathwatch.katib",
        "pathwatch.client",
        "pathwatch.integrations.capture",
    },
    "pathwatch.server.metrics": set(),
    "pathwatch.server.sketch": {"pathwatch.server.metrics"},
    "pathwatch.server.phases": {"pathwatch.server.metrics", "pathwatch.server.sketch"},
    "pathwatch.server.analysis": {
        "pathwatch.server.traces",
        "pathwatch.server.metrics",
        "pathwatch.server.sketch",
        "pathwatch.server.phases",
    },
    "pathwatch.server.access": set(),
    "pathwatch.server.config": {"pathwatch.server.access"},
    "pathwatch.server.store": {
        "pathwatch.v1",
        "pathwatch.server.access",
        "pathwatch.server.config",
        "pathwatch.server.failpoints",
        "pathwatch.server.metrics",
        "pathwatch.server.sketch",
        "pathwatch.server.phases",
    },
    "pathwatch.server.messages": {"pathwatch.v1"},
    "pathwatch.server.engine": {
        "pathwatch.v1",
        "pathwatch.server.messages",
        "pathwatch.server.config",
        "pathwatch.server.failpoints",
        "pathwatch.server.plugins",
        "pathwatch.server.metrics",
        "pathwatch.server.sketch",
        "pathwatch.server.phases",
        "pathwatch.server.store",
    },
    "pathwatch.server.changes": {
        "pathwatch.v1",
        "pathwatch.server.engine",
        "pathwatch.server.messages",
        "pathwatch.server.store",
    },
    "pathwatch.server.notify": {
        "pathwatch.v1",
        "pathwatch.server.access",
        "pathwatch.server.changes",
        "pathwatch.server.config",
        "pathwatch.server.engine",
        "pathwatch.server.failpoints",
        "pathwatch.server.messages",
        "pathwatch.server.store",
    },
    "pathwatch.server.monitoring": {"pathwatch.server.phases"},
    "pathwatch.server.relay": {
        "pathwatch.v1",
        "pathwatch.client",
        "pathwatch.server.access",
        "pathwatch.server.api",
        "pathwatch.server.config",
        "pathwatch.server.engine",
        "pathwatch.server.exporter",
        "pathwatch.server.sketch",
        "pathwatch.server.web",
    },
    "pathwatch.server.web": {"pathwatch.server.access", "pathwatch.server.config"},
}
FOREIGN_TO = {
    "pathwatch.client": {"torch", "deepspeed", "transformers", "scipy", "click", "rich"},
    "pathwatch.integrations.capture": {"grpc", "numpy"},
    "pathwatch.integrations.deferred": {"grpc", "deepspeed", "transformers", "lightning"},
    "pathwatch.integrations.observing": {"deepspeed", "transformers", "lightning"},
    "pathwatch.integrations.signals": {"torch", "ray", "optuna"},
    "pathwatch.integrations.ray": {"torch", "optuna"},
    "pathwatch.integrations.optuna": {"torch"},
    "pathwatch.integrations.katib": {"torch", "ray", "optuna"},
    "pathwatch.server": {"torch", "deepspeed", "transformers"},
    "pathwatch.server.metrics": {
        "grpc",
        "time",
        "datetime",
        "random",
        "sqlite3",
        "threading",
        "logging",
        "os",
    },
    "pathwatch.server.sketch": {"grpc", "time", "datetime", "random", "sqlite3", "threading"},
    "pathwatch.server.phases": {"grpc", "time", "datetime", "random", "sqlite3", "threading"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, imported name or '') of every import, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield node.module or "", alias.name


@functools.cache
def sources() -> dict[Path, list[tuple[str, str]]]:
    """What each file imports; read when a test asks: every worker loads this module, few run its tests."""
    return {
        path: list(imports(ast.parse(path.read_text())))
        for root in ("client", "integrations", "server")
        for path in (ROOT / root).rglob("*.py")
    }


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_down(room: str) -> None:
    modules = {p: i for p, i in sources().items() if inside(module_name(p), room)}
    if room == "pathwatch.integrations":
        modules = {p: i for p, i in modules.items() if not inside(module_name(p), f"{room}.capture")}
    assert modules, f"no code in {room}"
    for path, imported in modules.items():
        for module, name in imported:
            for target in (module, f"{module}.{name}"):
                if inside(target, "pathwatch") and target.count(".") >= 1:
                    allowed = any(inside(target, a) for a in {room, *ALLOWED[room]})
                    assert allowed or any(inside(a, target) for a in ALLOWED[room]), (
                        f"{path.relative_to(ROOT)} imports {target}: {room} may not"
                    )


@pytest.mark.parametrize("room", FOREIGN_TO)
def test_rooms_stay_free_of_foreign_packages(room: str) -> None:
    for path, imported in sources().items():
        if inside(module_name(path), room):
            used = {module.split(".")[0] for module, _ in imported}
            assert not used & FOREIGN_TO[room], f"{path.relative_to(ROOT)}: {used & FOREIGN_TO[room]}"


def test_only_the_command_line_and_relays_use_the_client() -> None:
    for path, imported in sources().items():
        name = module_name(path)
        uses = any(inside(name, f"pathwatch.server.{room}") for room in ("cli", "relay"))
        if inside(name, "pathwatch.server") and not uses:
            assert not any(inside(m, "pathwatch.client") for m, _ in imported), path.relative_to(ROOT)


def test_no_private_name_crosses_a_module() -> None:
    for path, imported in sources().items():
        for module, name in imported:
            if inside(module, "pathwatch"):
                private = re.search(r"(^|\.)_(?!_)", f"{module}.{name}")
                assert not private, f"{path.relative_to(ROOT)} imports {module}.{name}"
