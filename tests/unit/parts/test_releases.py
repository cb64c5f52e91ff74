"""Release archives: a good one is used; whatever is wrong with one, it is said, nothing is kept, and the part is built."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from onecollector.parts.download import ANSWER_S, Downloads, NotFetched
from onecollector.parts.install import install
from onecollector.parts.locate import locate
from onecollector.parts.pins import pins
from onecollector.parts.releases import archive_of, this_platform
from tests.unit.parts.machine import Server, World, program, tarred, zipped


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
        assert "cannot be reached" in downloads.silent(url)
        # Whoever asks again does not wait again: there is one connection, and no second.
        assert downloads.known_silent(url) and downloads.silent(url)
        silent.settimeout(60)
        silent.accept()[0].close()
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert ANSWER_S <= 3


def test_a_name_look_up_that_hangs_costs_one_short_wait(world: World) -> None:
    over = threading.Event()
    world.monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(120) and [])
    began = time.monotonic()
    reason = Downloads(answer_s=0.3).silent("http://release.invalid/x.zip")
    over.set()
    assert reason == "release.invalid cannot be reached (no answer within 0.3 s)"
    assert time.monotonic() - began < 60


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


# The real pin file.


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
