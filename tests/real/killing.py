"""kill -9 at a chosen moment of a scorer's life: seen by the Loki and the webhook that it talks to, and by what it wrote.

A moment is armed before the process starts; whoever sees it kills the process before it does anything more.
"""

from __future__ import annotations

import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from onecollector_resources.layout import StateLayout

LOOK_S = 0.001
MOMENTS = (
    "counting", "reading", "read", "minute kept", "finding written", "pushing", "pushed", "posting", "posted",
)  # fmt: skip
"""What is under way or just done: of Loki's lines, of the state, of the registry, of messages to Loki and to the webhook."""


@dataclass
class Killer:
    """Kills ``process`` when ``moment`` is seen. ``hits`` are moments at which it did."""

    process: subprocess.Popen[bytes] | None = None
    moment: str = ""
    hits: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def seen(self, moment: str) -> bool:
        """It is this moment; whether the process is dead now."""
        with self._lock:
            if self.process is None or moment != self.moment:
                return False
            self.process.kill()
            self.process.wait()
            self.hits.append(moment)
            self.process = None
        return True


@dataclass
class Posted:
    """What a webhook was sent, by idempotency key. ``hangs`` so many of the next messages get no answer."""

    url: str = ""
    bodies: dict[str, list[bytes]] = field(default_factory=dict)
    hangs: int = 0


@contextmanager
def slow_webhook(killer: Killer, answers_after_s: float = 0.1) -> Iterator[Posted]:
    """Answers late, or not at all."""
    made, over = Posted(), threading.Event()

    class Handler(_Quiet):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if killer.seen("posting"):
                # It was not taken: it has to come again.
                return
            made.bodies.setdefault(self.headers["Idempotency-Key"], []).append(body)
            if made.hangs:
                made.hangs -= 1
                over.wait(30)
                return
            over.wait(answers_after_s)
            self.send_response(204)
            self.end_headers()
            killer.seen("posted")

    with _serving(Handler) as made.url:
        try:
            yield made
        finally:
            over.set()


@contextmanager
def watched_loki(killer: Killer, upstream: str) -> Iterator[str]:
    """A proxy in front of a Loki; answers its address."""

    class Handler(_Quiet):
        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = "push" if self.command == "POST" and self.path.endswith("/push") else "query"
            counts = "count_over_time" in self.path or b"count_over_time" in body
            if killer.seen("pushing" if kind == "push" else "counting" if counts else "reading"):
                return
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            answer = client.request(self.command, upstream + self.path, content=body, headers=headers)
            if killer.seen("pushed" if kind == "push" else "counted" if counts else "read"):
                return
            self.send_response(answer.status_code)
            if "Content-Type" in answer.headers:
                self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = _pass

    with httpx.Client(timeout=60) as client, _serving(Handler) as url:
        yield url


@contextmanager
def watched_state(killer: Killer, layout: StateLayout, tenant: str) -> Iterator[None]:
    """Sees minutes and findings as soon as they are written."""
    over = threading.Event()
    minutes = layout.scorer / "tenants" / tenant / "minutes"

    def newest() -> str:
        return max((path.name for path in minutes.glob("*.parquet")), default="")

    def watch() -> None:
        connection = sqlite3.connect(f"file:{layout.registry_db}?mode=ro", uri=True)
        process, kept, rows = None, "", 0
        while not over.wait(LOOK_S):
            now, written = newest(), _rows(connection, rows)
            if killer.process is not process:
                process, kept, rows = killer.process, now, written
            if now != kept:
                killer.seen("minute kept")
            if written != rows:
                killer.seen("finding written")
            kept, rows = now, written
        connection.close()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _rows(connection: sqlite3.Connection, before: int) -> int:
    try:
        return connection.execute("select count(*) from findings").fetchone()[0]
    except sqlite3.OperationalError:
        # Somebody writes.
        return before


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        # Its client may have been killed.
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    ThreadingHTTPServer.daemon_threads = True
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
