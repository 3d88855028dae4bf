"""Every decoder of something that somebody else wrote, as a function of bytes.

Each returns where the decoder gives what it documents, data or a refusal, and raises at anything else. What
is accepted is judged again here, by a check of its own.
"""

from __future__ import annotations

import io
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from click.testing import CliRunner
from google.protobuf.message import DecodeError

from pathwatch.client.retry_info import retry_delay
from pathwatch.client.spool_frames import (
    Frame,
    SpoolFormatError,
    frame_bytes,
    header_bytes,
    read_frames,
    read_header,
    seed_of,
)
from pathwatch.client.tensors import from_tensor, to_tensor
from pathwatch.server.access.tokens import TokensError, parse_tokens
from pathwatch.server.analysis.scores import ScoresError
from pathwatch.server.api.wire import WireError, check_items
from pathwatch.server.cli.root import pathwatch
from pathwatch.server.config import Limits
from pathwatch.server.embeddings import EmbeddingsError, load_embeddings
from pathwatch.server.engine.decode import Topology, decode_batch, decode_geometry
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.engine.run_config import (
    metric_settings,
    plugin_violations,
    sketch_settings,
    violations,
    with_defaults,
)
from pathwatch.server.report.labels import LabelsError, load_labels
from pathwatch.server.report.scores import load_scores
from pathwatch.server.traces import TraceError, load_trace
from pathwatch.v1 import routing_pb2, run_pb2, tensor_pb2

LAYERS, EXPERTS = 2, 4
TOPOLOGY = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits(samples_per_message=64))
TRACE_ARRAYS = ("steps", "groups", "losses", "weights", "targets", "visits", "gram_self", "gram_next", "meta")


def batch(data: bytes) -> None:
    """ObservationBatch → arrays."""
    try:
        message = routing_pb2.ObservationBatch.FromString(data)
        block = decode_batch(message, 0, TOPOLOGY)
    except DecodeError:
        return
    except RefusedError as refusal:
        _one_line(str(refusal))
        return
    n = len(block.sample_ids_N)
    layers = LAYERS if block.layers is None else len(block.layers)
    assert 1 <= n <= 64
    assert 0 <= block.step < 2**53
    assert 0 <= block.token_part < block.token_parts
    assert (block.tokens_N >= block.target_tokens_N).all()
    assert (block.target_tokens_N >= 0).all()
    for weights_NLK, held_N in (
        (block.weights_NLK, block.tokens_N > 0),
        (block.target_weights_NLK, block.target_tokens_N > 0),
    ):
        if weights_NLK is not None:
            assert weights_NLK.shape == (n, layers, EXPERTS)
            assert np.isfinite(weights_NLK).all()
            assert (weights_NLK >= 0).all()
            assert np.allclose(weights_NLK[held_N].sum(axis=-1), 1, atol=0.011)
    if block.losses_N is not None:
        assert np.isfinite(block.losses_N).all()
        assert (block.losses_N >= 0).all()


def geometry(data: bytes) -> None:
    """ExpertGeometry → arrays."""
    try:
        found = decode_geometry(routing_pb2.ExpertGeometry.FromString(data), TOPOLOGY)
    except DecodeError:
        return
    except RefusedError as refusal:
        _one_line(str(refusal))
        return
    assert found.gram_self_LKK.shape == (LAYERS, EXPERTS, EXPERTS)
    assert found.gram_next_LKK.shape == (LAYERS - 1, EXPERTS, EXPERTS)
    assert np.isfinite(found.gram_self_LKK).all()


def wire(data: bytes) -> None:
    """The count of what a request holds: whatever it lets pass, protobuf parses or refuses."""
    try:
        check_items(data, routing_pb2.StreamRoutingRequest.DESCRIPTOR)
        routing_pb2.StreamRoutingRequest.FromString(data)
    except (WireError, DecodeError):
        return


