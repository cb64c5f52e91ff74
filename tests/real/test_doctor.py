"""Each thing that `doctor` finds, made true on this machine: it is found, named, and told with what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from onecollector.local import doctor
from onecollector.local.engine import DEMO_IMAGE, connect, import_demo_image, start_own_engine, stop_own_engine
from onecollector.local.ports import PREFERRED, any_free_port
from onecollector_resources.layout import StateLayout
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.records import Finding
from onecollector_resources.runtime import Runtime, save_runtime
from onecollector_resources.settings import AgentSettings, DockerSettings, LokiSettings, Settings
from tests.real.mounts import mounted, tmpfs
from tests.unprivileged import as_nobody

pytestmark = [pytest.mark.real]


def runtime(**changes: Any) -> Runtime:
    ports: dict[str, int] = {}
    for part in PREFERRED:
        ports[f"{part}_port"] = any_free_port(set(ports.values()))
    texts = {"docker_host": "", "docker_links": "", "docker_containers": "", "collector_binary": "", "loki_binary": ""}
    values: dict[str, Any] = {"loki_url": "", **texts, **ports, **changes}
    return Runtime(**values)


def only(examined: doctor.Examination) -> Finding:
    (found,) = examined.findings
    return found


# -- Docker


def test_no_engine(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, docker=DockerSettings(host=f"unix://{tmp_path}/none.sock"))
    found = only(doctor.examine_docker(settings, None))
    assert (found.level, found.rule) == ("error", "no-docker")
    assert f"{tmp_path}/none.sock" in found.message
    assert "onecollector up" in found.fix


@pytest.fixture(scope="module")
def engine(part: Any) -> Iterator[str]:
    """Address of a Docker engine of the tests' own, in a folder that other users may enter."""
    for name in ("docker", "busybox"):
        part(name)
    if os.geteuid() != 0:
        pytest.skip("needs root: runs a Docker engine of its own")
    # /tmp itself: the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="oc-", dir="/tmp"))
    folder.chmod(0o755)
    layout = StateLayout(folder / "s")
    try:
        yield start_own_engine(layout)
    finally:
        stop_own_engine(layout)
        shutil.rmtree(folder)


def of(engine: str, state: Path, **agent: Any) -> Settings:
    return Settings(state_dir=state, docker=DockerSettings(host=engine), agent=AgentSettings(**agent))


def test_an_engine_that_is_well_has_no_finding(engine: str, tmp_path: Path) -> None:
    examined = doctor.examine_docker(of(engine, tmp_path), None)
    assert examined.findings == ()
    assert examined.good.startswith("docker engine ")


def findings_as_nobody(settings: Settings) -> list[dict[str, str]]:
    def look() -> str:
        found = doctor.examine_docker(settings, None).findings
        return json.dumps([{"rule": f.rule, "message": f.message, "fix": f.fix} for f in found])

    return json.loads(as_nobody(look))


def test_no_right_to_the_engine_and_then_none_to_its_files(engine: str, tmp_path: Path) -> None:
    socket = Path(engine.removeprefix("unix://"))
    modes = {path: path.stat().st_mode & 0o7777 for path in (socket, socket.parent)}
    doctor.examine_docker(of(engine, tmp_path), None)  # Imports what nobody might not be able to read.
    try:
        (found,) = findings_as_nobody(of(engine, tmp_path))
        assert found["rule"] == "no-docker"
        assert "ermission denied" in found["message"]
        assert "usermod -aG docker" in found["fix"]
        # As in the group docker: the engine answers, its folder is root's.
        for folder in (socket.parent, socket.parent.parent):
            folder.chmod(0o755)
        socket.chmod(0o666)
        (found,) = findings_as_nobody(of(engine, tmp_path))
        assert found["rule"] == "no-rights"
        assert "may not read it" in found["message"]
        assert "CAP_DAC_OVERRIDE" in found["fix"]
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_a_link_tree_on_another_file_system_and_on_a_bind_mount_of_the_same(engine: str, tmp_path: Path) -> None:
    root = Path(connected(engine).info()["DockerRootDir"])
    with tmpfs(tmp_path / "other", "1m") as other:
        found = only(doctor.examine_docker(of(engine, tmp_path, link_root=other / "links"), None))
    assert (found.level, found.rule) == ("warning", "link-tree-elsewhere")
    assert found.fix.startswith(f"set agent.link_root to a folder inside {root}")
    # The same device, and a link to it is refused all the same.
    with mounted(tmp_path / "bound", "--bind", str(root.parent)) as bound:
        with pytest.raises(OSError, match="Invalid cross-device link"):
            (root / "probe").touch()
            os.link(root / "probe", bound / "probe")
        found = only(doctor.examine_docker(of(engine, tmp_path, link_root=bound / "links"), None))
    assert found.rule == "link-tree-elsewhere"
    (root / "probe").unlink()


def connected(engine: str) -> Any:
    return connect(engine)


