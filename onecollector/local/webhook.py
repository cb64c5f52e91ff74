"""A webhook of one's own on loopback: shows what is sent to one, and when it arrived."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

Arrived = tuple[float, Mapping[str, Any]]
"""Epoch seconds, and the message."""


@contextmanager
def webhook() -> Iterator[tuple[str, list[Arrived]]]:
    """A receiver of messages on a free port: its address, and what arrived so far."""
    seen: list[Arrived] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((time.time(), orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/findings", seen
    finally:
        server.shutdown()
