"""Loki's life on one machine: verify a config, start, stop with its data safe, restart, delete, look whether it is well.

``up`` lets a supervisor run the same command; this class runs it directly, for scratch instances and for tests.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from onecollector_resources.loki.config import OVERRIDES, LokiConfigError


class LokiLifecycleError(RuntimeError):
    """Loki did not do what was asked; the message carries the end of its log."""


def verify_config(binary: Path, config: Path, environment: Mapping[str, str] | None = None) -> None:
    """Let the binary itself check the file. Raises LokiConfigError with its words."""
    done = subprocess.run(
        [str(binary), f"-config.file={config}", "-config.expand-env=true", "-verify-config"],
        text=True,
        capture_output=True,
        timeout=120,
        env=dict(environment) if environment else None,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LokiConfigError(f"{config}: Loki refuses it: {said[-1] if said else 'no reason given'}")


STACK_FRAME = re.compile(r"\s.*|\S+\.\S+")
"""A line of a Go or Python stack, which says nothing to people."""

STACK_WITHIN = re.compile(r"\\n(?:\\t|\S+\.\S+\\n).*")
"""Loki's logger writes the stack of an error into the error's own line."""


def end_of_log(log: Path, lines: int = 3) -> str:
    """The last lines of a log without stacks, as one line."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"no log at {log}: {error.strerror}"
    said = [line for line in text.splitlines() if line.strip() and not STACK_FRAME.fullmatch(line)]
    return " | ".join(STACK_WITHIN.sub("", line)[:300] for line in said[-lines:])


@dataclass
class LokiLifecycle:
    """One Loki process. ``stop_s``: how long a graceful stop may take before it counts as failed."""

    binary: Path
    config: Path
    data_dir: Path
    http_port: int
    log: Path
    environment: Mapping[str, str] | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    detached: bool = False
    """Whether it lives on when the terminal goes that it was started from."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def pid(self) -> int | None:
        """Of the process that this object started, while it runs."""
        return self._process.pid if self._process is not None else None

    def command(self) -> list[str]:
        """The command line that a supervisor runs."""
        return [str(self.binary), f"-config.file={self.config}", "-config.expand-env=true"]

    def start(self, timeout_s: float = 120) -> float:
        """Verify, start and wait until ready; answers seconds. Raises LokiConfigError, LokiLifecycleError."""
        verify_config(self.binary, self.config, self.environment)
        began = self.clock()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=dict(self.environment) if self.environment else None,
                start_new_session=self.detached,
            )
        while not self.ready():
            if self._process.poll() is not None or self.clock() - began > timeout_s:
                code = self._process.poll()
                self.kill()
                raise LokiLifecycleError(
                    f"Loki is not ready after {self.clock() - began:.0f} s (exit {code}): {end_of_log(self.log)}"
                )
            self.sleep(0.1)
        return self.clock() - began

    def ready(self) -> bool:
        """Whether ``/ready`` says so."""
        try:
            return httpx.get(f"{self.url}/ready", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def flush(self) -> None:
        """Tell Loki to write all chunks to its store; it answers before they are there. Raises httpx.HTTPError."""
        httpx.post(f"{self.url}/flush", timeout=120).raise_for_status()

    def stop(self, timeout_s: float = 120) -> None:
        """SIGTERM: Loki writes all chunks to its store and ends. Raises LokiLifecycleError when it does not within ``timeout_s``."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise LokiLifecycleError(f"Loki did not end within {timeout_s:.0f} s; its log: {self.log}") from error
        self._process = None

    def kill(self) -> None:
        """SIGKILL: what was acknowledged is in the write-ahead log."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> float:
        """Stop and start; answers seconds until ready."""
        self.stop()
        return self.start()

    def delete_data(self, *, confirmed: bool) -> int:
        """Remove everything Loki stored (its config stays); answers bytes. Raises LokiLifecycleError when it runs or was not confirmed."""
        if not confirmed:
            raise LokiLifecycleError(f"deleting {self.data_dir} needs a confirmation: nothing was deleted")
        if self._process is not None or self.ready():
            raise LokiLifecycleError("Loki runs; stop it before its data is deleted")
        kept = (self.config, self.data_dir / OVERRIDES)
        size = sum(p.stat().st_size for p in self.data_dir.rglob("*") if p.is_file() and p not in kept)
        for path in self.data_dir.iterdir() if self.data_dir.exists() else ():
            # Config and per-tenant limits are no data: without either file Loki does not start.
            if path not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return size
