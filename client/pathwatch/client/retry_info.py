"""The delay a server asks for when it refuses a call: google.rpc.RetryInfo in the status details."""

from __future__ import annotations

from functools import cache

import grpc
from google.protobuf.message import DecodeError, Message

_LONGEST = 300.0


def retry_delay(error: grpc.RpcError) -> float:
    """Seconds the server asked to wait, 0 where it did not say; at most five minutes."""
    if not isinstance(error, grpc.Call):
        return 0.0
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return min(_LONGEST, max(0.0, _from_details(value)))
    return 0.0


def is_lasting(error: grpc.RpcError) -> bool:
    """Whether the server asks to wait so long that it expects nothing to change."""
    return retry_delay(error) >= _LONGEST


def _from_details(value: bytes | str) -> float:
    status_class, retry_info_class = _classes()
    try:
        status = status_class.FromString(value if isinstance(value, bytes) else value.encode("latin-1"))
        for detail in status.details:  # type: ignore[attr-defined] # made at run time
            info = retry_info_class()
            if detail.Unpack(info):
                delay = info.retry_delay  # type: ignore[attr-defined]
                # Any numbers will do: ToTimedelta raises for what is no duration.
                return float(delay.seconds + delay.nanos / 1e9)
    except DecodeError:
        pass
    return 0.0


@cache
def _classes() -> tuple[type[Message], type[Message]]:
    """google.rpc.Status and RetryInfo, in a pool of their own: googleapis may be loaded beside."""
    # Few processes are ever refused: the others need not load these.
    from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="pathwatch/retry_info.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=[any_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name],
    )
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    status.field.add(name="message", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    status.field.add(
        name="details",
        number=3,
        type=field.TYPE_MESSAGE,
        label=field.LABEL_REPEATED,
        type_name=".google.protobuf.Any",
    )
    retry_info = file.message_type.add(name="RetryInfo")
    retry_info.field.add(
        name="retry_delay",
        number=1,
        type=field.TYPE_MESSAGE,
        label=field.LABEL_OPTIONAL,
        type_name=".google.protobuf.Duration",
    )
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2.DESCRIPTOR, duration_pb2.DESCRIPTOR):
        pool.AddSerializedFile(known.serialized_pb)
    pool.Add(file)
    return tuple(
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{name}"))
        for name in ("Status", "RetryInfo")
    )  # type: ignore[return-value]
