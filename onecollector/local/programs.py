"""The programs of one machine and the files they start from, rendered from settings and runtime."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from onecollector.local.supervisor import Program
from onecollector_resources.collector.login import asks_of, login_secrets
from onecollector_resources.runtime import Runtime, collector_environment
from onecollector_resources.settings import Settings, config_file

GATES = "stanza.synchronousLogEmitter"
"""Without it a kill can lose what the reader had emitted and the queue had not taken yet."""

POLL_PATIENCE_S = 4
"""Daemon and code server wait for the tick that is under way, a long poll of up to 18 s. A killed tick is taken up by the
next daemon, cursor and reserved runs and all."""

DAGSTER_YAML = {
    "telemetry": {"enabled": False},
    # No sign-up dialog in front of the first page.
    "nux": {"enabled": False},
    "concurrency": {
        "runs": {
            "max_concurrent_runs": 4,
            # One reconcile at a time: the tag is the lock, and unlike a pool it cannot leak a slot.
            # One training at a time: it may take gigabytes.
            "tag_concurrency_limits": [
                {"key": "onecollector/plane", "value": "control", "limit": 1},
                {"key": "onecollector/plane", "value": "models", "limit": 1},
                # An outage of everything is many incidents: they wait for each other, and reconciles for none of them.
                {"key": "onecollector/plane", "value": "findings", "limit": 1},
            ],
        }
    },
    "run_queue": {"dequeue_interval_seconds": 1, "dequeue_use_threads": True, "dequeue_num_workers": 4},
    "sensors": {"use_threads": True, "num_workers": 4, "num_submit_workers": 4},
    "schedules": {"use_threads": True, "num_workers": 2},
    "run_monitoring": {
        "enabled": True,
        "poll_interval_seconds": 10,
        "start_timeout_seconds": 60,
        "max_runtime_seconds": 900,
        "free_slots_after_run_end_seconds": 30,
    },
    "run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False},
    "retention": {"sensor": {"purge_after_days": {"skipped": 1, "success": 14, "failure": 30}}},
}


def secrets_script(settings: Settings) -> str:
    """Shell lines that export what Loki asks for; empty where it asks for nothing. Raises SettingsError.

    A file of its own (0600): run script and supervisord's config may be shown, and supervisord cannot quote every secret.
    """
    loki = settings.loki
    named = [name for name in (loki.bearer_env, loki.password_env) if name]
    secrets = login_secrets(loki) | {name: os.environ[name] for name in named}
    if not secrets:
        return ""
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in sorted(secrets.items()))
    return f"# Written by `onecollector up`, for its owner alone.\n{exports}"


def with_secrets(settings: Settings, command: tuple[str, ...]) -> tuple[str, ...]:
    """The command, with the secrets in its environment where there are any."""
    if not asks_for_secrets(settings):
        return command
    return ("/bin/sh", "-c", '. "$0" && exec "$@"', str(settings.layout.secrets), *command)


def asks_for_secrets(settings: Settings) -> bool:
    """Whether there is a file of secrets."""
    return "authorization" in asks_of(settings.loki)


def collector_run_script(settings: Settings, runtime: Runtime) -> str:
    """A shell script that waits for room on its disk, writes its pid and becomes the collector.

    A collector that cannot write to its queue drops what it was about to write; one that is not there drops nothing.
    """
    layout = settings.layout
    environment = collector_environment(
        layout, runtime, host=settings.agent.host_name, environment=settings.environment, loki=settings.loki
    ) | {
        "GOMEMLIMIT": f"{int(settings.collector.memory_limit_mib * 0.8)}MiB",
        # Half as many rounds of garbage collection; near its limit it collects as often as it must.
        "GOGC": "200",
    }
    exports = "\n".join(f"export {key}={shlex.quote(value)}" for key, value in sorted(environment.items()))
    secrets = f". {shlex.quote(str(layout.secrets))}\n" if asks_for_secrets(settings) else ""
    return (
        "#!/bin/sh\n# Written by `onecollector up`. The collector is only ever killed, never asked to stop.\n"
        f"{exports}\n{secrets}"
        f"{wait_for_room(layout.collector, settings.collector.min_free_mib)}"
        f"echo $$ > {shlex.quote(str(layout.collector_pid))}\n"
        f"exec {shlex.quote(runtime.collector_binary)} --config {shlex.quote(str(layout.active_config))} "
        f"--feature-gates={GATES}\n"
    )


def room_to_start_kib(min_free_mib: int) -> int:
    """KiB that a collector needs to start: a quarter more than what ends it, so that it does not flap."""
    return min_free_mib * 1280


def wait_for_room(folder: Path, min_free_mib: int) -> str:
    """Shell lines that end once the folder's disk has ``min_free_mib`` and a quarter free."""
    free = f'$(df -Pk {shlex.quote(str(folder))} | sed -n "2s/^[^ ]* *[0-9]* *[0-9]* *\\([0-9]*\\).*/\\1/p")'
    return f'while [ "{free}" -lt {room_to_start_kib(min_free_mib)} ]; do sleep 0.5; done\n' if min_free_mib else ""


