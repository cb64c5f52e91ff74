"""Answers that are about the login or the address, not about the lines: the collector keeps the batch and sends it again."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.stack import wait_until

pytestmark = [pytest.mark.real]


@contextmanager
def answering(statuses: list[int], taken: list[int]) -> Iterator[str]:
    """A server that answers with each status in turn, then with 200; ``taken`` grows by each answer."""

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            taken.append(statuses[len(taken)] if len(taken) < len(statuses) else 200)
            self.send_response(taken[-1])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_batch_waits_for_another_answer(part: Any, tmp_path: Path) -> None:
    (tmp_path / "one.log").write_text("one line\n")
    statuses, taken = [401, 403, 404, 401], list[int]()
    with answering(statuses, taken) as url:
        config = {
            "receivers": {"file_log": {"include": [str(tmp_path / "*.log")], "start_at": "beginning"}},
            "exporters": {
                "otlp_http": {
                    "endpoint": url,
                    "compression": "none",
                    "retry_on_failure": {"initial_interval": "50ms", "max_interval": "100ms"},
                }
            },
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"logs": {"receivers": ["file_log"], "exporters": ["otlp_http"]}},
            },
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        command = [str(part("collector")), "--config", str(tmp_path / "config.yaml")]
        with (tmp_path / "out").open("w") as out, subprocess.Popen(command, stderr=out) as collector:
            try:
                wait_until("the batch to be taken", lambda: 200 in taken, 120)
            finally:
                collector.kill()
    assert taken == [*statuses, 200]
