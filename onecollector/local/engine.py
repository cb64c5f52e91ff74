"""A Docker engine for this machine: the one that answers, else, where we may, one of our own under the state folder.

Our own engine has no bridge and touches no iptables rule, so it cannot take anything from an engine that somebody else
runs on the same machine. It is not a child of the supervisor: containers are not ours to end with the log platform's
parts, so only `down` stops it.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from onecollector.local.ending import wait_ended
from onecollector.local.health import PartHealth
from onecollector.local.supervisor import MARK, socket_path
from onecollector_resources.layout import StateLayout
from onecollector_resources.runtime import Runtime
from onecollector_resources.settings import Settings

if TYPE_CHECKING:
    from docker import APIClient

DEMO_IMAGE = "onecollector-demo"
APPLETS = ("sh", "echo", "seq", "cat", "sleep", "usleep", "date", "head", "tr", "yes", "dd", "printf", "awk")


class EngineUnreachable(RuntimeError):
    """No engine answers at the address; the message carries the engine's or the kernel's own words."""


class EngineFailed(RuntimeError):
    """Our own engine did not start; the message names its log."""


@dataclass(frozen=True, slots=True)
class EngineUse:
    """The engine that is used. ``links`` and ``containers`` are folders, empty where its files cannot be linked.

    ``url`` is empty where there is no engine.
    """

    url: str
    links: str
    containers: str
    own: bool
    note: str


def usual_address(address: str | None) -> str:
    """The engine that is meant: the one that is named, else $DOCKER_HOST, else the default socket."""
    return address or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def connect(address: str | None, timeout_s: float = 10) -> APIClient:
    """A client of the engine at ``address``, else $DOCKER_HOST, else the default socket.

    Raises EngineUnreachable.
    """
    import docker
    import docker.errors
    import requests

    address = usual_address(address)
    try:
        client = docker.APIClient(base_url=address, timeout=timeout_s)  # pyright: ignore[reportArgumentType]
        client.ping()
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise EngineUnreachable(f"no Docker engine answers at {address}: {error}") from error
    return client


def own_socket(layout: StateLayout) -> Path:
    """Socket of our own engine; beside the supervisor's, because a socket's path must be short."""
    return socket_path(layout).parent / "docker.sock"


def own_pid(layout: StateLayout) -> int | None:
    """Pid of our own engine, checked against its command line: a pid file alone may name a stranger."""
    try:
        pid = int((layout.docker / "pid").read_text(encoding="utf-8"))
        command = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    return (
        pid
        if "dockerd" in Path(command[0] if command else "").name and str(layout.docker / "data") in command
        else None
    )


def start_own_engine(layout: StateLayout, timeout_s: float = 120) -> str:
    """Start dockerd under the state folder and wait until it answers; answers its address.

    Raises EngineFailed with the end of its log.
    """
    sock = own_socket(layout)
    address = f"unix://{sock}"
    if own_pid(layout) is None:
        binary = shutil.which("dockerd") or "/usr/sbin/dockerd"
        for folder in (layout.docker, layout.logs, sock.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (layout.docker / "pid").unlink(missing_ok=True)
        with (layout.logs / "docker.log").open("ab") as log:
            subprocess.Popen(
                [
                    binary,
                    "--data-root",
                    str(layout.docker / "data"),
                    "--exec-root",
                    str(sock.parent / "exec"),
                    "-H",
                    address,
                    "--pidfile",
                    str(layout.docker / "pid"),
                    "--bridge",
                    "none",
                    "--iptables=false",
                    "--log-level",
                    "warn",
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, MARK + "_ENGINE": str(layout.root)},
            )
    end = time.monotonic() + timeout_s
    while True:
        try:
            connect(address).close()
            return address
        except EngineUnreachable as error:
            if time.monotonic() > end:
                tail = (layout.logs / "docker.log").read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
                raise EngineFailed(f"our own Docker engine did not start: {' | '.join(tail)} ({error})") from error
            time.sleep(0.1)


def stop_own_engine(layout: StateLayout, timeout_s: float = 40) -> bool:
    """Stop our own engine and its containers, and unmount what a kill of it left; False where there is none."""
    pid = own_pid(layout)
    stopped = False
    if pid is not None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end by itself meanwhile
            process = psutil.Process(pid)
            children = process.children(recursive=True)
            process.send_signal(signal.SIGTERM)
            for stubborn in wait_ended([process], timeout_s):
                stubborn.kill()
            wait_ended(children, 5)
        stopped = True
    for process in psutil.process_iter(["cmdline"]):
        # containerd and its shims outlive a killed dockerd; their arguments name our folders.
        command = " ".join(process.info["cmdline"] or ())
        if str(socket_path(layout).parent / "exec") in command or str(layout.docker / "data") in command:
            try:
                process.kill()
                stopped = True
            except psutil.Error:
                continue
    _unmount_below(layout.docker, socket_path(layout).parent / "exec")
    return stopped


def _unmount_below(*folders: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    for mount in sorted(mounts, key=len, reverse=True):
        if any(mount == str(folder) or mount.startswith(f"{folder}/") for folder in folders):
            subprocess.run(["umount", "-l", mount], capture_output=True)


def use_engine(settings: Settings, progress: Callable[[str], None]) -> EngineUse:
    """Find or start the engine that this machine's containers run in.

    Raises EngineFailed where one of our own was demanded and did not start.
    """
    layout, wish = settings.layout, settings.docker
    if not wish.enabled:
        return EngineUse("", "", "", False, "switched off in the settings")
    if wish.own_engine != "always":
        try:
            client = connect(wish.host)
        except EngineUnreachable as error:
            if wish.own_engine == "never" or os.geteuid() != 0 or wish.host:
                return EngineUse("", "", "", False, str(error))
        else:
            found = _described(settings, client, own=False)
            client.close()
            return found
    if shutil.which("dockerd") is None and not Path("/usr/sbin/dockerd").exists():
        if wish.own_engine == "always":
            raise EngineFailed(
                "docker.own_engine is `always`, but there is no dockerd; run: onecollector install docker"
            )
        return EngineUse("", "", "", False, "no Docker engine answers and none is installed")
    progress("docker: starting an engine of our own")
    client = connect(start_own_engine(layout))
    found = _described(settings, client, own=True)
    client.close()
    return found


def _described(settings: Settings, client: Any, *, own: bool) -> EngineUse:
    info = client.info()
    root = Path(info["DockerRootDir"])
    note = f"docker {info['ServerVersion']}" + (" (own engine)" if own else "")
    address = f"unix://{own_socket(settings.layout)}" if own else usual_address(settings.docker.host)
    links = settings.agent.link_root or root / "onecollector" / "links"
    containers = root / "containers"
    if not (containers.is_dir() and os.access(containers, os.R_OK | os.X_OK)):
        return EngineUse(address, "", "", own, note)
    return EngineUse(address, str(links), str(containers), own, note)


def engine_health(settings: Settings, runtime: Runtime) -> PartHealth | None:
    """Row of `status` for the engine, or None where none is used."""
    if not runtime.docker_host:
        return None
    pid = own_pid(settings.layout) or 0
    since, memory = 0.0, 0
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end between two looks
        if pid:
            process = psutil.Process(pid)
            since, memory = process.create_time(), process.memory_info().rss
    log = str(settings.layout.logs / "docker.log") if pid else ""
    try:
        client = connect(runtime.docker_host, timeout_s=5)
    except EngineUnreachable as error:
        return PartHealth("docker", False, pid, None, memory, since, log, str(error)[:120])
    try:
        info = client.info()
        note = f"{info['ServerVersion']}{' (own engine)' if pid else ''}, {info['ContainersRunning']} running"
        return PartHealth("docker", True, pid, None, memory, since, log, note)
    finally:
        client.close()


def import_demo_image(client: Any) -> str:
    """An image of nothing but a static busybox; answers its name. Raises EngineFailed without busybox."""
    busybox = next((Path(p) for p in (shutil.which("busybox"), "/bin/busybox") if p and Path(p).exists()), None)
    if busybox is None:
        raise EngineFailed(
            "the demo's image is made from a static busybox, and there is none; apt-get install busybox-static"
        )
    data, out = busybox.read_bytes(), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(data), 0o755
        tar.addfile(entry, io.BytesIO(data))
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
            tar.addfile(link)
    client.import_image_from_data(out.getvalue(), repository=DEMO_IMAGE, tag="latest")
    return f"{DEMO_IMAGE}:latest"
