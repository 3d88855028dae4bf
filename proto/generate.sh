#!/usr/bin/env bash
# Writes the Python and type stubs of proto/**/*.proto beside them, or below the folder given.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
out=${1:-$here}
mkdir -p "$out"
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc -I "$here" \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  "$here"/pathwatch/v1/*.proto "$here"/pathwatch/katib/*.proto
rm -f "$out"/pathwatch/v1/tensor_pb2_grpc.py "$out"/pathwatch/v1/tensor_pb2_grpc.pyi  # no service in it
