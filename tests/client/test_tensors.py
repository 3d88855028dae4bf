"""Arrays as they go over the wire."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from pathwatch.client import from_tensor, to_tensor
from pathwatch.v1 import tensor_pb2

ITEM_FORMATS = {
    tensor_pb2.D_TYPE_FLOAT32: "<f4",
    tensor_pb2.D_TYPE_FLOAT16: "<f2",
    tensor_pb2.D_TYPE_FLOAT64: "<f8",
    tensor_pb2.D_TYPE_UINT8: "|u1",
    tensor_pb2.D_TYPE_INT32: "<i4",
    tensor_pb2.D_TYPE_INT64: "<i8",
    tensor_pb2.D_TYPE_BFLOAT16: "<u2",
}


@given(
    hnp.arrays(
        dtype=hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?")
        | hnp.integer_dtypes(sizes=(32, 64), endianness="?")
        | hnp.unsigned_integer_dtypes(sizes=(8, 16), endianness="?"),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
    )
)
def test_elements_are_row_major_and_little_endian(array):
    tensor = to_tensor(array.T)
    back = np.frombuffer(tensor.data, ITEM_FORMATS[tensor.dtype]).reshape(tensor.shape)
    assert np.array_equal(back, array.T, equal_nan=array.dtype.kind == "f")


def test_bfloat16_bits_travel_as_they_are():
    tensor = to_tensor(np.array([0x3F80, 0xBF00], np.uint16))  # 1 and -0.5
    assert tensor.dtype == tensor_pb2.D_TYPE_BFLOAT16
    assert tensor.data == b"\x80\x3f\x00\xbf"


@pytest.mark.parametrize("dtype", [np.complex64, np.int16, np.uint64, np.bool_])
def test_other_element_types_are_refused_by_name(dtype):
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        to_tensor(np.zeros(2, dtype))


@given(
    hnp.arrays(
        dtype=hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?")
        | hnp.integer_dtypes(sizes=(32, 64), endianness="?")
        | hnp.unsigned_integer_dtypes(sizes=(8, 16), endianness="?"),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
    )
)
def test_a_tensor_gives_the_array_back(array):
    back = from_tensor(to_tensor(array))
    assert back.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(back, array, equal_nan=array.dtype.kind == "f")


@pytest.mark.parametrize(
    "tensor",
    [
        tensor_pb2.Tensor(shape=[1], data=b"\0"),
        tensor_pb2.Tensor(dtype=99, shape=[1], data=b"\0"),
        tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_FLOAT32, shape=[2], data=b"\0" * 4),
        tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_FLOAT32, shape=[1], data=b"\0" * 3),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(tensor):
    with pytest.raises(ValueError, match=r"element type|reshape|buffer size"):
        from_tensor(tensor)