def test_a_log_driver_that_keeps_nothing(engine: str, tmp_path: Path) -> None:
    import docker

    client = docker.DockerClient(base_url=engine)
    made = []
    try:
        import_demo_image(client.api)

        def run(name: str, driver: str, **labels: str) -> None:
            config = docker.types.LogConfig(type=driver)
            made.append(
                client.containers.run(
                    DEMO_IMAGE,
                    ["/bin/sh", "-c", "sleep 600"],
                    name=name,
                    detach=True,
                    network_mode="none",
                    log_config=config,
                    labels=labels,
                )
            )

        run("speaks", "json-file")
        run("mute", "none")
        run("mute-on-purpose", "none", **{"onecollector.io/exclude": "true"})
        found = only(doctor.examine_docker(of(engine, tmp_path), None))
        assert (found.level, found.rule, found.where) == ("error", "mute-driver", "mute")
        assert found.message.startswith("1 container with log driver")
        assert "remove `--log-driver none`, or label them onecollector.io/exclude=true" in found.fix
    finally:
        for container in made:
            container.remove(force=True)
        client.close()


# -- disk, ports, parts, processes


@pytest.mark.parametrize(("size", "level"), [("20m", "error"), ("1500m", "warning")])
def test_a_disk_without_room(tmp_path: Path, size: str, level: str) -> None:
    with tmpfs(tmp_path / "small", size) as small:
        found = only(doctor.examine_disk(Settings(state_dir=small / "not" / "yet" / "made"), None))
    assert (found.level, found.rule) == (level, "disk-full")
    assert "make room, or move state_dir" in found.fix


LISTEN = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"


def test_a_port_that_somebody_holds_also_where_we_may_not_see_who(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    command = [sys.executable, "-c", LISTEN]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        mine = runtime(agent_port=int(holder.stdout.readline()))
        found = only(doctor.examine_ports(settings, mine))
        assert (found.level, found.rule, found.where) == ("error", "port-taken", str(mine.agent_port))
        assert f"is held by pid {holder.pid} (" in found.message
        assert "set agent.port in onecollector.yaml" in found.message
        assert found.fix == f"kill {holder.pid}"
        if os.geteuid() == 0:
            said = as_nobody(lambda: repr(only(doctor.examine_ports(settings, mine))))
            assert "None" not in said
            assert "a process of another user" in said
            assert f"sudo ss -ltnp 'sport = :{mine.agent_port}'" in said
    finally:
        holder.communicate(timeout=60)


def test_a_part_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONECOLLECTOR_COLLECTOR_BINARY", "/nowhere/otelcol")
    monkeypatch.delenv("ONECOLLECTOR_LOKI_BINARY", raising=False)
    monkeypatch.setenv("ONECOLLECTOR_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    collector, loki = doctor.examine_parts(Settings(state_dir=tmp_path)).findings
    assert (collector.rule, collector.where) == ("missing-part", "collector")
    assert "/nowhere/otelcol" in collector.message
    assert collector.fix == "mend it, or: unset ONECOLLECTOR_COLLECTOR_BINARY"
    assert (loki.where, loki.fix) == ("loki", "onecollector install loki")


def test_parts_that_should_run_and_do_not(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    assert doctor.examine_processes(settings).good == "nothing was started yet: onecollector up"
    save_runtime(settings.layout, runtime())
    found = only(doctor.examine_processes(settings))
    assert (found.rule, found.fix) == ("not-running", "onecollector up")


# -- Loki


@pytest.fixture
def skewed(loki: LokiLifecycle) -> Iterator[str]:
    """The tests' Loki behind a proxy whose clock is a minute late."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = httpx.get(loki.url + self.path, headers={"X-Scope-OrgID": "default"}, timeout=60)
            self.send_response_only(answer.status_code)
            self.send_header("Date", formatdate(time.time() - 60, usegmt=True))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_clock_that_differs_from_lokis(loki: LokiLifecycle, skewed: str, tmp_path: Path) -> None:
    def examined(url: str) -> doctor.Examination:
        return doctor.examine_loki(Settings(state_dir=tmp_path, loki=LokiSettings(url=url)), None)

    assert examined(loki.url).findings == ()
    found = only(examined(skewed))
    assert (found.level, found.rule) == ("error", "clock-skew")
    assert any(f"clock is -{seconds} s off" in found.message for seconds in range(58, 70)), found.message
    assert "timedatectl set-ntp true" in found.fix


def test_a_loki_that_is_away(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{any_free_port(set())}"
    found = only(doctor.examine_loki(Settings(state_dir=tmp_path, loki=LokiSettings(url=url)), None))
    assert (found.rule, found.where) == ("loki-away", url)
    assert "onecollector up" in found.fix


def test_the_command_tells_all_of_it_and_each_with_what_to_do(tmp_path: Path) -> None:
    config = tmp_path / "onecollector.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "state_dir": str(tmp_path / "s"),
                "docker": {"host": f"unix://{tmp_path}/none.sock"},
                "loki": {"url": f"http://127.0.0.1:{any_free_port(set())}"},
            }
        )
    )
    save_runtime(StateLayout(tmp_path / "s"), runtime())
    environment = {
        **os.environ,
        "ONECOLLECTOR_CONFIG": str(config),
        "ONECOLLECTOR_COLLECTOR_BINARY": "/nowhere/otelcol",
    }
    command = [sys.executable, "-m", "onecollector.cli.main", "doctor"]
    done = subprocess.run([*command, "--json"], env=environment, text=True, capture_output=True, timeout=200)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)["findings"]
    assert {"missing-part", "no-docker", "not-running", "loki-away"} <= {one["rule"] for one in found}
    assert all(one["fix"] and one["message"] for one in found), found
    text = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=200).stdout
    assert text.count("fix: ") == len(found)
