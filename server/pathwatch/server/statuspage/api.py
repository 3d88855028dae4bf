"""The JSON API's door: paths, methods, errors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.view import RunView
from pathwatch.server.statuspage.failures import ApiError, busy, not_found
from pathwatch.server.statuspage.resources import Resources
from pathwatch.server.statuspage.responses import HARDENING, METHODS, Resource, answer_resource, finish
from pathwatch.server.store.interface import StoreError, StoreReader
from pathwatch.server.web.answers import answer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger("pathwatch.server")

ROOT = "/api/v1/"
RETRY_SECONDS = 5
OfRun: TypeAlias = Callable[[RunView, str], Resource]


class Api:
    """A WSGI application for all below /api/."""

    def __init__(self, engine: Engine, store: StoreReader) -> None:
        self._engine = engine
        self._resources = Resources(engine, store)
        self._of_run: Mapping[str, OfRun] = {
            "": self._resources.run,
            "series": self._resources.series,
            "layers": self._resources.layers,
            "events": self._resources.events,
            "checkpoints": self._resources.checkpoints,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            if environ["REQUEST_METHOD"] not in METHODS:
                allow = (("Allow", ", ".join(METHODS)),)
                raise ApiError("405 Method Not Allowed", "method_not_allowed", "the API only reads", allow)
            resource = self._find(environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", ""))
            return answer_resource(environ, start_response, resource)
        except ApiError as error:
            return _answer_error(environ, start_response, error)
        except StoreError as error:
            log.warning("history cannot be shown: %s", error)
            why = "history cannot be read just now; the server's log says why"
            return _answer_error(environ, start_response, busy(why, RETRY_SECONDS))
        except Exception:
            log.exception("a fault of the service")
            fault = ApiError("500 Internal Server Error", "internal", "a fault of the service; see its log")
            return _answer_error(environ, start_response, fault)

    def _find(self, path: str, query: str) -> Resource:
        match path.removeprefix(ROOT).split("/") if path.startswith(ROOT) else ():
            case ["runs"]:
                return self._resources.runs(query)
            case ["runs", name]:
                return self._resources.run(self._view(name), query)
            case ["runs", name, part] if part and part in self._of_run:
                return self._of_run[part](self._view(name), query)
        parts = "|".join(part for part in self._of_run if part)
        raise not_found(f"there are {ROOT}runs, {ROOT}runs/NAME and {ROOT}runs/NAME/{parts}")

    def _view(self, name: str) -> RunView:
        view = self._engine.views.get(name)
        if view is None:
            raise not_found(f"there is no run {name!r}; {ROOT}runs lists them")
        return view


def _answer_error(
    environ: WSGIEnvironment, start_response: StartResponse, error: ApiError
) -> Iterable[bytes]:
    body = json.dumps({"error": {"code": error.code, "message": error.message}}).encode()
    headers = [("Cache-Control", "no-store"), *HARDENING, *error.headers]
    return finish(environ, answer(start_response, error.status, body, "application/json", headers))
