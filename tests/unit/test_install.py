"""`onecollector install` over a pin file, a Go and a release server of the test's own: every source, and every way in
which one fails, with the cache left as it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import stamina

from onecollector.parts import pins as pin_file
from onecollector.parts.build import find_go
from onecollector.parts.cache import cached
from onecollector.parts.download import ANSWER_S, Downloads, NotFetched
from onecollector.parts.install import PartResult, install
from onecollector.parts.locate import locate
from onecollector.parts.pins import pins
from onecollector.parts.releases import archive_of, this_platform
from onecollector.parts.ticker import Ticker

FAKE_GO = """#!/bin/sh
case "$1" in
env) echo go1.99.0 ;;
build)
  echo build >> "$TEST_BUILDS"
  while [ -n "$TEST_HOLD" ] && [ ! -e "$TEST_HOLD" ]; do sleep 0.05; done
  if [ -n "$TEST_BROKEN" ]; then echo "main.go:3:1: undefined: nothing"; exit 1; fi
  while [ "$1" != -o ]; do shift; done
  printf '#!/bin/sh\\necho tiny, version 1.2.3\\n' > "$2"
  chmod 755 "$2" ;;
esac
"""
INSTALL = """
import json, sys
from pathlib import Path
from onecollector.parts import pins
pins.STACK = Path(sys.argv[1])
from onecollector.parts.install import install
print(json.dumps([r.state for r in install(["tiny"])]))
"""


def program(version: str = "1.2.3") -> bytes:
    return f"#!/bin/sh\necho tiny, version {version}\n".encode()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as box:
        for name, data in members.items():
            box.writestr(name, data)
    return out.getvalue()


@dataclass
class Server:
    """A release host. ``files`` by path; a path in ``cut`` promises all of a file and sends half."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def publish(self, name: str, archive: bytes, digest: str | None = None) -> None:
        self.files[f"/v1.2.3/{name}"] = archive
        digest = digest or hashlib.sha256(archive).hexdigest()
        self.files["/v1.2.3/SHA256SUMS"] = f"{'0' * 64}  another.zip\n{digest} *{name}\n".encode()


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


