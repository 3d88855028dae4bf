"""The Python beside the .proto files is what the compiler makes of them; the protocol obeys buf's rules."""

import os
import subprocess
import sys
from pathlib import Path

PROTO = Path(__file__).parents[2] / "proto"


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    subprocess.run(
        [PROTO / "generate.sh", tmp_path],
        check=True,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
    )
    made = {p.relative_to(tmp_path): p.read_text() for p in tmp_path.rglob("*.py*")}
    checked_in = {
        p.relative_to(PROTO): p.read_text() for p in PROTO.rglob("*_pb2*.py*") if "__pycache__" not in p.parts
    }
    assert made.keys() == checked_in.keys(), "run `make proto` and commit the result"
    stale = [str(name) for name in made if made[name] != checked_in[name]]
    assert not stale, f"run `make proto` and commit the result: {stale}"


def test_buf_lint_passes() -> None:
    buf = Path(sys.executable).with_name("buf")
    done = subprocess.run([buf, "lint"], cwd=PROTO, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_enum_begins_with_unspecified_zero() -> None:
    from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2, tensor_pb2

    for module in (routing_pb2, run_pb2, signal_pb2, tensor_pb2):
        for enum in module.DESCRIPTOR.enum_types_by_name.values():
            assert enum.values[0].number == 0
            assert enum.values[0].name.endswith("_UNSPECIFIED")