def run_config(data: bytes) -> None:
    """CreateRunRequest → settings of a run."""
    try:
        request = run_pb2.CreateRunRequest.FromString(data)
    except DecodeError:
        return
    config = with_defaults(request.config)
    found = [*violations(request.name, config, Limits()), *plugin_violations(config)]
    for violation in found:
        _one_line(violation.message)
        assert violation.field
    if found:
        return
    settings = sketch_settings(request.name, config)
    first_step, step = settings.window_of(2**53 - 1)
    assert 0 <= first_step <= 2**53 - 1 <= step < 2**62
    assert 0 < settings.grace_seconds <= 30 * 86400
    assert 1 <= settings.capacity <= Limits().capacity
    assert metric_settings(config).ridge > 0


def trace_archive(data: bytes) -> None:
    """A file that calls itself a trace."""
    with _file(data, ".npz") as path:
        _trace(path)


def trace_array(data: bytes) -> None:
    """One array of an otherwise good trace: the first byte says which, the others are the array's file."""
    if not data:
        return
    name = TRACE_ARRAYS[data[0] % len(TRACE_ARRAYS)]
    with _file(_archive(good_trace() | {name: data[1:]}), ".npz") as path:
        _trace(path)


def _trace(path: Path) -> None:
    try:
        trace = load_trace(path)
    except TraceError as error:
        _one_line(str(error))
        return
    T, G, N, L, K = trace.weights_TGNLK.shape
    assert trace.losses_TGN.shape == (T, G, N)
    assert len(trace.steps_T) == T
    assert len(trace.groups) == G == len({name.encode() for name in trace.groups})
    assert np.isfinite(trace.weights_TGNLK).all()
    assert trace.gram_self_TLKK is None or trace.gram_self_TLKK.shape == (T, L, K, K)


def labels(data: bytes) -> None:
    """The array `test_acc`, `steps` or `groups` of a labels file."""
    if not data:
        return
    arrays = {name: _npy(array) for name, array in GOOD_LABELS.items()}
    arrays[sorted(arrays)[data[0] % len(arrays)]] = data[1:]
    with _file(_archive(arrays), ".npz") as path:
        try:
            found = load_labels(path)
        except LabelsError as error:
            _one_line(str(error))
            return
        assert found.scores_TG.shape == (len(found.steps_T), len(found.groups))


def embeddings(data: bytes) -> None:
    """One array of a file of embeddings."""
    if not data:
        return
    arrays = {name: _npy(array) for name, array in GOOD_EMBEDDINGS.items()}
    arrays[sorted(arrays)[data[0] % len(arrays)]] = data[1:]
    with _file(_archive(arrays), ".npz") as path:
        try:
            load_embeddings(path)
        except EmbeddingsError as error:
            _one_line(str(error))


def scores(data: bytes) -> None:
    """scores.csv."""
    with _file(data, ".csv") as path:
        try:
            found = load_scores(path)
        except ScoresError as error:
            _one_line(str(error))
            return
    for series in found.values():
        assert (np.diff(series.steps_S) > 0).all()
        assert np.isfinite(series.scores_S).all()


def tokens(data: bytes) -> None:
    """A file of tokens."""
    try:
        table = parse_tokens(data)
    except TokensError as error:
        _one_line(str(error))
        return
    for token in table.tokens:
        assert len(token.sha256) == 32
        assert token.scopes


def configuration(data: bytes) -> None:
    """A YAML file of options for `pathwatch serve`: valid, or one complaint and exit code 2."""
    with _file(data, ".yaml") as path, tempfile.TemporaryDirectory() as folder:
        arguments = ["serve", "--check", "--config", str(path), "--data", folder]
        result = CliRunner().invoke(pathwatch, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 2)
    assert len(result.output) < 10_000


def tensor(data: bytes) -> None:
    """A tensor that a server sends."""
    try:
        message = tensor_pb2.Tensor.FromString(data)
        array = from_tensor(message)
    except (DecodeError, ValueError):
        return
    assert list(array.shape) == list(message.shape)
    assert array.nbytes == len(message.data)


class _Failure(grpc.RpcError, grpc.Call):
    """A call that a server failed with any details."""

    def __init__(self, details: bytes) -> None:
        self._details = details

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self._details),)

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def _nothing(self, *arguments: object) -> Any:
        return None

    initial_metadata = details = is_active = time_remaining = cancel = add_callback = _nothing