@dataclass
class World:
    """One machine: a pin file with two parts, an empty cache, a Go that counts its builds."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    part: dict[str, object]

    @property
    def builds(self) -> int:
        file = self.root / "builds"
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def kept(self) -> list[str]:
        """What lies in the cache, but for logs and locks."""
        cache = self.root / "cache"
        files = (str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())
        return sorted(name for name in files if not name.startswith(("logs/", "locks/")))

    def write(self, **changes: object) -> None:
        """Write the pin file with ``changes`` of its part; a part `second` is made alike."""
        part = {**self.part, **changes}
        data = {
            "go": {"minimum": "1.20", "pypi": "none", "pypi_version": "0", "usual_s": 1},
            "parts": {"tiny": part, "second": {**part, "binary": "tiny-second"}},
            "system": {},
        }
        (self.root / "stack" / "pins.yaml").write_text(json.dumps(data))
        for function in (pin_file._file, pin_file.pins, pin_file.system_pins):
            function.cache_clear()

    def release(self, base: str, **changes: object) -> None:
        """Write the pin file with a release at ``base``."""
        row = {
            "url": base + "/v{version}/tiny-{platform}.zip",
            "archive": "zip",
            "member": "tiny-{platform}",
            "checksums": "SHA256SUMS",
            "platforms": {this_platform(): "here"},
        }
        self.write(release={**row, **changes})

    def on_path(self, name: str, text: str) -> Path:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def install(self) -> PartResult:
        return install(["tiny"], quiet=True)[0]


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


# The order: PATH, cache, release, build.


def test_path_wins_over_the_cache_in_the_pinned_version_alone(world: World) -> None:
    in_cache = world.install().path
    mine = world.on_path("tiny", program().decode())
    assert locate("tiny") == mine
    assert world.install().path == str(mine)
    mine.write_text(program("1.2.2").decode() + "# of another size\n")
    assert str(locate("tiny")) == in_cache
    assert world.builds == 1


def test_a_binary_is_asked_for_its_version_once_a_process(world: World) -> None:
    asked = world.root / "asked"
    world.on_path("tiny", f"#!/bin/sh\necho x >> {asked}\necho tiny, version 1.2.3\n")
    assert locate("tiny") == locate("tiny") == Path(world.install().path)
    assert asked.read_text() == "x\n"


def test_a_part_on_path_is_neither_fetched_nor_built(world: World, server: Server) -> None:
    world.release(server.url)
    world.on_path("tiny", program().decode())
    assert world.install().state == "there"
    assert (server.asked, world.builds, world.kept) == ([], 0, [])


def test_running_again_does_nothing(world: World, server: Server) -> None:
    world.release(server.url)
    first = world.install()
    asked, kept = list(server.asked), world.kept
    assert (first.state, world.builds) == ("built", 1)
    again = world.install()
    assert (again.state, again.path) == ("there", first.path)
    assert (server.asked, world.builds, world.kept) == (asked, 1, kept)


def test_a_named_binary_that_is_not_there_is_said_and_nothing_is_built_for_it(world: World) -> None:
    world.monkeypatch.setenv("ONECOLLECTOR_TINY_BINARY", "/nowhere/tiny")
    result = world.install()
    assert (result.state, world.builds) == ("missing", 0)
    assert "/nowhere/tiny" in result.reason and "ONECOLLECTOR_TINY_BINARY" in result.reason


# Building.


def test_a_failed_build_names_the_part_the_log_and_the_next_step(world: World) -> None:
    world.monkeypatch.setenv("TEST_BROKEN", "1")
    result = world.install()
    log = world.root / "cache" / "logs" / f"tiny-{pins()['tiny'].key}.log"
    assert (result.state, result.path, world.kept) == ("missing", "", [])
    assert result.reason.startswith("tiny: ") and "undefined: nothing" in result.reason
    assert f"log: {log}" in result.reason and "undefined: nothing" in log.read_text()
    assert "onecollector install tiny" in result.reason
    world.monkeypatch.delenv("TEST_BROKEN")
    assert world.install().state == "built"
    assert "undefined: nothing" not in log.read_text()


def test_two_installs_at_once_build_once(world: World) -> None:
    hold = world.root / "hold"
    world.monkeypatch.setenv("TEST_HOLD", str(hold))

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", INSTALL, str(world.root / "stack")]
        return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    first = start()
    until(lambda: world.builds == 1)
    second = start()
    assert second.stderr is not None
    said = second.stderr.readline()
    hold.touch()
    outs = [process.communicate(timeout=60)[0].strip() for process in (first, second)]
    assert "waiting for another install" in said
    assert outs == ['["built"]', '["there"]']
    assert world.builds == 1
    # The one that waited left the log of the build alone.
    assert next((world.root / "cache" / "logs").iterdir()).read_text().startswith("$ ")


def test_what_a_killed_install_left_is_cleared_away(world: World) -> None:
    target = cached(pins()["tiny"])
    (target.parent.parent / "build-left" / "out").mkdir(parents=True)
    target.parent.mkdir()
    (target.parent / "half").touch()
    assert world.install().state == "built"
    assert world.kept == [str(target.relative_to(world.root / "cache"))]
    assert not (target.parent.parent / "build-left").exists()


def test_a_real_go_builds_a_real_module(world: World) -> None:
    (world.root / "bin" / "go").unlink()
    if find_go() is None:
        message = "go is missing; run: onecollector install"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    source = world.root / "source"
    source.mkdir()
    (source / "go.mod").write_text("module example.com/tiny\n\ngo 1.20\n")
    (source / "main.go").write_text('package main\n\nfunc main() { println("tiny version 1.2.3") }\n')
    tools = f"module example.com/tools\n\ngo 1.20\n\nrequire example.com/tiny v0.0.0\n\nreplace example.com/tiny => {source}\n"
    (world.root / "stack/tiny/go.mod").write_text(tools)
    world.monkeypatch.setenv("GOPROXY", "off")
    result = world.install()
    assert (result.state, result.reason) == ("built", "")
    done = subprocess.run([result.path], text=True, capture_output=True, check=True)
    assert done.stderr == "tiny version 1.2.3\n"


# The release archive.


def test_a_good_archive_is_fetched_and_not_built(world: World, server: Server) -> None:
    world.release(server.url)
    server.publish("tiny-here.zip", zipped({"tiny-here": program(), "../../escaped": b"x", "README": b"x"}))
    result = world.install()
    assert (result.state, result.reason, world.builds) == ("fetched", "", 0)
    assert locate("tiny") == Path(result.path)
    folder = f"tiny/{pins()['tiny'].key}"
    assert world.kept == [f"{folder}/origin.json", f"{folder}/tiny"]
    assert not list(world.root.rglob("escaped"))
    assert subprocess.run([result.path], text=True, capture_output=True).stdout == "tiny, version 1.2.3\n"
    assert world.install().state == "there"


def test_a_tar_archive_is_fetched_too(world: World, server: Server) -> None:
    world.release(
        server.url, url=server.url + "/v{version}/tiny.tar.gz", archive="tar.gz", member="tiny_v{version}/tiny"
    )
    server.publish("tiny.tar.gz", tarred("tiny_v1.2.3/tiny", program()))
    assert world.install().state == "fetched"


def test_a_pinned_checksum_wins_over_the_published_one(world: World, server: Server) -> None:
    archive = zipped({"tiny-here": program()})
    server.publish("tiny-here.zip", archive, digest="1" * 64)
    world.release(server.url, sha256={this_platform(): hashlib.sha256(archive).hexdigest()})
    assert world.install().state == "fetched"
    assert not [path for path in server.asked if "SHA256SUMS" in path]


def not_used(world: World) -> str:
    """Install with a release that cannot be used: it is built, nothing of the release is kept; answers the reason."""
    result = world.install()
    assert (result.state, world.builds) == ("built", 1)
    assert world.kept == [f"tiny/{pins()['tiny'].key}/tiny"]
    return result.reason


def test_a_wrong_checksum_names_both_and_the_address(world: World, server: Server) -> None:
    world.release(server.url)
    archive = zipped({"tiny-here": program()})
    server.publish("tiny-here.zip", archive, digest="1" * 64)
    reason = not_used(world)
    assert f"expected sha256 {'1' * 64}" in reason
    assert f"found {hashlib.sha256(archive).hexdigest()}" in reason
    assert f"{server.url}/v1.2.3/tiny-here.zip" in reason
    assert server.asked.count("GET /v1.2.3/tiny-here.zip") == 1


def test_an_archive_that_is_cut_off_is_asked_for_again_then_built(
    world: World, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    world.release(server.url)
    server.publish("tiny-here.zip", zipped({"tiny-here": program()}))
    server.cut.add("/v1.2.3/tiny-here.zip")
    reason = not_used(world)
    assert "tiny-here.zip" in reason and "expected" in reason and "received" in reason
    assert server.asked.count("GET /v1.2.3/tiny-here.zip") == 3
    # What the retries would say goes to stdout, where --json is.
    assert capsys.readouterr().out == ""


def test_an_archive_that_is_not_there_is_said(world: World, server: Server) -> None:
    world.release(server.url)
    server.publish("tiny-here.zip", b"")
    del server.files["/v1.2.3/tiny-here.zip"]
    assert "tiny-here.zip: expected HTTP 200, found 404" in not_used(world)
    assert server.asked.count("GET /v1.2.3/tiny-here.zip") == 1


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        (b"", "SHA256SUMS: expected a line for tiny-here.zip, found none"),
        (None, "SHA256SUMS: expected HTTP 200, found 404"),
    ],
)
def test_no_checksum_no_archive(world: World, server: Server, sums: bytes | None, said: str) -> None:
    world.release(server.url)
    server.publish("tiny-here.zip", zipped({"tiny-here": program()}))
    del server.files["/v1.2.3/SHA256SUMS"]
    if sums is not None:
        server.files["/v1.2.3/SHA256SUMS"] = sums
    assert said in not_used(world)
    assert "GET /v1.2.3/tiny-here.zip" not in server.asked


def test_a_secure_address_does_not_lead_to_an_open_one(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "https":
            return httpx.Response(302, headers={"Location": "http://release.invalid/x.zip"})
        return httpx.Response(200, content=b"x")

    downloads = Downloads()
    downloads._client = httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True)
    with pytest.raises(NotFetched, match="expected a secure address, was led to http://release"):
        downloads.download("https://release.invalid/x.zip", tmp_path / "x", 60)


def test_a_missing_member_is_named(world: World, server: Server) -> None:
    world.release(server.url)
    server.publish("tiny-here.zip", zipped({"other": program()}))
    assert "expected a member tiny-here, found none" in not_used(world)


def test_a_binary_of_another_version_is_not_kept(world: World, server: Server) -> None:
    world.release(server.url)
    server.publish("tiny-here.zip", zipped({"tiny-here": program("1.2.4")}))
    reason = not_used(world)
    assert "expected version 1.2.3" in reason and "'1.2.4'" in reason


def test_what_is_no_archive_is_not_kept(world: World, server: Server) -> None:
    world.release(server.url)
    server.publish("tiny-here.zip", b"<html>sign in first</html>")
    assert "expected a zip archive" in not_used(world)


def test_a_link_in_a_tar_archive_is_not_followed(world: World, server: Server) -> None:
    world.release(server.url, url=server.url + "/v{version}/tiny.tar.gz", archive="tar.gz", member="tiny")
    good = world.on_path("outside", program().decode())
    server.publish("tiny.tar.gz", tarred("tiny", b"", link=str(good)))
    assert "found a link or folder" in not_used(world)


def test_an_unreachable_host_is_asked_once_and_said_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        # Bound and not listening: a connection is refused, and nobody else gets the port.
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        world.release(f"http://{host}")
        calls: list[str] = []
        ask = Downloads._ask
        world.monkeypatch.setattr(Downloads, "_ask", lambda self, url: calls.append(url) or ask(self, url))
        results = install(["tiny", "second"])
    assert [result.state for result in results] == ["built", "built"]
    assert all(f"{host} cannot be reached" in result.reason for result in results)
    assert len(calls) == 1
    assert capsys.readouterr().err.count("cannot be reached") == 1


def test_a_host_that_swallows_requests_costs_one_short_wait(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip"
        downloads = Downloads(answer_s=0.3)
        began = time.monotonic()
        assert "cannot be reached" in downloads.silent(url)
        assert downloads.known_silent(url) and downloads.silent(url)
        assert time.monotonic() - began < 0.3 * 2
    assert ANSWER_S <= 3


def test_a_name_look_up_that_hangs_costs_one_short_wait(world: World) -> None:
    over = threading.Event()
    world.monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])
    began = time.monotonic()
    reason = Downloads(answer_s=0.3).silent("http://release.invalid/x.zip")
    over.set()
    assert reason == "release.invalid cannot be reached (no answer within 0.3 s)"
    assert time.monotonic() - began < 5


def test_a_download_slower_than_a_build_is_given_up(world: World, server: Server) -> None:
    world.release(server.url)
    server.publish("tiny-here.zip", zipped({"tiny-here": program()}))
    clock = iter(range(0, 100_000, 100))
    world.monkeypatch.setattr(
        "onecollector.parts.download.Downloads", lambda: Downloads(clock=lambda: float(next(clock)))
    )
    assert "expected it within 60 s" in not_used(world)


def test_releases_off_asks_nobody(world: World, server: Server) -> None:
    world.release(server.url)
    server.publish("tiny-here.zip", zipped({"tiny-here": program()}))
    world.monkeypatch.setenv("ONECOLLECTOR_RELEASES", "off")
    assert (world.install().state, server.asked) == ("built", [])


def test_another_platform_has_no_archive(world: World, server: Server) -> None:
    world.release(server.url, platforms={"plan9-mips": "here"})
    assert (world.install().state, server.asked) == ("built", [])


# The real pin file and the line that counts.


def test_the_pin_file_names_archives_as_their_projects_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONECOLLECTOR_RELEASES", raising=False)
    loki, gateway = (archive_of(pins()[name], "linux-amd64") for name in ("loki", "versitygw"))
    assert loki is not None and gateway is not None
    assert (loki.url.rpartition("/")[2], loki.member) == ("loki-linux-amd64.zip", "loki-linux-amd64")
    assert loki.checksums.endswith(f"/grafana/loki/releases/download/v{pins()['loki'].version}/SHA256SUMS")
    version = pins()["versitygw"].version
    assert gateway.name == f"versitygw_v{version}_Linux_x86_64.tar.gz"
    assert gateway.member == f"versitygw_v{version}_Linux_x86_64/versitygw"


def test_our_collector_comes_from_a_named_folder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pin = pins()["collector"]
    monkeypatch.delenv("ONECOLLECTOR_RELEASES", raising=False)
    assert archive_of(pin, "linux-amd64") is None
    monkeypatch.setenv("ONECOLLECTOR_RELEASES", "https://releases.example/one/")
    archive = archive_of(pin, "linux-amd64")
    assert archive is not None
    assert archive.url == f"https://releases.example/one/otelcol-onecollector-{pin.key}-linux-amd64.tar.gz"
    assert archive.checksums == "https://releases.example/one/SHA256SUMS"


def test_a_release_does_not_move_the_cache() -> None:
    for pin in pins().values():
        assert replace(pin, release=None).key == pin.key


def test_a_terminal_line_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Ticker("tiny", "building", "1 s", quiet=False):
        assert not terminal.getvalue().endswith("\n")
    assert terminal.getvalue() == "tiny: building, usually 1 s\n"
    with Ticker("tiny", "building", "1 s", quiet=True):
        pass
    assert terminal.getvalue().count("\n") == 1


def tarred(name: str, data: bytes, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as box:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o755
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        box.addfile(info, io.BytesIO(data))
    return out.getvalue()


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends, "waited 30 s in vain"
        time.sleep(0.02)
