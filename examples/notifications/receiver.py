"""Receives what pathwatch sends, takes nothing that is not signed, and prints each event once.

python receiver.py signing.key 8080
"""

import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

REPLAY_SECONDS = 300
SEEN = set()  # a real one remembers the ids across restarts


def is_genuine(body: bytes, header: str, secret: str, now: float) -> bool:
    fields = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    sent, given = fields.get("t", ""), fields.get("v1", "")
    if not sent.isdecimal() or abs(now - int(sent)) > REPLAY_SECONDS:
        return False
    expected = hmac.new(secret.encode(), f"{sent}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), given.encode())


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not is_genuine(body, self.headers.get("X-Pathwatch-Signature", ""), SECRET, time.time()):
            self.send_error(401)
            return
        document = json.loads(body)
        for event in document.get("events", [document]):
            if event["id"] not in SEEN:
                SEEN.add(event["id"])
                print(event["kind"], event.get("run"), event.get("group"), event.get("after"), flush=True)
        self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    SECRET = Path(sys.argv[1]).read_text().strip()
    HTTPServer(("127.0.0.1", int(sys.argv[2])), Receiver).serve_forever()
