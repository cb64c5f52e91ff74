"""`doctor`: what is wrong on this machine, and the command that mends it.

Each examination is a function that answers findings; one that cannot look says so as a finding of its own. Nothing is
changed here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from onecollector.local.engine import EngineUnreachable, connect, usual_address
from onecollector.local.ports import held_by_strangers, taken_message
from onecollector.local.processes import marked_processes
from onecollector_resources.records import Finding
from onecollector_resources.runtime import Runtime, RuntimeMissing, load_runtime
from onecollector_resources.settings import Settings, SettingsError

LOW_DISK = 2 << 30
"""Bytes: under this, queue and links have no room for an outage worth the name."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What was looked at, and what was found; ``good`` is said when nothing was."""

    name: str
    good: str
    findings: tuple[Finding, ...]


def examine_parts(settings: Settings) -> Examination:
    """Missing parts."""
    from onecollector.parts.locate import locate

    names = ["collector"] if settings.loki.url else ["collector", "loki"]
    found = tuple(_missing_part(name) for name in names if locate(name) is None)
    return Examination("parts", f"parts there: {', '.join(names)}", found)


def _missing_part(name: str) -> Finding:
    from onecollector.parts.locate import named_binary

    variable, named = named_binary(name)
    if named is not None:
        text = f"{variable} names {named}, and no file is there"
        return Finding("error", "missing-part", name, text, f"mend it, or: unset {variable}")
    text = f"{name} is neither on PATH nor built"
    return Finding("error", "missing-part", name, text, f"onecollector install {name}")


def examine_docker(settings: Settings, runtime: Runtime | None) -> Examination:
    """No engine, no rights, a link tree on another file system, drivers that write no file."""
    if not settings.docker.enabled:
        return Examination("docker", "docker: switched off in the settings", ())
    address = (runtime.docker_host if runtime else "") or settings.docker.host
    try:
        client = connect(address or None)
    except EngineUnreachable as error:
        fix = "start the engine, or: onecollector up (runs one of its own as root)"
        if shutil.which("dockerd") is None and not Path("/usr/sbin/dockerd").exists():
            fix = (
                "onecollector install docker; then: onecollector up (as root); or set docker.host to an engine of yours"
            )
        if "ermission" in str(error):
            fix = "run as root, or add this user to the group docker: usermod -aG docker $USER"
        return Examination("docker", "", (Finding("error", "no-docker", "docker engine", str(error), fix),))
    try:
        info = client.info()
        found = [
            *link_tree_findings(settings, Path(info["DockerRootDir"])),
            *driver_findings(client.containers(all=False), client),
        ]
        return Examination("docker", f"docker engine {info['ServerVersion']} at {usual_address(address)}", tuple(found))
    finally:
        client.close()


def link_tree_findings(settings: Settings, docker_root: Path) -> Iterable[Finding]:
    """A link needs a folder we may write, on the mount that holds Docker's files."""
    root = settings.agent.link_root or docker_root / "onecollector" / "links"
    containers = docker_root / "containers"
    if not _may_be_there(containers):
        yield Finding(
            "warning",
            "remote-engine",
            str(docker_root),
            "the engine's files are not on this machine: its log API is followed",
            "run the agent on the engine's host (docs/log-links.md)",
        )
        return
    if not os.access(containers, os.R_OK | os.X_OK):
        yield Finding(
            "error",
            "no-rights",
            str(containers),
            f"user {os.getuid()} may not read it: containers are followed over the engine's API",
            "run the agent as root, or give it CAP_DAC_OVERRIDE and CAP_FOWNER (docs/real-host.md)",
        )
        return
    if not _same_mount(root, containers):
        yield Finding(
            "warning",
            "link-tree-elsewhere",
            str(root),
            "link tree on another file system: containers that live under 0.2 s can be missed, and lines are copied",
            f"set agent.link_root to a folder inside {docker_root} (docs/log-links.md)",
        )


def _may_be_there(folder: Path) -> bool:
    try:
        folder.stat()
    except PermissionError:
        # Its parent is closed to this user: a matter of rights, not of another machine.
        return True
    except OSError:
        return False
    return True


def _same_mount(folder: Path, containers: Path) -> bool:
    existing = folder
    while not existing.exists():
        existing = existing.parent

    # A bind mount of the same disk has the same st_dev and still refuses links, so both are compared.
    def mount_of(path: Path) -> str:
        best = ""
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            point = line.split()[4].replace("\\040", " ")
            if (str(path) == point or str(path).startswith(point.rstrip("/") + "/")) and len(point) > len(best):
                best = point
        return best

    real, target = existing.resolve(), containers.resolve()
    return os.stat(real).st_dev == os.stat(target).st_dev and mount_of(real) == mount_of(target)


