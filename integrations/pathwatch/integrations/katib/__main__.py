"""Katib's early stopping service, in a pod of an experiment: `python -m pathwatch.integrations.katib`."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from pathwatch.integrations.katib import EarlyStoppingService, Trials, TrialsError
from pathwatch.katib import early_stopping_pb2_grpc as katib_grpc

_DRAIN_SECONDS = 5.0


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit code 2 where that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m pathwatch.integrations.katib", description=__doc__)
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default="[::]:6788",
        help="where Katib calls, in plaintext, which is all it speaks (default: %(default)s)",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = grpc.server(ThreadPoolExecutor(4))
    try:
        katib_grpc.add_EarlyStoppingServicer_to_server(EarlyStoppingService(Trials()), server)
        port = server.add_insecure_port(arguments.listen)
    except (TrialsError, RuntimeError) as error:
        print(f"pathwatch: {error}", file=sys.stderr)
        sys.exit(2)
    server.start()
    print(f"grpc={arguments.listen.rpartition(':')[0]}:{port}", flush=True)
    ended.wait()
    server.stop(_DRAIN_SECONDS).wait()


if __name__ == "__main__":
    main()
