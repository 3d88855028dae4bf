"""pathwatch.v1.Tensor from and to NumPy arrays, with everything checked that a tensor can be wrong in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.metrics.routing import bfloat16_to_float32
from pathwatch.v1 import tensor_pb2

# NumPy's element type on the wire; bfloat16 travels as its bit pattern.
_WIRE: dict[int, np.dtype[np.generic]] = {
    tensor_pb2.D_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.D_TYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.D_TYPE_BFLOAT16: np.dtype("<u2"),
    tensor_pb2.D_TYPE_FLOAT64: np.dtype("<f8"),
    tensor_pb2.D_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.D_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.D_TYPE_INT64: np.dtype("<i8"),
}
_DTYPE_OF = {
    wire: tensor_pb2.DType.ValueType(dtype)
    for dtype, wire in _WIRE.items()
    if dtype != tensor_pb2.D_TYPE_BFLOAT16
}

HALF = (tensor_pb2.D_TYPE_FLOAT16, tensor_pb2.D_TYPE_BFLOAT16)
WEIGHTS = (tensor_pb2.D_TYPE_FLOAT32, *HALF)

_FLOAT16_VALUES = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""Of each bit pattern. NumPy converts one by one, with a test for each: six times as slow as looking up."""


def invalid(field: str, message: str, sample_id: int | None = None) -> RefusedError:
    """The refusal of a wrong value."""
    return RefusedError(Code.INVALID_ARGUMENT, message, field, sample_id)


def to_array(
    tensor: tensor_pb2.Tensor, field: str, *, dtypes: Sequence[int], shape: Sequence[int | None], axes: str
) -> NDArray[np.generic]:
    """The tensor's elements; float16 and bfloat16 come as float32.

    `shape` gives the wanted size of each axis, None = any; `axes` names them in messages, e.g. "[n, L, K]".
    Raises RefusedError for an unknown or wrong element type, a wrong shape, too few or too many bytes.
    """
    array = wire_array(tensor, field, dtypes=dtypes, shape=shape, axes=axes)
    return as_float32(array, tensor.dtype) if tensor.dtype in HALF else array


def as_float32(array: NDArray[np.generic], dtype: int) -> NDArray[np.float32]:
    """The values of float32, float16 or bfloat16 elements as they came in a tensor of type `dtype`, exactly.

    Of float32 elements it is the array itself.
    """
    if array.dtype == np.float16:
        # No index lies outside: "clip" spares looking.
        return _FLOAT16_VALUES.take(array.view(np.uint16), mode="clip")
    if dtype == tensor_pb2.D_TYPE_BFLOAT16 and array.dtype == np.uint16:
        return bfloat16_to_float32(array.view(np.uint16))
    return array.astype(np.float32, copy=False)


def wire_array(
    tensor: tensor_pb2.Tensor, field: str, *, dtypes: Sequence[int], shape: Sequence[int | None], axes: str
) -> NDArray[np.generic]:
    """As `to_array`, but the bytes as they came, not copied; bfloat16 as bit patterns (uint16)."""
    if tensor.dtype not in dtypes:
        known = ", ".join(_dtype_name(dtype) for dtype in dtypes)
        raise invalid(field, f"element type is {_dtype_name(tensor.dtype)}; send one of {known}")
    # Counted before it is copied: a shape may have millions of axes.
    if len(tensor.shape) != len(shape):
        raise invalid(field, f"shape has {len(tensor.shape)} axes; wanted {_wanted(axes, shape)}")
    actual = list(tensor.shape)
    if actual != [*shape] and any(
        size < 0 or (want is not None and size != want) for size, want in zip(actual, shape, strict=True)
    ):
        raise invalid(field, f"shape is {actual}; wanted {_wanted(axes, shape)}")
    dtype = _WIRE[tensor.dtype]
    size = math.prod(actual) * dtype.itemsize
    data = tensor.data  # protobuf copies it each time it is asked
    if len(data) != size:
        raise invalid(
            field, f"has {len(data)} bytes; shape {actual} of {_dtype_name(tensor.dtype)} takes {size}"
        )
    array: NDArray[np.generic] = np.frombuffer(data, dtype=dtype).reshape(actual)
    return array


def to_tensor(array: NDArray[np.generic]) -> tensor_pb2.Tensor:
    """The array's elements, row-major and little-endian. KeyError for an element type off the wire."""
    wire = array.dtype.newbyteorder("<")
    return tensor_pb2.Tensor(
        dtype=_DTYPE_OF[wire], shape=array.shape, data=array.astype(wire, copy=False).tobytes()
    )


def _wanted(axes: str, shape: Sequence[int | None]) -> str:
    """Axes by name and size: "[n, L, K] = [n, 16, 64]"."""
    letters = axes.strip("[]").split(", ")
    sizes = (letter if want is None else str(want) for letter, want in zip(letters, shape, strict=True))
    return f"{axes} = [{', '.join(sizes)}]"


def _dtype_name(dtype: int) -> str:
    if dtype in tensor_pb2.DType.values():
        return tensor_pb2.DType.Name(tensor_pb2.DType.ValueType(dtype)).removeprefix("D_TYPE_").lower()
    return f"unknown ({dtype})"