def dagster_yaml(settings: Settings) -> str:
    """The instance's dagster.yaml: as in the repository, with Postgres where the settings say so."""
    config: dict[str, object] = dict(DAGSTER_YAML)
    if settings.dagster.postgres_url:
        url = settings.dagster.postgres_url
        for bare in ("postgresql://", "postgres://"):
            # A bare scheme means another driver to SQLAlchemy 2.1 than the one dagster-postgres brings.
            url = url.replace(bare, "postgresql+psycopg2://", 1) if url.startswith(bare) else url
        config["storage"] = {"postgres": {"postgres_url": url}}
    return yaml.safe_dump(config, sort_keys=True)


def workspace_yaml(settings: Settings, runtime: Runtime) -> str:
    """A gRPC code server for each location: ``control``, and ``ml`` where models are enabled."""
    ports = {"control": runtime.code_server_port, **({"ml": runtime.ml_port} if settings.models.enabled else {})}
    servers = [{"host": "127.0.0.1", "port": port, "location_name": name} for name, port in ports.items()]
    return yaml.safe_dump({"load_from": [{"grpc_server": server} for server in servers]})


def code_server(
    settings: Settings, location: str, port: int, workers: int, environment: Mapping[str, str], priority: int
) -> Program:
    """The process that holds a location's definitions and answers the daemon's and the web server's questions."""
    dagster = str(Path(sys.executable).parent / "dagster")
    where = ("-h", "127.0.0.1", "-p", str(port), "--max-workers", str(workers))
    what = ("-m", f"onecollector.locations.{location}", "--location-name", location)
    command = with_secrets(settings, (dagster, "api", "grpc", *where, *what))
    return Program(location, command, environment, stop_wait_s=POLL_PATIENCE_S, priority=priority)


def shared_environment(settings: Settings) -> dict[str, str]:
    """What every Python part needs to see the same settings as `up` does."""
    environment = {key: value for key, value in os.environ.items() if key.startswith("ONECOLLECTOR_")}
    found = config_file()
    if found is not None:
        environment["ONECOLLECTOR_CONFIG"] = str(found.resolve())
    environment["ONECOLLECTOR_STATE_DIR"] = str(settings.layout.root)
    environment["DAGSTER_HOME"] = str(settings.layout.dagster_home)
    environment["PYTHONUNBUFFERED"] = "1"
    # A run is a process of its own: without cached bytecode each would compile all of Dagster again.
    environment["PYTHONDONTWRITEBYTECODE"] = ""
    return environment


def programs(settings: Settings, runtime: Runtime) -> list[Program]:
    """Every supervised program, in the order of starting."""
    layout, python, shared = settings.layout, sys.executable, shared_environment(settings)
    dagster_env: Mapping[str, str] = {**shared, "DAGSTER_DISABLE_TELEMETRY": "1"}
    workspace = str(layout.dagster_home / "workspace.yaml")
    bin_dir = Path(python).parent
    rows = [
        Program(
            "collector", ("/bin/sh", str(layout.collector / "run.sh")), {}, "KILL", restart_at_once=True, priority=20
        ),
        # A dozen threads that each allocate little: with an arena of its own for each the agent would be a fifth larger.
        Program("agent", (python, "-m", "onecollector.agent"), {**shared, "MALLOC_ARENA_MAX": "2"}, priority=30),
        code_server(settings, "control", runtime.code_server_port, 40, dagster_env, 40),
        Program(
            "daemon",
            (str(bin_dir / "dagster-daemon"), "run", "-w", workspace),
            dagster_env,
            stop_wait_s=POLL_PATIENCE_S,
            priority=50,
        ),
        Program(
            "webserver",
            (str(bin_dir / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(runtime.dagster_port), "-w", workspace),
            dagster_env,
            "INT",
            priority=50,
        ),
    ]
    if settings.models.enabled:
        # It has a few schedules a day to answer for: threads that wait for nothing would only cost memory. Runs are
        # processes of their own.
        few = {**dagster_env, "MALLOC_ARENA_MAX": "2"}
        rows.insert(-2, code_server(settings, "ml", runtime.ml_port, 4, few, 45))
        # It shares the machine with what it looks at: two threads of each library are enough for a minute.
        lean = {**shared, "MALLOC_ARENA_MAX": "2", "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "1"}
        command = with_secrets(settings, (python, "-m", "onecollector.scorer"))
        rows.append(Program("scorer", command, lean, priority=60))
    if runtime.docker_links:
        floor = str(settings.agent.free_space_floor_bytes)
        module = "onecollector_resources.discovery.linker"
        command = (python, "-m", module, runtime.docker_containers, runtime.docker_links, floor)
        rows.insert(0, Program("linker", command, {}, restart_at_once=True, priority=5))
    if settings.loki.url is None:
        secrets = {}
        if settings.loki.s3 is not None:
            names = (settings.loki.s3.access_key_env, settings.loki.s3.secret_key_env)
            secrets = {name: os.environ.get(name, "") for name in names}
        command = (runtime.loki_binary, f"-config.file={layout.loki / 'config.yaml'}", "-config.expand-env=true")
        rows.insert(0, Program("loki", command, secrets, "TERM", 60, priority=10))
    return rows