def retry_info(data: bytes) -> None:
    """Status details that a server sends with a refusal."""
    assert 0 <= retry_delay(_Failure(data)) <= 300


def spool(data: bytes) -> None:
    """A file of the spool: as it is, and as frames below a header that fits."""
    _spool(data)
    text = data[:32]
    _spool(b"PWSPOOL1" + struct.pack("<II", len(text), zlib.crc32(text)) + text + data[32:])
    _spool(header_bytes({}) + data)


def _spool(data: bytes) -> None:
    file = io.BytesIO(data)
    try:
        _, seed, position = read_header(file)
    except SpoolFormatError as error:
        _one_line(str(error))
        return
    held = 0
    for item, behind in read_frames(file, seed, position, len(data)):
        assert position < behind <= len(data)
        position = behind
        held += len(item.payload) if isinstance(item, Frame) else 0
    assert position == len(data)
    assert held <= len(data)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        batch,
        geometry,
        wire,
        run_config,
        trace_archive,
        trace_array,
        labels,
        embeddings,
        scores,
        tokens,
        configuration,
        tensor,
        retry_info,
        spool,
    )
}

GOOD_LABELS: Mapping[str, Any] = {
    "steps": np.arange(3),
    "groups": np.array(["math", "code"]),
    "test_acc": np.linspace(0, 1, 6).reshape(3, 2),
}
GOOD_EMBEDDINGS: Mapping[str, Any] = {
    "embeddings": np.eye(3, dtype=np.float32),
    "group": np.array(["math", "code", "math"]),
    "id": np.arange(3),
}


def good_trace() -> dict[str, bytes]:
    """The arrays of a small trace, each as its file."""
    weights = np.full((2, 1, 3, LAYERS, EXPERTS), 1 / EXPERTS, np.float32)
    arrays = {
        "steps": np.array([1, 5]),
        "groups": np.array(["math"]),
        "losses": np.ones((2, 1, 3), np.float32),
        "weights": weights,
        "targets": np.zeros((1, 3), np.int32),
        "visits": np.ones((2, 1, 3), np.int32),
        "gram_self": np.ones((2, LAYERS, EXPERTS, EXPERTS), np.float32),
        "gram_next": np.ones((2, LAYERS - 1, EXPERTS, EXPERTS), np.float32),
        "meta": np.array('{"model": "small"}'),
    }
    return {name: _npy(array) for name, array in arrays.items()}


def seeds() -> Mapping[str, list[bytes]]:
    """Valid inputs of every target, from which mutation starts."""
    good = good_trace()
    batches = [message.SerializeToString() for message in good_batches()]
    rows = np.random.default_rng(1).normal(size=(LAYERS, EXPERTS, 8)).astype(np.float32)
    inner = routing_pb2.ExpertGeometry(
        step=3,
        gram_self=to_tensor(rows @ rows.swapaxes(1, 2)),
        gram_next=to_tensor(rows[:-1] @ rows[1:].swapaxes(1, 2)),
    )
    config = run_pb2.RunConfig(
        topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS),
        mode=run_pb2.OBSERVATION_MODE_STREAM,
        window_steps=10,
        capacity=64,
        grace_seconds=5,
        thresholds=[0.7, 0.5],
        groups=[run_pb2.GroupSettings(group="math", epsilon=0.5)],
        policy="quorum",
        policy_options={"quorum": "0.5"},
        stop_margin_steps=3,
    )
    header = header_bytes({"run": "run", "rank": 0})
    frames = [
        Frame(kind="batch", step=1, sequence=1, samples=3, payload=batches[0]),
        Frame(kind="watermark", step=1, sequence=2, samples=0, payload=b"\x08\x01"),
    ]
    return {
        "batch": batches,
        "geometry": [inner.SerializeToString()],
        "wire": [
            routing_pb2.StreamRoutingRequest(sequence=1, batch=message).SerializeToString()
            for message in good_batches()
        ],
        "run_config": [
            run_pb2.CreateRunRequest(name="run", config=config, attempt=2).SerializeToString(),
            run_pb2.CreateRunRequest(
                name="run", config=run_pb2.RunConfig(topology=config.topology)
            ).SerializeToString(),
        ],
        "trace_archive": [_archive(good)],
        "trace_array": [bytes([i]) + good[name] for i, name in enumerate(TRACE_ARRAYS)],
        "labels": [bytes([i]) + _npy(GOOD_LABELS[name]) for i, name in enumerate(sorted(GOOD_LABELS))],
        "embeddings": [
            bytes([i]) + _npy(GOOD_EMBEDDINGS[name]) for i, name in enumerate(sorted(GOOD_EMBEDDINGS))
        ],
        "scores": [b"step,score,group,test\n1,0.5,math,gsm\n2,0.75,math,gsm\n", b"step,score\n10,1e-3\n"],
        "tokens": [
            b"- name: job\n  sha256: '" + b"0f" * 32 + b"'\n  scopes: [ingest, read]\n"
            b"  runs: ['olmoe-*']\n  expires: 2030-01-01\n"
        ],
        "configuration": [
            b"listen: 127.0.0.1:50051\nhttp: 127.0.0.1:0\nserve:\n  insecure: true\n",
            b"limits:\n  runs: 10\n  message_bytes: 8MiB\n",
        ],
        "tensor": [
            to_tensor(np.arange(6, dtype=np.float32).reshape(2, 3)).SerializeToString(),
            to_tensor(np.zeros((0, 4), np.int64)).SerializeToString(),
        ],
        "spool": [header + b"".join(frame_bytes(frame, seed_of(header)) for frame in frames)],
        "retry_info": [b"\x08\x08\x12\x04full\x1a.\n(type.googleapis.com/google.rpc.RetryInfo\x12\x02\n\x00"],
    }


