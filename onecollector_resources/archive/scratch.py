"""A Loki for looking at what was archived: its own folder, its own ports, nothing removed by age, gone when told to.

It lives on after the command that started it, so what is needed to find and stop it again lies in its folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from onecollector_resources.loki.config import OVERRIDES, loki_config, refuse_negative_durations
from onecollector_resources.loki.lifecycle import LokiLifecycle, LokiLifecycleError
from onecollector_resources.settings import LokiSettings, Settings

RECORD = "scratch.json"


class ScratchMissing(LookupError):
    """No scratch Loki in this folder."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """A scratch Loki that was started: process id, address, and what is in it."""

    folder: str
    url: str
    pid: int
    days: tuple[str, ...]
    tenants: tuple[str, ...]


def scratch_config(schema_config: Mapping[str, Any], *, data_dir: Path, http_port: int, grpc_port: int) -> str:
    """Our own Loki's config as YAML, for reading alone: with the archived schema, on disk, without retention and log."""
    plain = Settings.model_construct(loki=LokiSettings())
    config = loki_config(plain, data_dir=data_dir, http_port=http_port, grpc_port=grpc_port)
    config["schema_config"] = {
        **schema_config,
        "configs": [{**period, "object_store": "filesystem"} for period in schema_config["configs"]],
    }
    # Nothing is compacted or removed: what is laid out is what was archived.
    config["compactor"] = {"working_directory": f"{data_dir}/compactor", "compaction_interval": "8760h"}
    config["ingester"]["wal"] = {"enabled": False}
    config["limits_config"] |= {"retention_period": "0s", "max_query_length": "0s", "max_query_lookback": "0s"}
    # Every line is read to prove the day, as many at once as the reader wants.
    config["limits_config"]["max_entries_limit_per_query"] = 0
    refuse_negative_durations(config)
    return yaml.safe_dump(config, sort_keys=True, width=120)


def objects_folder(folder: Path) -> Path:
    """Where a scratch Loki looks for chunks and index."""
    return folder / "data" / "objects"


def start_scratch(
    binary: Path, folder: Path, schema_config: Mapping[str, Any], days: tuple[str, ...], tenants: tuple[str, ...]
) -> LokiLifecycle:
    """Start a Loki on ``folder``, which holds its objects. Raises LokiConfigError, LokiLifecycleError, httpx.HTTPError."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / OVERRIDES).write_text("overrides: {}\n", encoding="utf-8")
    http_port, grpc_port = free_ports(2)
    config = folder / "config.yaml"
    text = scratch_config(schema_config, data_dir=data, http_port=http_port, grpc_port=grpc_port)
    config.write_text(text, encoding="utf-8")
    loki = LokiLifecycle(binary, config, data, http_port, folder / "loki.log", detached=True)
    try:
        loki.start()
        for tenant in tenants:
            # The first query takes seconds, however little there is: ready is not all that Loki has to be.
            httpx.get(f"{loki.url}/loki/api/v1/labels", headers={"X-Scope-OrgID": tenant}, timeout=60)
        assert loki.pid is not None
        record = Scratch(str(folder), loki.url, loki.pid, days, tenants)
        (folder / RECORD).write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    except BaseException:
        # It would live on, and nobody would know of it.
        loki.kill()
        raise
    return loki


def running_scratch(folder: Path) -> Scratch | None:
    """The scratch Loki of a folder if its process lives. Raises ScratchMissing where none was started there."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ScratchMissing(f"{folder}: expected a folder of a restore ({RECORD}), found none") from None
    scratch = Scratch(**{**found, "days": tuple(found["days"]), "tenants": tuple(found["tenants"])})
    return scratch if _is_ours(scratch.pid, folder) else None


def stop_scratch(
    folder: Path,
    *,
    timeout_s: float = 20,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """End a scratch Loki and remove its folder; answers whether it ran.

    Raises ScratchMissing, LokiLifecycleError where it does not end.
    """
    scratch = running_scratch(folder)
    if scratch is not None:
        # Nothing of it is kept, so there is nothing that it would have to write first.
        os.kill(scratch.pid, signal.SIGKILL)
        began = clock()
        while _is_ours(scratch.pid, folder):
            if clock() - began > timeout_s:
                raise LokiLifecycleError(f"the scratch Loki {scratch.pid} did not end within {timeout_s:.0f} s")
            sleep(0.02)
    shutil.rmtree(folder)
    return scratch is not None


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on at this moment."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _is_ours(pid: int, folder: Path) -> bool:
    """Whether the process is that Loki and not another that has its number since."""
    import psutil

    try:
        process = psutil.Process(pid)
        return (
            process.status() != psutil.STATUS_ZOMBIE and f"-config.file={folder / 'config.yaml'}" in process.cmdline()
        )
    except psutil.Error:
        return False
