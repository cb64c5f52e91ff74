"""`up` and `down`: everything on one machine, started in order, healed when it is half there, stopped exactly.

`up` is level-triggered like the rest: it computes what should be there, writes what differs, starts what is missing and
waits until each part says it is healthy. Running it twice changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from onecollector.local.engine import EngineUse, stop_own_engine, use_engine
from onecollector.local.health import PartHealth, part_health
from onecollector.local.ports import choose_ports, held_by_strangers, taken_message
from onecollector.local.processes import end_marked, marked_processes
from onecollector.local.programs import (
    collector_run_script,
    dagster_yaml,
    programs,
    secrets_script,
    shared_environment,
    workspace_yaml,
)
from onecollector.local.supervisor import Supervisor, SupervisorError
from onecollector_resources.collector.login import login_secrets
from onecollector_resources.layout import StateLayout
from onecollector_resources.loki.faults import MEND_LOGIN
from onecollector_resources.runtime import Runtime, RuntimeMissing, collector_environment, load_runtime, save_runtime
from onecollector_resources.settings import Settings

READY_S = 180.0
"""Seconds `up` waits for all parts; warm it takes about a dozen."""


class UpFailed(RuntimeError):
    """`up` could not bring everything up; the message names the part, its log and the next step."""


@dataclass(frozen=True, slots=True)
class UpResult:
    """What `up` did. ``seconds`` by part: from the start of `up` until it was first seen healthy."""

    runtime: Runtime
    seconds: dict[str, float]
    started: tuple[str, ...]
    engine: str
    total_s: float


Progress = Callable[[str], None]


def _silent(_: str) -> None:
    return None


def _write(path: Path, text: str, mode: int = 0o600) -> bool:
    """Write atomically where the content differs; True where it did."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    # Made with its mode: some hold secrets, and nobody may read them meanwhile.
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    beside.chmod(mode)
    beside.replace(path)
    return True


