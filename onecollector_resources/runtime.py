"""What ``up`` chose on this machine: ports, addresses and binaries, in ``<state>/runtime.json``.

Settings say what is wanted; this says what is so. The agent, the code location and the command line read it, only
``up`` writes it, and ports once chosen stay.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from onecollector_resources.collector.login import login_environment
from onecollector_resources.layout import StateLayout
from onecollector_resources.settings import LokiSettings


class RuntimeMissing(RuntimeError):
    """``onecollector up`` has not run yet on this state folder."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Addresses are URLs on loopback, binaries absolute paths; an empty string means: not there."""

    loki_url: str
    loki_port: int
    loki_grpc_port: int
    agent_port: int
    collector_health_port: int
    collector_metrics_port: int
    dagster_port: int
    code_server_port: int
    docker_host: str
    """As in $DOCKER_HOST; empty where no engine is used."""
    docker_links: str
    """Link tree inside Docker's root directory ($OC_DOCKER_LINKS); empty where containers are spooled."""
    docker_containers: str
    """Docker's folder of container folders; empty where containers are spooled."""
    collector_binary: str
    loki_binary: str
    backfill_from_ns: int = 0
    """Older lines are left out ($OC_BACKFILL_FROM_NS); 0: none."""
    ml_port: int = 0
    """Of the code server of the location ``ml``; 0 where none was chosen yet."""

    @property
    def ports(self) -> dict[str, int]:
        """The port of each part that listens."""
        return {
            "loki": self.loki_port,
            "loki_grpc": self.loki_grpc_port,
            "agent": self.agent_port,
            "collector_health": self.collector_health_port,
            "collector_metrics": self.collector_metrics_port,
            "dagster": self.dagster_port,
            "code_server": self.code_server_port,
            **({"ml": self.ml_port} if self.ml_port else {}),
        }

    @property
    def agent_url(self) -> str:
        return f"http://127.0.0.1:{self.agent_port}"

    @property
    def dagster_url(self) -> str:
        return f"http://127.0.0.1:{self.dagster_port}"

    @property
    def collector_health_url(self) -> str:
        return f"http://127.0.0.1:{self.collector_health_port}/"

    @property
    def collector_metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.collector_metrics_port}/metrics"


def runtime_file(layout: StateLayout) -> Path:
    """Where the runtime of a state folder is kept."""
    return layout.root / "runtime.json"


def load_runtime(layout: StateLayout) -> Runtime:
    """Read it. Raises RuntimeMissing where ``up`` never ran or the file is of another version."""
    path = runtime_file(layout)
    try:
        return Runtime(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RuntimeMissing(f"{path} is not there: nothing was started yet; run: onecollector up") from None
    except (ValueError, TypeError) as error:
        raise RuntimeMissing(f"{path} cannot be used ({error}); run: onecollector up") from error


def save_runtime(layout: StateLayout, runtime: Runtime) -> None:
    """Write it atomically."""
    path = runtime_file(layout)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(asdict(runtime), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(beside, path)


def collector_environment(
    layout: StateLayout, runtime: Runtime, *, host: str, environment: str, loki: LokiSettings | None = None
) -> dict[str, str]:
    """The variables a rendered collector config refers to; one config text serves every host of a class.

    No secrets: those of ``login_secrets`` reach the collector alone. ``loki`` says how that Loki is reached; None: openly.
    """
    return {
        "OC_STATE": str(layout.collector),
        "OC_DOCKER_LINKS": runtime.docker_links or str(layout.root / "no-docker-links"),
        "OC_FILE_LINKS": str(layout.file_links),
        "OC_LOKI_URL": runtime.loki_url,
        "OC_HOST": host,
        "OC_ENV": environment,
        "OC_HEALTH_ENDPOINT": f"127.0.0.1:{runtime.collector_health_port}",
        "OC_METRICS_HOST": "127.0.0.1",
        "OC_METRICS_PORT": str(runtime.collector_metrics_port),
        "OC_BACKFILL_FROM_NS": str(runtime.backfill_from_ns),
        **(login_environment(loki) if loki else {}),
    }