def driver_findings(containers: Sequence[dict[str, Any]], client: Any) -> Iterable[Finding]:
    """Running containers whose log driver keeps nothing that could be read."""
    mute = []
    for container in containers:
        if container.get("Labels", {}).get("onecollector.io/exclude", "").lower() in ("1", "true", "yes"):
            continue
        driver = client.inspect_container(container["Id"])["HostConfig"]["LogConfig"]["Type"]
        if driver == "none":
            mute.append(container["Names"][0].lstrip("/"))
    if mute:
        yield Finding(
            "error",
            "mute-driver",
            ", ".join(sorted(mute)[:10]),
            f'{len(mute)} container{"s" * (len(mute) > 1)} with log driver "none": nothing can be collected from them',
            "remove `--log-driver none`, or label them onecollector.io/exclude=true",
        )


def examine_disk(settings: Settings, runtime: Runtime | None) -> Examination:
    """Room for queue, registry and links."""
    folders = {settings.layout.root}
    if runtime and runtime.docker_links:
        folders.add(Path(runtime.docker_links))
    found, free = [], []
    for folder in sorted(folders):
        existing = folder
        while not existing.exists():
            existing = existing.parent
        usage = shutil.disk_usage(existing)
        free.append(usage.free)
        if usage.free < max(LOW_DISK, settings.agent.free_space_floor_bytes):
            found.append(
                Finding(
                    "error" if usage.free < 100 << 20 else "warning",
                    "disk-full",
                    str(folder),
                    f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.0f} GB: queue and links have no room for an outage",
                    "make room, or move state_dir to a larger disk",
                )
            )
    return Examination("disk", f"{min(free) / 1e9:.0f} GB free for queue and links", tuple(found))


def examine_ports(settings: Settings, runtime: Runtime | None) -> Examination:
    """Ports of ours that a stranger holds."""
    if runtime is None:
        return Examination("ports", "ports: not chosen yet", ())
    ours = {process.pid for process in marked_processes(settings.layout)}
    found = []
    for part, holder in held_by_strangers(runtime.ports, ours, loki=settings.loki.url is None):
        port = runtime.ports[part]
        # Whose pid we may not see we cannot end either.
        fix = f"kill {holder.pid}" if holder and holder.pid else f"see who: sudo ss -ltnp 'sport = :{port}'"
        found.append(Finding("error", "port-taken", str(port), taken_message(part, port), fix))
    return Examination("ports", "ports are ours or free", tuple(found))


def examine_loki(settings: Settings, runtime: Runtime | None) -> Examination:
    """Reachable, its clock, and limits that would lose late lines."""
    url = settings.loki.url or (runtime.loki_url if runtime else "")
    if not url:
        return Examination("loki", "loki: not started yet", ())
    from onecollector_resources.loki.faults import MEND_LOGIN, LokiError
    from onecollector_resources.loki.preflight.looking import preflight

    try:
        findings = tuple(preflight(settings.loki.access(url, "default"), sorted(settings.tenants)))
    except (SettingsError, LokiError) as error:
        # What it takes to log in is not here.
        return Examination("loki", "", (Finding("error", "login-missing", url, str(error), MEND_LOGIN),))
    return Examination("loki", f"loki at {url} answers, its clock agrees, late lines are kept", findings)


def examine_processes(settings: Settings) -> Examination:
    """Parts that should run and do not."""
    from onecollector.local.health import part_health
    from onecollector.local.supervisor import Supervisor

    try:
        runtime = load_runtime(settings.layout)
    except RuntimeMissing:
        return Examination("processes", "nothing was started yet: onecollector up", ())
    supervisor = Supervisor(settings.layout)
    if not supervisor.alive():
        return Examination(
            "processes", "", (Finding("warning", "not-running", "supervisor", "nothing runs", "onecollector up"),)
        )
    found = tuple(
        Finding("error", "part-down", part.part, part.note or "not healthy", f"onecollector logs {part.part}")
        for part in part_health(settings, runtime, supervisor)
        if not part.ok
    )
    return Examination("processes", "every part is healthy", found)


def diagnose(settings: Settings) -> list[Examination]:
    """All examinations, in the order in which a newcomer meets the problems."""
    try:
        runtime: Runtime | None = load_runtime(settings.layout)
    except RuntimeMissing:
        runtime = None
    looks: tuple[Callable[[], Examination], ...] = (
        lambda: examine_parts(settings),
        lambda: examine_docker(settings, runtime),
        lambda: examine_disk(settings, runtime),
        lambda: examine_ports(settings, runtime),
        lambda: examine_processes(settings),
        lambda: examine_loki(settings, runtime),
    )
    out = []
    for look in looks:
        try:
            out.append(look())
        except (OSError, psutil.Error) as error:
            out.append(
                Examination(
                    "?",
                    "",
                    (Finding("warning", "cannot-look", "doctor", f"{type(error).__name__}: {error}", "run as root"),),
                )
            )
    return out
