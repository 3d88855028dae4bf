"""A collector of OpenTelemetry that decodes what comes, and whose manners a test can choose."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

Labels = tuple[tuple[str, str], ...]


class Push:
    """One request."""

    def __init__(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.path = path
        self.headers = {name.lower(): value for name, value in headers.items()}
        packed = self.headers.get("content-encoding") == "gzip"
        self.request = ExportMetricsServiceRequest.FromString(gzip.decompress(body) if packed else body)

    @property
    def resource(self) -> dict[str, str]:
        """Attributes of who sent it."""
        (resource,) = self.request.resource_metrics
        return {entry.key: entry.value.string_value for entry in resource.resource.attributes}

    @property
    def metrics(self) -> dict[str, Metric]:
        """By name, each once."""
        (resource,) = self.request.resource_metrics
        (scope,) = resource.scope_metrics
        found = {metric.name: metric for metric in scope.metrics}
        assert len(found) == len(scope.metrics)
        return found

    def points(self, name: str) -> dict[Labels, Any]:
        """Points of a metric by their sorted attributes; empty where there is no such metric."""
        metric = self.metrics.get(name)
        if metric is None:
            return {}
        data = getattr(metric, str(metric.WhichOneof("data")))
        return {
            tuple(sorted((entry.key, entry.value.string_value) for entry in point.attributes)): point
            for point in data.data_points
        }


class OtlpReceiver:
    """Listens inside `with`, on `port` or a free one."""

    def __init__(self, port: int = 0) -> None:
        self.pushes: list[Push] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        """Further headers of answers."""
        self.silent = False
        """Takes requests and does not answer."""
        self.silenced = 0
        """Requests that were left without an answer."""
        self._over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.silent:
                    receiver.silenced += 1
                    receiver._over.wait(60)
                    self.close_connection = True
                    return
                status, headers = receiver.status, receiver.headers  # a push that is seen is decided on
                receiver.pushes.append(Push(self.path, dict(self.headers.items()), body))
                answer = ExportMetricsServiceResponse().SerializeToString()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(answer))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> OtlpReceiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
