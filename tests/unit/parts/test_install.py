"""`onecollector install`: which source of a part wins, one build for two installs, and what a failed one says."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from onecollector.parts.build import find_go
from onecollector.parts.cache import cached
from onecollector.parts.locate import locate
from onecollector.parts.pins import pins
from onecollector.parts.ticker import Ticker
from tests.unit.parts.machine import Server, World, program

INSTALL = """
import json, sys
from pathlib import Path
from onecollector.parts import pins
pins.STACK = Path(sys.argv[1])
from onecollector.parts.install import install
print(json.dumps([r.state for r in install(["tiny"])]))
"""


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
    outs = [process.communicate(timeout=120)[0].strip() for process in (first, second)]
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


# The line that counts.


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


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends, "waited 60 s in vain"
        time.sleep(0.02)