def good_batches() -> Iterator[routing_pb2.ObservationBatch]:
    """Valid batches of every kind."""
    rng = np.random.default_rng(0)
    n = 3
    weights_NLK = rng.dirichlet(np.ones(EXPERTS), (n, LAYERS)).astype(np.float32)
    common: dict[str, Any] = {
        "step": 7,
        "group": "math",
        "sample_ids": to_tensor(np.array([5, 6, 7])),
        "losses": to_tensor(np.array([0.5, 1.0, 2.0], np.float32)),
    }
    counts = {
        "token_counts": to_tensor(np.array([3, 4, 5], np.int32)),
        "target_token_counts": to_tensor(np.array([1, 2, 3], np.int32)),
    }
    yield routing_pb2.ObservationBatch(
        **common,
        **counts,
        weights=to_tensor(weights_NLK),
        target_weights=to_tensor(weights_NLK.astype(np.float16)),
        targets=to_tensor(np.array([-1, 0, 9], np.int32)),
        visits=to_tensor(np.array([-1, 0, 9], np.int32)),
    )
    yield routing_pb2.ObservationBatch(
        **common,
        weights=to_tensor(weights_NLK[:, :1]),
        fragment=routing_pb2.Fragment(layers=[1], token_part=1, token_parts=2),
    )
    scores_TLK = rng.normal(size=(6, LAYERS, EXPERTS)).astype(np.float32)
    for kind, values in (
        (routing_pb2.SCORE_KIND_SOFTMAX_LOGITS, scores_TLK),
        (routing_pb2.SCORE_KIND_SIGMOID_LOGITS, scores_TLK),
        (routing_pb2.SCORE_KIND_SIGMOID, 1 / (1 + np.exp(-scores_TLK))),
        (routing_pb2.SCORE_KIND_SOFTMAX, np.full_like(scores_TLK, 1 / EXPERTS)),
    ):
        yield routing_pb2.ObservationBatch(
            **common,
            raw=routing_pb2.RawScores(
                kind=kind,
                scores=to_tensor(values),
                lengths=to_tensor(np.array([1, 2, 3], np.int32)),
                target_mask=to_tensor(np.array([1, 0, 1, 1, 1, 0], np.uint8)),
            ),
        )


def _one_line(message: str) -> None:
    assert message
    assert "\n" not in message
    assert len(message) < 6000


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _archive(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content)
    return buffer.getvalue()


@contextmanager
def _file(content: bytes, ending: str) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=ending) as file:
        file.write(content)
        file.flush()
        yield Path(file.name)