def _find_binaries(settings: Settings) -> dict[str, str]:
    from onecollector.parts.locate import locate

    names = ["collector"] if settings.loki.url else ["collector", "loki"]
    found = {name: locate(name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise UpFailed(f"missing: {', '.join(missing)}; run: onecollector install")
    return {name: str(path) for name, path in found.items()}


def _remembered(layout: StateLayout) -> Runtime | None:
    try:
        return load_runtime(layout)
    except RuntimeMissing:
        return None


def plan_runtime(settings: Settings, engine: EngineUse) -> Runtime:
    """Ports, addresses and binaries of this machine. Raises PortTaken, UpFailed."""
    before = _remembered(settings.layout)
    known = before.ports if before is not None else {}
    wanted = {
        "loki": settings.loki.port,
        "agent": settings.agent.port,
        "collector_health": settings.collector.health_port,
        "collector_metrics": settings.collector.metrics_port,
        "dagster": settings.dagster.port,
    }
    ports = choose_ports(wanted, known, usual_first=settings.usual_ports)
    binaries = _find_binaries(settings)
    return Runtime(
        loki_url=(settings.loki.url or f"http://127.0.0.1:{ports['loki']}").rstrip("/"),
        loki_port=ports["loki"],
        loki_grpc_port=ports["loki_grpc"],
        agent_port=ports["agent"],
        collector_health_port=ports["collector_health"],
        collector_metrics_port=ports["collector_metrics"],
        dagster_port=ports["dagster"],
        code_server_port=ports["code_server"],
        docker_host=engine.url,
        docker_links=engine.links,
        docker_containers=engine.containers,
        collector_binary=binaries["collector"],
        loki_binary=binaries.get("loki", ""),
        # Of the first start, and the same ever after: what waits in a queue for days must not become too old in it.
        ml_port=ports["ml"],
        backfill_from_ns=before.backfill_from_ns if before is not None else _backfill_from(settings),
    )


def _backfill_from(settings: Settings) -> int:
    horizon = settings.agent.backfill_horizon_s
    return time.time_ns() - int(horizon * 1e9) if horizon > 0 else 0


def _refuse_taken_ports(settings: Settings, runtime: Runtime) -> None:
    """A port of a part that does not run must be free now; after the start nobody could say who took it."""
    ours = {process.pid for process in marked_processes(settings.layout)}
    for part, _ in held_by_strangers(runtime.ports, ours, loki=settings.loki.url is None):
        raise UpFailed(taken_message(part, runtime.ports[part]))


def _refuse_missing_secrets(settings: Settings) -> None:
    """Loki would start without them, and an `up` from another shell would take them from the Loki that runs."""
    if settings.loki.url is None and settings.loki.store == "s3" and settings.loki.s3 is not None:
        names = (settings.loki.s3.access_key_env, settings.loki.s3.secret_key_env)
        unset = [name for name in names if not os.environ.get(name)]
        if unset:
            raise UpFailed(
                f"loki.s3 takes its keys from ${names[0]} and ${names[1]}; not set: {', '.join(unset)}. "
                "Export them, or name other variables in loki.s3.access_key_env and secret_key_env"
            )


def _refuse_wrong_login(settings: Settings) -> None:
    """Nothing is changed by an `up` that a Loki of the user's own would not let in. One that is away is waited for."""
    loki = settings.loki
    for name in ("authority", "certificate", "key"):
        path = getattr(loki, name)
        if path is not None and not path.is_absolute():
            raise UpFailed(
                f"loki.{name}: expected an absolute path, found {path}: the parts run in folders of their own"
            )
    login_secrets(loki)
    if loki.url is None:
        return
    refused = ""
    with contextlib.suppress(httpx.HTTPError):
        refused = loki.access(loki.url, "default").login_refused()
    if refused:
        raise UpFailed(f"{refused}; {MEND_LOGIN}")


def _write_secrets(settings: Settings) -> list[str]:
    """The file of secrets; answers the programs that read it, where it changed."""
    script = secrets_script(settings)
    if not script:
        settings.layout.secrets.unlink(missing_ok=True)
        return []
    return ["collector", "control"] if _write(settings.layout.secrets, script) else []


def _write_files(settings: Settings, runtime: Runtime) -> list[str]:
    """All generated files; answers the programs whose file changed."""
    layout, changed = settings.layout, _write_secrets(settings)
    if settings.loki.url is None:
        from onecollector_resources.loki.config import render_loki_config, render_overrides
        from onecollector_resources.retention.applied import load_applied

        text = render_loki_config(
            settings, data_dir=layout.loki, http_port=runtime.loki_port, grpc_port=runtime.loki_grpc_port
        )
        # Loki reads it every few seconds: no restart.
        _write(layout.loki / "overrides.yaml", render_overrides(settings, load_applied(layout)))
        if _write(layout.loki / "config.yaml", text):
            from onecollector_resources.loki.lifecycle import verify_config

            verify_config(Path(runtime.loki_binary), layout.loki / "config.yaml")
            changed.append("loki")
    if _write(layout.collector / "run.sh", collector_run_script(settings, runtime), 0o700):
        changed.append("collector")
    _write(layout.dagster_home / "dagster.yaml", dagster_yaml(settings))
    _write(layout.dagster_home / "workspace.yaml", workspace_yaml(settings, runtime))
    layout.file_links.mkdir(parents=True, exist_ok=True, mode=0o700)
    return changed


def _first_config(settings: Settings, runtime: Runtime) -> None:
    """A config to start with, where there is none: the same builder and checks as in every rollout."""
    layout = settings.layout
    if layout.active_config.exists():
        return
    from onecollector_resources.collector.builder import OtelConfigBuilder
    from onecollector_resources.collector.validate import component_names

    binary = Path(runtime.collector_binary)
    builder = OtelConfigBuilder(settings, component_names(binary))
    config = builder.generate_config()
    environment = collector_environment(
        layout, runtime, host=settings.agent.host_name, environment=settings.environment, loki=settings.loki
    )
    findings = [f for f in builder.validate_config(config.text, binary, environment) if f.level == "error"]
    if findings:
        raise UpFailed(
            "the first collector config is not valid: " + "; ".join(f"{f.where}: {f.message}" for f in findings)
        )
    _write(layout.active_config, config.text)
    _write(layout.last_good_config, config.text)


def _make_dagster_storage(settings: Settings) -> None:
    """Create Dagster's tables before its processes start: two that create them at once break them for good."""
    home = settings.layout.dagster_home
    # Which storage was made: another database has no tables yet. The URL holds a password, so its hash is kept.
    url = settings.dagster.postgres_url
    storage, made = hashlib.sha256(url.encode()).hexdigest() if url else "", home / ".made"
    if made.exists() and made.read_text(encoding="utf-8").strip() == storage:
        return
    code = "from dagster import DagsterInstance\nwith DagsterInstance.get() as i: i.get_runs_count(); i.all_instigator_state()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **shared_environment(settings)},
        text=True,
        capture_output=True,
        timeout=400,
    )
    if done.returncode != 0:
        raise UpFailed(f"Dagster's storage in {home} cannot be made: {done.stderr.strip()[-500:]}")
    made.write_text(storage, encoding="utf-8")


def up(settings: Settings, progress: Progress = _silent) -> UpResult:
    """Bring everything up and wait until every part is healthy.

    Raises UpFailed, PortTaken or SupervisorError with what is wrong and what to do.
    """
    began = time.monotonic()
    layout = settings.layout
    _refuse_missing_secrets(settings)
    _refuse_wrong_login(settings)
    layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = use_engine(settings, progress)
    runtime = plan_runtime(settings, engine)
    supervisor = Supervisor(layout)
    alive = supervisor.alive()
    if not alive:
        # Whatever a killed supervisord left behind holds the ports and files of what is to be started.
        left = end_marked(layout)
        if left:
            progress(f"ended {len(left)} processes that a killed supervisor had left")
        _refuse_taken_ports(settings, runtime)
    save_runtime(layout, runtime)
    from onecollector_resources.registry.store import LogSourceRegistry

    LogSourceRegistry(settings.registry_url).migrate()
    changed = _write_files(settings, runtime)
    _first_config(settings, runtime)
    _make_dagster_storage(settings)
    supervisor.write_config(programs(settings, runtime))
    if alive:
        touched = supervisor.update()
        for name in dict.fromkeys(changed):
            if name not in touched:
                supervisor.restart(name)
        started = tuple(sorted({*touched, *changed, *supervisor.heal()}))
    else:
        supervisor.start()
        started = tuple(info.name for info in supervisor.processes())
    seconds = wait_healthy(settings, runtime, supervisor, began, progress)
    return UpResult(runtime, seconds, started, engine.note, time.monotonic() - began)


def wait_healthy(
    settings: Settings,
    runtime: Runtime,
    supervisor: Supervisor,
    began: float,
    progress: Progress,
    timeout_s: float = READY_S,
) -> dict[str, float]:
    """Seconds since ``began`` until each part was healthy. Raises UpFailed naming the part and its log."""
    seconds: dict[str, float] = {}
    end = time.monotonic() + timeout_s
    while True:
        parts = part_health(settings, runtime, supervisor, skip=frozenset(seconds))
        for part in parts:
            if part.ok:
                seconds[part.part] = time.monotonic() - began
                progress(f"{part.part} {seconds[part.part]:.1f}s")
        waiting = [part for part in parts if not part.ok]
        if not waiting:
            return seconds
        if time.monotonic() > end:
            raise UpFailed("; ".join(_why_not(part) for part in waiting))
        time.sleep(0.1)


def _why_not(part: PartHealth) -> str:
    from onecollector_resources.loki.lifecycle import end_of_log

    return f"{part.part} is not healthy: {part.note}; its log {part.log} ends: {end_of_log(Path(part.log))}"


@dataclass(frozen=True, slots=True)
class DownResult:
    """What `down` ended: the supervisor, processes it had lost, the engine of our own."""

    supervised: bool
    left_over: tuple[int, ...]
    engine_stopped: bool


def down(settings: Settings) -> DownResult:
    """Stop exactly what `up` started, in whatever state it is. Harmless when nothing runs."""
    layout = settings.layout
    supervisor = Supervisor(layout)
    supervised = supervisor.alive()
    with contextlib.suppress(SupervisorError):
        supervisor.shutdown()
    left = end_marked(layout)
    return DownResult(supervised, tuple(left), stop_own_engine(layout))


def stay(settings: Settings, stopped: threading.Event) -> bool:
    """Stay while supervisord runs; False where it ended by itself. At ``stopped`` everything is brought down: True."""
    supervisor = Supervisor(settings.layout)
    while not stopped.wait(1.0):
        if not supervisor.alive():
            return False
    down(settings)
    return True


def restart(settings: Settings, part: str | None = None) -> None:
    """Restart one part, or all. Raises SupervisorError for an unknown part or where nothing runs, SettingsError."""
    # Whether Loki is well cannot be asked without them, and a shell that has them not would wait in vain.
    login_secrets(settings.loki)
    supervisor = Supervisor(settings.layout)
    names = [info.name for info in supervisor.processes()]
    if not names:
        raise SupervisorError("nothing runs; start with: onecollector up")
    if part is not None and part not in names:
        raise SupervisorError(f"unknown part {part!r}; there are: {', '.join(names)}")
    for name in [part] if part else names:
        supervisor.restart(name)
    wait_healthy(settings, load_runtime(settings.layout), supervisor, time.monotonic(), _silent)
