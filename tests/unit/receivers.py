"""A receiver of messages at the wire: it answers as told and keeps what it was sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

HANG = 0


@dataclass
class Receiver:
    """``answers`` are given in order, the last one for ever; ``HANG``: none until the test ends."""

    answers: list[tuple[int, Mapping[str, str], str]] = field(default_factory=lambda: [(200, {}, "")])
    seen: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def messages(self) -> list[Any]:
        """What was sent, in order."""
        return [orjson.loads(body) for _, body in self.seen]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port."""
    made, over = Receiver(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.seen.append((dict(self.headers.items()), body))
            status, headers, text = made.answers.pop(0) if len(made.answers) > 1 else made.answers[0]
            if status == HANG:
                over.wait(30)
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made
        finally:
            over.set()
            server.shutdown()
            thread.join()
