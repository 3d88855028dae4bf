"""What a request holds is counted right, and nothing of the protocol is refused."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.client.tensors import to_tensor
from pathwatch.server.api.wire import MAX_DEPTH, MAX_ITEMS, WireError, check_items
from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2, tensor_pb2

REQUEST = routing_pb2.StreamRoutingRequest


def batch(**fields: object) -> bytes:
    return REQUEST(sequence=1, batch=routing_pb2.ObservationBatch(**fields)).SerializeToString()  # type: ignore[arg-type]


def test_the_largest_batch_of_the_limits_passes() -> None:
    data = batch(
        step=2**53 - 1,
        group="g" * 128,
        sample_ids=to_tensor(np.arange(16384)),
        weights=to_tensor(np.zeros((16, 256, 1024), np.float16)),
        fragment=routing_pb2.Fragment(layers=range(256), token_parts=4096),
    )
    check_items(data, REQUEST.DESCRIPTOR)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(
            batch(sample_ids=tensor_pb2.Tensor(shape=[1] * (MAX_ITEMS + 1))), REQUEST, id="axes of a tensor"
        ),
        pytest.param(
            batch(fragment=routing_pb2.Fragment(layers=[1] * (MAX_ITEMS + 1))), REQUEST, id="layers"
        ),
        pytest.param(
            run_pb2.CreateRunRequest(
                config=run_pb2.RunConfig(groups=[run_pb2.GroupSettings()] * (MAX_ITEMS + 1))
            ).SerializeToString(),
            run_pb2.CreateRunRequest,
            id="empty messages",
        ),
        pytest.param(
            run_pb2.CreateRunRequest(
                config=run_pb2.RunConfig(metrics=[""] * (MAX_ITEMS + 1))
            ).SerializeToString(),
            run_pb2.CreateRunRequest,
            id="empty texts",
        ),
        pytest.param(b"\xf8\x3f\x01" * (MAX_ITEMS + 1), REQUEST, id="unknown fields"),
    ],
)
def test_what_would_grow_in_memory_is_refused(data: bytes, kind: type) -> None:
    with pytest.raises(WireError, match=f"more than {MAX_ITEMS}"):
        check_items(data, kind.DESCRIPTOR)  # type: ignore[attr-defined]


def test_text_and_bytes_weigh_nothing() -> None:
    data = batch(group="g" * 10**6, sample_ids=tensor_pb2.Tensor(data=bytes(10**6)))
    check_items(data, REQUEST.DESCRIPTOR)


def test_depth_is_bounded() -> None:
    kind = tensor_pb2.DESCRIPTOR.pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto")
    inner = b""
    for _ in range(MAX_DEPTH + 1):  # FileDescriptorProto.message_type.nested_type.nested_type…
        inner = (b"\x1a" if len(inner) else b"\x22") + _length(inner) + inner
    with pytest.raises(WireError, match="nested"):
        check_items(b"\x22" + _length(inner) + inner, kind)


@given(st.binary(max_size=64) | st.builds(bytes, st.lists(st.sampled_from([0, 1, 8, 10, 18, 26, 255]))))
def test_whatever_comes_it_ends_in_a_word_about_it(data: bytes) -> None:
    try:
        check_items(data, REQUEST.DESCRIPTOR)
    except WireError:
        return
    # What passes is well formed as far as it is counted; protobuf may still refuse it (UTF-8, groups).
    try:
        REQUEST.FromString(data)
    except DecodeError:
        return


@given(
    st.builds(
        signal_pb2.GetMetricsRequest,
        run=st.text(st.characters(codec="utf-8")),
        after_step=st.none() | st.integers(-(2**63), 2**63 - 1),
        limit=st.integers(0, 2**32 - 1),
    )
)
def test_every_message_of_the_protocol_passes(request: signal_pb2.GetMetricsRequest) -> None:
    check_items(request.SerializeToString(), signal_pb2.GetMetricsRequest.DESCRIPTOR)


def _length(data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([len(data)])
