"""Lines and files as the world has them: any time, any framing, truncated, deleted, alike; and an agent that is away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.stack import Stack, private_stack, unique, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@dataclass
class Machine:
    """A stack that collects containers and the files below ``folder/<profile>/<service>/``."""

    stack: Stack
    folder: Path

    def file(self, profile: str, service: str, name: str = "a.log") -> Path:
        path = self.folder / profile / service / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def entries(self, service: str, count: int, deadline_s: float = 90) -> list[tuple[str, dict[str, str]]]:
        """(line, metadata) of a service once there are ``count``, or what there is at the deadline."""
        found: list[tuple[str, dict[str, str]]] = []

        def enough() -> bool:
            now = time.time_ns()
            data = self.stack.loki(
                "/loki/api/v1/query_range",
                query=f'{{service_name="{service}"}}',
                start=now - 3 * 3600 * 10**9,
                end=now + 2 * 3600 * 10**9,
                limit=5_000,
                direction="forward",
            )
            found[:] = [
                (line, extra.get("structuredMetadata", {}))
                for stream in data["result"]
                for _, line, extra in stream["values"]
            ]
            return len(found) >= count

        with contextlib.suppress(TimeoutError):
            wait_until("lines", enough, deadline_s, 0.2)
        return found

    def lines(self, service: str, count: int, deadline_s: float = 90) -> list[str]:
        return [line for line, _ in self.entries(service, count, deadline_s)]

    def gaps(self, service: str) -> list[dict[str, Any]]:
        return self.stack.registry("select * from gaps where service = :s", s=service)

    def proved(self, service: str) -> str:
        """The output of a proof that found everything."""
        said = []

        def complete() -> bool:
            done = self.stack.cli("prove", "--service", service, check=False)
            said[:] = [done.stdout]
            return done.returncode == 0

        wait_until(f"a proof of {service}", complete, 90, 1)
        return said[0]


@pytest.fixture(scope="module")
def machine(parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("files")
    settings = {
        "files": [
            {
                "glob": f"{folder}/{profile}/*/*.log",
                "service_from": f"{folder}/{profile}/(?P<service>[^/]+)/",
                "profile": profile,
            }
            for profile in ("plain", "cri", "docker")
        ]
    }
    with private_stack(settings) as stack:
        yield Machine(stack, folder)


def test_severity_is_set_once_for_all(machine: Machine) -> None:
    service = unique("levels")
    expected = {
        '{"time":"x","level":"warn","msg":"json"}': "WARN",
        "ts=1 level=error msg=logfmt": "ERROR",
        "severity: Critical, a key with a colon": "FATAL",
        "2026-01-01 12:00:00,123 INFO org.apache.Main: a word near the start": "INFO",
        "[DEBUG] in brackets": "DEBUG",
        "java.util SEVERE: an old name": "ERROR",
        "lvl=dbg msg=short": "DEBUG",
        "level=7 msg=number": "",
        "levelled out, an error in lower case is text": "",
        "INFORMATION begins like a word": "",
        "x" * 130 + " ERROR far from the start": "",
        "nothing at all": "",
    }
    machine.stack.run(
        "\n".join(f"echo '{line}'" for line in expected),
        service=service,
    )
    found = dict(machine.entries(service, len(expected)))
    assert {line: meta.get("severity_text", "") for line, meta in found.items()} == expected


def test_lines_that_are_no_frame_arrive_as_they_stand_and_say_so(machine: Machine) -> None:
    service = unique("frames")
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")
    good = json.dumps({"log": "good\n", "stream": "stderr", "time": stamp})
    odd = ["not JSON at all", '{"log": 5}', '{"other": "shape"}', "[1, 2]", '{"log": "cut o']
    machine.file("docker", service).write_text("\n".join([good, *odd]) + "\n")
    found = dict(machine.entries(service, 6))
    assert set(found) == {"good", *odd}
    assert {line for line, meta in found.items() if meta.get("onecollector_unparsed") == "true"} == set(odd)
    assert found["good"].get("log_iostream") == "stderr"
    assert {meta.get("log_iostream") for line, meta in found.items() if line in odd} == {None}


def test_old_lines_are_a_gap_and_lines_from_an_hour_ahead_arrive(machine: Machine) -> None:
    service, now = unique("times"), datetime.now(UTC)
    ages = [timedelta(days=30)] * 5 + [timedelta(minutes=10)] * 3 + [timedelta(hours=-1)] * 2
    text = "".join(
        f"{(now - age).strftime('%Y-%m-%dT%H:%M:%S.%fZ')} stdout F line {n}\n" for n, age in enumerate(ages, 1)
    )
    machine.file("cri", service).write_text(text)
    assert sorted(machine.lines(service, 5)) == ["line 10", "line 6", "line 7", "line 8", "line 9"]
    (gap,) = wait_until("the gap", lambda: machine.gaps(service), 60)
    assert (gap["cause"], gap["lines"]) == ("backfill_horizon", 5)
    assert "5 of 5" in machine.proved(service)


def test_a_file_that_is_truncated_in_place_goes_on_and_the_loss_is_a_gap(machine: Machine) -> None:
    service = unique("truncated")
    path = machine.file("plain", service)
    path.write_text("".join(f"before {n}\n" for n in range(100)))
    assert len(machine.lines(service, 100)) == 100
    with path.open("r+") as file:
        file.truncate(0)
        for n in range(50):
            file.write(f"after {n}\n")
    found = machine.lines(service, 150)
    assert sorted(line for line in found if line.startswith("after")) == sorted(f"after {n}" for n in range(50))
    (gap,) = wait_until("the gap", lambda: machine.gaps(service), 60)
    assert gap["cause"] == "truncated"


def test_a_file_that_is_deleted_while_it_is_read_arrives_whole(machine: Machine) -> None:
    service = unique("deleted")
    path = machine.file("plain", service)
    path.write_text("".join(f"{n} {'y' * 200}\n" for n in range(4_000)))

    def linked() -> bool:
        rows = machine.stack.registry("select phase from sources where service = :s", s=service)
        return bool(rows) and rows[0]["phase"] == "collecting"

    wait_until("its link", linked, 60)
    path.unlink()
    assert len(set(machine.lines(service, 4_000))) == 4_000


def test_two_plain_files_with_the_same_first_kilobyte_arrive_both(machine: Machine) -> None:
    service, banner = unique("alike"), "b" * 1_500 + "\n"
    for name in ("one", "two"):
        machine.file("plain", service, f"{name}.log").write_text(banner + "".join(f"{name} {n}\n" for n in range(100)))
    found = machine.lines(service, 202)
    assert sorted(found) == sorted(
        [banner.strip()] * 2 + [f"{name} {n}" for name in ("one", "two") for n in range(100)]
    )


def test_a_container_that_came_and_went_while_the_agent_hung_is_collected(machine: Machine) -> None:
    service, stack = unique("away"), machine.stack
    agent = stack.pid("agent")
    os.kill(agent, signal.SIGSTOP)
    try:
        with contextlib.suppress(Exception):  # gone before the client looks at it
            stack.run("echo nobody saw me", service=service, remove=True)

        def gone() -> bool:
            return not stack.docker.containers.list(
                all=True, filters={"label": f"onecollector.io/service={service}"}, ignore_removed=True
            )

        wait_until("the container to be gone", gone, 60)
    finally:
        os.kill(agent, signal.SIGKILL)
    assert machine.lines(service, 1, 120) == ["nobody saw me"]
