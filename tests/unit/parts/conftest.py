"""The machine and the release host of the tests of `install`, new for each test."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stamina

from onecollector.parts import pins as pin_file
from tests.unit.parts.machine import FAKE_GO, Server, World


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            state.asked.append(f"{self.command} {self.path}")
            data = state.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if body and data is not None:
                self.wfile.write(data[: len(data) // 2] if self.path in state.cut else data)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for folder in ("bin", "stack/tiny"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "stack/tiny/go.mod").write_text("module example.com/tools\n\ngo 1.20\n")
    (tmp_path / "stack/tiny/go.sum").write_text("")
    monkeypatch.setattr(pin_file, "STACK", tmp_path / "stack")
    monkeypatch.setenv("ONECOLLECTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_BUILDS", str(tmp_path / "builds"))
    for name in ("ONECOLLECTOR_RELEASES", "ONECOLLECTOR_TINY_BINARY", "TEST_HOLD", "TEST_BROKEN"):
        monkeypatch.delenv(name, raising=False)
    part = {
        "version": "1.2.3",
        "module": "example.com/tiny",
        "folder": "tiny",
        "version_args": ["--version"],
        "usual_s": 1,
    }
    made = World(tmp_path, monkeypatch, part)
    made.on_path("go", FAKE_GO)
    made.write()
    stamina.set_testing(True, attempts=3)
    yield made
    stamina.set_testing(False)
    monkeypatch.undo()
    for function in (pin_file._file, pin_file.pins, pin_file.system_pins):
        function.cache_clear()
