"""A whole OneCollector of one's own for benchmarks and fault tests: private state folder, private engine, free ports.

Everything goes through the command line and the public files (``runtime.json``, the registry, Loki's API), so what is
measured is what a user has. The stack is taken down and its folder removed also when the body fails.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from onecollector.local.engine import DEMO_IMAGE, import_demo_image
from onecollector_resources.layout import StateLayout
from onecollector_resources.runtime import Runtime, load_runtime

IMAGE = f"{DEMO_IMAGE}:latest"


def wait_until(what: str, condition: Callable[[], Any], deadline_s: float, every_s: float = 0.02) -> Any:
    """The condition's first truthy value. Raises TimeoutError naming what was waited for.

    A server that does not answer, or not yet as it should, and a process that has ended meanwhile are waited for, too: at
    the deadline their error is the cause.
    """
    end = time.monotonic() + deadline_s
    while True:
        trouble: Exception | None = None
        try:
            value = condition()
        except (httpx.HTTPError, psutil.NoSuchProcess) as error:
            value, trouble = None, error
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s:.0f} s: {what}") from trouble
        time.sleep(every_s)


@dataclass
class Stack:
    """A running stack."""

    state: Path
    env: dict[str, str]
    runtime: Runtime

    def __post_init__(self) -> None:
        import docker

        self.layout = StateLayout(self.state)
        self.registry_file = self.layout.registry_db
        self.http = httpx.Client(timeout=60)
        self.docker: Any = docker.DockerClient(base_url=self.runtime.docker_host) if self.runtime.docker_host else None
        if self.docker is not None:
            import_demo_image(self.docker.api)

    def cli(self, *args: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run ``onecollector ARGS`` on this stack."""
        done = subprocess.run(
            [sys.executable, "-m", "onecollector.cli.main", *args],
            env=self.env,
            text=True,
            capture_output=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"onecollector {' '.join(args)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def run(
        self,
        script: str,
        *,
        service: str,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        remove: bool = False,
        log_config: Mapping[str, Any] | None = None,
    ) -> Any:
        """``docker run -d`` of ``sh -c script``; answers the container."""
        import docker.types

        return self.docker.containers.run(
            IMAGE,
            ["/bin/sh", "-c", script],
            detach=True,
            network_mode="none",
            remove=remove,
            name=name,
            labels={"onecollector.io/service": service, **(labels or {})},
            log_config=docker.types.LogConfig(**log_config) if log_config else None,
        )

    def loki(self, path: str, tenant: str = "default", **params: Any) -> Any:
        """GET a Loki API path; the ``data`` of its answer."""
        answer = self.http.get(
            f"{self.runtime.loki_url}{path}",
            params=params,
            headers={"X-Scope-OrgID": tenant, "X-Loki-Response-Encoding-Flags": "categorize-labels"},
        )
        answer.raise_for_status()
        return answer.json()["data"]

    def first_line(self, selector: str, since_s: float = 3600, tenant: str = "default") -> bool:
        """Whether any line of the selector is queryable."""
        now = time.time_ns()
        data = self.loki(
            "/loki/api/v1/query_range",
            tenant,
            query=selector,
            start=now - int(since_s * 1e9),
            end=now + int(5e9),
            limit=1,
        )
        return bool(data["result"])

    def rows(
        self, selector: str, since_s: float = 7200, tenant: str = "default", ahead_s: float = 60
    ) -> list[tuple[int, str, str]]:
        """All rows as (time ns, line, container id/segment/record number), in order; exact, by overlapping pages."""
        start, end = time.time_ns() - int(since_s * 1e9), time.time_ns() + int(ahead_s * 1e9)
        limit, seen, out = 20_000, set[tuple[int, str, str]](), []
        while True:
            data = self.loki(
                "/loki/api/v1/query_range",
                tenant,
                query=selector,
                start=start,
                end=end,
                limit=limit,
                direction="forward",
            )
            page = []
            for stream in data["result"]:
                for stamp, line, extra in stream["values"]:
                    meta = extra.get("structuredMetadata", {})
                    ident = "/".join(meta.get(k, "") for k in ("container_id", "log_segment", "log_file_record_number"))
                    page.append((int(stamp), line, ident))
            page.sort()
            fresh = [row for row in page if row not in seen]
            out.extend(fresh)
            if len(page) < limit:
                return out
            if not fresh:
                raise RuntimeError(f"more than {limit} rows at one instant of {selector}")
            start, seen = page[-1][0], {row for row in page if row[0] == page[-1][0]}

    def registry(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        """Rows of a read-only statement on the registry file."""
        import sqlite3

        with sqlite3.connect(f"file:{self.registry_file}?mode=ro", uri=True, timeout=10) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql, params)]

    def agent(self, path: str) -> Any:
        """GET a path of the agent's API."""
        token = self.layout.agent_token.read_text(encoding="utf-8").strip()
        answer = self.http.get(f"{self.runtime.agent_url}{path}", headers={"Authorization": f"Bearer {token}"})
        answer.raise_for_status()
        return answer.json()

    def pid(self, part: str) -> int:
        """Pid of a part, as ``status`` says once it runs: between its end and its next start it has none."""

        def running() -> int:
            rows = json.loads(self.cli("status", "--json", check=False).stdout)["parts"]
            return next((int(row["pid"]) for row in rows if row["part"] == part), 0)

        return wait_until(f"{part} to run", running, 120, 0.2)


@contextmanager
def private_stack(
    settings: Mapping[str, Any] | None = None, before_up: Callable[[StateLayout], None] | None = None
) -> Iterator[Stack]:
    """``onecollector up`` on a fresh state folder with an engine of its own; ``down`` and removal at the end.

    ``before_up`` may prepare the state folder, such as put a part of it on another disk.
    """
    state = Path(tempfile.mkdtemp(prefix="oc-", dir=os.environ.get("ONECOLLECTOR_BENCH_DIR")))
    config = state / "onecollector.yaml"
    merged: dict[str, Any] = {"usual_ports": False, "docker": {"own_engine": "always"}, **(settings or {})}
    merged["state_dir"] = str(state / "s")
    config.write_text(yaml.safe_dump(merged), encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ONECOLLECTOR_STATE", "DAGSTER_", "DOCKER_HOST"))}
    env["ONECOLLECTOR_CONFIG"] = str(config)
    command = [sys.executable, "-m", "onecollector.cli.main"]
    try:
        if before_up is not None:
            (state / "s").mkdir()
            before_up(StateLayout(state / "s"))
        up = subprocess.run([*command, "up"], env=env, text=True, capture_output=True, timeout=500)
        if up.returncode != 0:
            raise RuntimeError(f"onecollector up: exit {up.returncode}\n{up.stdout}\n{up.stderr}")
        stack = Stack(state / "s", env, load_runtime(StateLayout(state / "s")))
        try:
            yield stack
        finally:
            stack.http.close()
            if stack.docker is not None:
                import docker.errors

                for container in stack.docker.containers.list(all=True, ignore_removed=True):
                    # One that removes itself may be gone, or on its way.
                    with suppress(docker.errors.APIError):
                        container.remove(force=True)
                stack.docker.close()
    finally:
        subprocess.run([*command, "down"], env=env, text=True, capture_output=True, timeout=300)
        shutil.rmtree(state, ignore_errors=True)


def unique(name: str) -> str:
    """A service name that no other run uses."""
    return f"{name}-{uuid.uuid4().hex[:8]}"
