"""NumPy arrays as pathwatch.v1 tensors, and back."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from pathwatch.v1 import tensor_pb2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DTYPES = {
    "float32": tensor_pb2.D_TYPE_FLOAT32,
    "float16": tensor_pb2.D_TYPE_FLOAT16,
    "float64": tensor_pb2.D_TYPE_FLOAT64,
    "uint8": tensor_pb2.D_TYPE_UINT8,
    "int32": tensor_pb2.D_TYPE_INT32,
    "int64": tensor_pb2.D_TYPE_INT64,
    # NumPy has no bfloat16; its bits travel as uint16 (torch: `x.view(torch.uint16).numpy()`).
    "uint16": tensor_pb2.D_TYPE_BFLOAT16,
}
_ARRAY_DTYPES = {dtype: name for name, dtype in _DTYPES.items()}


@functools.lru_cache(maxsize=32)
def dtype_name(dtype: np.dtype[Any]) -> str:
    """`dtype.name`, which NumPy puts together anew each time: longer than it takes to copy a sample."""
    return dtype.name


def to_tensor(array: NDArray[np.generic]) -> tensor_pb2.Tensor:
    """The array's elements, row-major and little-endian; uint16 is taken as the bits of bfloat16.

    Raises:
        TypeError: an element type that pathwatch.v1 does not have.
    """
    tensor = tensor_pb2.Tensor()
    fill_tensor(tensor, array)
    return tensor


def fill_tensor(tensor: tensor_pb2.Tensor, array: NDArray[np.generic]) -> None:
    """`to_tensor` into an empty tensor of a message, where it is copied once less.

    Raises:
        TypeError: an element type that pathwatch.v1 does not have.
    """
    dtype = _DTYPES.get(dtype_name(array.dtype))
    if dtype is None:
        names = ", ".join(_DTYPES)
        raise TypeError(
            f"no tensor of element type {array.dtype}; convert it to one of {names} (= bfloat16 bits)"
        )
    if (array.dtype.byteorder == ">") or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    tensor.dtype = dtype
    tensor.shape.extend(array.shape)
    tensor.data = array.tobytes()


def from_tensor(tensor: tensor_pb2.Tensor) -> NDArray[Any]:
    """The tensor's elements, read-only, in the shape it states; bfloat16 comes as its bits, uint16.

    Raises:
        ValueError: an element type that this client does not know, or bytes that do not fit the shape.
    """
    import numpy as np  # here, as tools that only ask for signals need none, and loading it takes 0.1 s

    name = _ARRAY_DTYPES.get(tensor.dtype)
    if name is None:
        raise ValueError(f"a tensor of unknown element type {tensor.dtype}; a newer pathwatch wrote it")
    dtype = np.dtype(name)
    elements = np.frombuffer(tensor.data, dtype.newbyteorder("<"))
    if min(tensor.shape, default=0) < 0:  # NumPy would guess a size of -1
        raise ValueError(f"a tensor with a negative size: {list(tensor.shape)[:8]}")
    return elements.reshape(tuple(tensor.shape)).astype(dtype, copy=False)
