"""The life of a whole machine's parts: up, killed in the middle, up again, down, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.stack import wait_until
from onecollector.local.processes import marked_processes
from onecollector.local.supervisor import Supervisor
from onecollector_resources.layout import StateLayout
from onecollector_resources.runtime import load_runtime, runtime_file

pytestmark = [pytest.mark.real]

COMMAND = [sys.executable, "-m", "onecollector.cli.main"]


class Machine:
    """A state folder without containers: plain files only, so it needs neither root nor an engine."""

    def __init__(self, folder: Path) -> None:
        self.layout = StateLayout(folder / "s")
        self.config = folder / "onecollector.yaml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "state_dir": str(folder / "s"),
                    "usual_ports": False,
                    "docker": {"enabled": False, "own_engine": "never"},
                }
            )
        )
        self.env = {**os.environ, "ONECOLLECTOR_CONFIG": str(self.config)}
        self.env.pop("ONECOLLECTOR_STATE_DIR", None)

    def cli(
        self, *args: str, code: int | None = 0, timeout: float = 300, answer: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *args], env=self.env, text=True, capture_output=True, timeout=timeout, input=answer
        )
        assert code is None or done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def parts(self) -> dict[str, dict[str, Any]]:
        return {row["part"]: row for row in json.loads(self.cli("status", "--json", code=None).stdout)["parts"]}

    def supervisor_pid(self) -> int:
        return int((self.layout.supervisor / "pid").read_text())

    def nothing_left(self) -> bool:
        runtime = load_runtime(self.layout)
        ports = (runtime.loki_port, runtime.agent_port, runtime.dagster_port, runtime.code_server_port)
        return not marked_processes(self.layout) and not any(answers(port) for port in ports)


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def new_machine(part: Any, folders: pytest.TempPathFactory) -> Iterator[Machine]:
    for name in ("loki", "collector"):
        part(name)
    made = Machine(folders.mktemp("m"))
    try:
        yield made
    finally:
        made.cli("down", code=None)


@pytest.fixture(scope="module")
def machine(part: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One for several tests, each of which takes it up or down as it needs it: that costs half a minute each time."""
    with new_machine(part, tmp_path_factory) as made:
        yield made


@pytest.fixture
def untouched(part: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with new_machine(part, tmp_path_factory) as made:
        yield made


def test_a_killed_supervisor_is_told_and_mended_and_down_leaves_nothing(machine: Machine) -> None:
    machine.cli("up")
    before = machine.parts()
    assert all(row["ok"] for row in before.values()), before
    os.kill(machine.supervisor_pid(), signal.SIGKILL)
    wait_until("supervisord is gone", lambda: not Supervisor(machine.layout).alive(), 60)
    said = machine.cli("status", code=1)
    assert "not started" in said.stdout
    # What it left behind still runs; `up` ends it and starts anew on the ports that were chosen once.
    machine.cli("up")
    after = machine.parts()
    assert all(row["ok"] for row in after.values()), after
    assert {name: row["port"] for name, row in after.items()} == {name: row["port"] for name, row in before.items()}
    assert all(after[name]["pid"] != before[name]["pid"] for name in after)
    os.kill(machine.supervisor_pid(), signal.SIGKILL)
    machine.cli("down")
    assert machine.nothing_left()
    assert "nothing was running" in machine.cli("down").stdout


def test_a_port_that_was_taken_meanwhile_is_named_with_its_holder(machine: Machine) -> None:
    if not runtime_file(machine.layout).exists():
        machine.cli("up")
    port = load_runtime(machine.layout).agent_port
    machine.cli("down")
    holder = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"])
    try:
        wait_until("the port is taken", lambda: answers(port), 60)
        refused = machine.cli("up", code=2)
        assert str(port) in refused.stderr
        assert str(holder.pid) in refused.stderr
        assert "Traceback" not in refused.stderr
        findings = json.loads(machine.cli("doctor", "--json", code=1).stdout)["findings"]
        assert any(str(port) in json.dumps(finding) for finding in findings), findings
    finally:
        holder.kill()
        holder.wait()
    machine.cli("up")


def test_loki_is_verified_stopped_started_and_emptied_only_after_a_yes(machine: Machine) -> None:
    # A line of our own: without a source nothing reaches Loki before the next reconcile of the schedule.
    log = machine.layout.root.parent / "life.log"
    log.write_text("a line\n")
    settings = yaml.safe_load(machine.config.read_text()) | {"files": [{"glob": str(log), "service": "life"}]}
    machine.config.write_text(yaml.safe_dump(settings))
    machine.cli("up")
    url = load_runtime(machine.layout).loki_url
    config = machine.config.read_text()

    def lines() -> int:
        query = ("query", '{service_name="life"}', "--since", "1h", "--output", "raw")
        return len(machine.cli(*query, code=None).stdout.splitlines())

    wait_until("the line", lines, 120, 0.5)
    assert json.loads(machine.cli("loki", "verify", "--json").stdout)["ok"]
    machine.cli("loki", "stop")
    assert "distributor" in machine.cli("loki", "verify", code=1).stdout
    machine.cli("loki", "start")
    before = lines()
    assert before > 0, "a graceful stop keeps what was stored"
    machine.cli("loki", "delete-data", code=1, answer="n\n")
    assert lines() >= before
    machine.cli("loki", "delete-data", answer="y\n")
    assert lines() < before
    assert url == load_runtime(machine.layout).loki_url
    machine.config.write_text(config + "loki: {url: 'http://127.0.0.1:1'}\n")
    try:
        assert "not ours" in machine.cli("loki", "delete-data", "--yes", code=2).stderr
    finally:
        machine.config.write_text(config)


@pytest.mark.soak
def test_in_the_foreground_it_stays_ends_with_its_supervisor_and_goes_down_when_told(untouched: Machine) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, "up", "--foreground"],
            env=untouched.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    first = start()
    assert first.stdout is not None
    with contextlib.suppress(StopIteration):
        while not next(first.stdout).startswith("Stop"):
            pass
    assert all(row["ok"] for row in untouched.parts().values())
    os.kill(untouched.supervisor_pid(), signal.SIGKILL)
    assert first.wait(30) == 1
    # What systemd does next.
    second = start()
    wait_until(
        "all parts",
        lambda: Supervisor(untouched.layout).alive() and untouched.cli("status", code=None).returncode == 0,
        90,
        1,
    )
    second.send_signal(signal.SIGTERM)
    assert second.wait(90) == 0, second.communicate()
    assert untouched.nothing_left()


def test_the_unit_of_the_docs_is_accepted_by_systemd(tmp_path: Path) -> None:
    import shutil

    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    page = (Path(__file__).parents[2] / "docs" / "real-host.md").read_text()
    unit = page.partition("```ini\n")[2].partition("```")[0]
    command = tmp_path / "onecollector"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    path = tmp_path / "onecollector.service"
    path.write_text(unit.replace("/opt/onecollector/.venv/bin/onecollector", str(command)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], text=True, capture_output=True)
    assert "onecollector" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_without_an_engine_the_demo_says_so_and_reads_log_files(untouched: Machine) -> None:
    untouched.config.write_text(
        yaml.safe_dump(
            {"state_dir": str(untouched.layout.root), "usual_ports": False, "docker": {"own_engine": "never"}}
        )
    )
    untouched.env["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    done = untouched.cli("demo", timeout=500)
    assert "three processes that write log files instead" in done.stdout
    assert "NOT SEEN" not in done.stdout
    assert "3 sources" in done.stdout
    assert marked_processes(untouched.layout)
    untouched.cli("down")
    assert untouched.nothing_left()
