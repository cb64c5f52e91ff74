"""The collector of this host: put a config in place, kill it, see it live again, take the config back.

The collector is never asked to stop, it is killed, and its supervisor starts it again: a graceful stop while Loki refuses
lines loses some, a kill does not. The order of writes makes a kill of the agent at any point harmless: the state that
says "unconfirmed" is journaled before the file changes, and the last good file is only replaced by a confirmed one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import structlog

from onecollector.agent.commit_confirm import ConfigState, confirmed, from_json, overdue, pushed, taken_back
from onecollector.agent.disk_watch import free_bytes
from onecollector.agent.journal import AgentJournal
from onecollector_resources.collector.in_force import live_pipelines
from onecollector_resources.collector.lines import told
from onecollector_resources.collector.metrics import queued_bytes
from onecollector_resources.collector.probe import Probe, write_probes
from onecollector_resources.collector.rules import check_rules
from onecollector_resources.collector.validate import CollectorBinaryError, validate_with_binary
from onecollector_resources.layout import StateLayout

log = structlog.get_logger()

KEY = "config.state"
START_S = 6.0
"""A collector starts in a tenth of a second to one second; one that has told an error and is not there by now does not."""
SLOW_START_S = 30.0
"""One that tells nothing may be on a machine that is busy with something else; later than this it does not start."""

STEADY_S = 0.5
"""Health must hold this long: a process that dies at once may answer once."""

WORLD = re.compile(
    r"address already in use|permission denied|no space left|too many open files|cannot assign requested address|connection refused|timeout",
    re.IGNORECASE,
)
"""Words of a start that failed for the host's sake, not for the text's."""


class PushRefused(RuntimeError):
    """A push that did not go live. ``verdict`` is rejected, undecided or busy."""

    def __init__(self, verdict: Literal["rejected", "undecided", "busy"], reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.verdict, self.reasons = verdict, reasons


@dataclass
class CollectorControl:
    """See the module's text. Calls are serialised; a second push meanwhile is refused as busy."""

    layout: StateLayout
    binary: Path
    environment: Mapping[str, str]
    health_url: str
    metrics_url: str
    journal: AgentJournal
    log_path: Path
    min_free_bytes: int = 0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.state: ConfigState = from_json(self.journal.load_value(KEY))
        self.since = 0.0
        # Plain HTTP on loopback: without a certificate store, which costs megabytes and milliseconds.
        self._http = httpx.Client(verify=False, timeout=2)

    # -- facts

    def effective(self) -> str:
        """The text of the active config; empty where there is none."""
        try:
            return self.layout.active_config.read_text(encoding="utf-8")
        except OSError:
            return ""

    @staticmethod
    def hash_of(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def pid(self) -> int | None:
        """The collector's pid, if that process really is our collector."""
        try:
            pid = int(self.layout.collector_pid.read_text(encoding="utf-8"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self.layout.active_config).encode() in command else None

    def healthy(self) -> bool:
        """Whether ``health_check`` says so."""
        try:
            return self._http.get(self.health_url, timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    def queued(self) -> dict[str, int]:
        """Bytes that wait in each tenant's queue; empty where the collector does not tell."""
        try:
            return queued_bytes(self._http.get(self.metrics_url).text)
        except httpx.HTTPError:
            return {}

    def pipelines(self) -> frozenset[tuple[str, str]]:
        """What the active config collects."""
        return live_pipelines(self.effective())

    def lacks_room(self) -> str:
        """Why the collector waits for room on its disk; empty where it has enough."""
        free = free_bytes(self.layout.collector)
        if free is None or free >= self.min_free_bytes:
            return ""
        return (
            f"no space left: {free >> 20} MiB free in {self.layout.collector}, {self.min_free_bytes >> 20} are needed"
        )

    # -- actions

    def pause_where_full(self) -> None:
        """Kill a collector whose disk has no room: its start waits for some, and what is not read yet stays where it is."""
        reason = self.lacks_room()
        pid = self.pid() if reason else None
        if pid is not None:
            log.warning("collector.paused", reason=reason)
            os.kill(pid, signal.SIGKILL)

    def recover(self) -> None:
        """After a start of the agent: finish what a kill interrupted."""
        if self.state.state != "unconfirmed":
            return
        active = self.hash_of(self.effective())
        if active != self.state.hash and self.layout.last_good_config.exists():
            # Killed between the journal and the rename: the file never changed.
            self._save(
                taken_back(self.state, active, "undecided", "the agent was killed before the config was in place")
            )
            return
        self.expire(force=overdue(self.state, self.clock()))

    def expire(self, *, force: bool = False) -> bool:
        """Take back a config that was not confirmed in time; True where one was."""
        if not force and not overdue(self.state, self.clock()):
            return False
        with self._lock:
            if self.state.state != "unconfirmed":
                return False
            self._take_back("undecided", "not confirmed in time")
            return True

    def push(self, text: str, config_hash: str, confirm_within_s: float) -> dict[str, Any]:
        """Check, put in place, restart, write probes. Raises PushRefused; then the config before is live again."""
        if not self._lock.acquire(blocking=False):
            raise PushRefused("busy", ["another push is under way; try again in some seconds"])
        try:
            return self._push(text, config_hash, confirm_within_s)
        finally:
            self._lock.release()

    def _push(self, text: str, config_hash: str, confirm_within_s: float) -> dict[str, Any]:
        if self.hash_of(text) != config_hash:
            raise PushRefused("rejected", [f"expected the hash {self.hash_of(text)} of this text, found {config_hash}"])
        if self.state.state == "unconfirmed":
            raise PushRefused("busy", [f"config {self.state.hash} waits to be confirmed"])
        if self.hash_of(self.effective()) == config_hash:
            return {"state": "unchanged", "hash": config_hash, "pid": self.pid(), "probes": []}
        remembered = self.journal.rejected().get(config_hash)
        if remembered is not None:
            raise PushRefused("rejected", [f"rejected before: {remembered}"])
        if reason := self.lacks_room():
            raise PushRefused("undecided", [reason])
        began = self.clock()
        try:
            findings = [f for f in check_rules(text) if f.level == "error"] or list(
                validate_with_binary(text, self.binary, self.environment)
            )
        except CollectorBinaryError as error:
            raise PushRefused("undecided", [str(error)]) from error
        if findings:
            reasons = [told(finding, text) for finding in findings]
            self.journal.reject(config_hash, reasons[0])
            raise PushRefused("rejected", reasons)
        checked = self.clock()
        if not self.layout.last_good_config.exists():
            _write_durably(self.layout.last_good_config, self.effective())
        self._save(pushed(self.clock(), config_hash, confirm_within_s))
        try:
            _write_durably(self.layout.active_config, text)
            self.restart()
        except (OSError, StartFailed) as error:
            reason = str(error)
            verdict: Literal["rejected", "undecided"] = (
                "undecided" if isinstance(error, OSError) or WORLD.search(reason) else "rejected"
            )
            self._take_back(verdict, reason)
            raise PushRefused(verdict, [reason]) from error
        # The time to confirm begins when there is something to look at.
        self._save(pushed(self.clock(), config_hash, confirm_within_s))
        probes = self.probe(live_pipelines(text))
        return {
            "state": "unconfirmed",
            "hash": config_hash,
            "pid": self.pid(),
            "probes": probes,
            "checked_s": checked - began,
            "restarted_s": self.clock() - checked,
        }

    def restart(self) -> int:
        """Kill the collector and wait until another is healthy; answers its pid. Raises StartFailed."""
        before, offset = self.pid(), _size(self.log_path)
        if before is not None:
            os.kill(before, signal.SIGKILL)
        began, steady = self.clock(), 0.0
        while (took := self.clock() - began) < SLOW_START_S:
            if took >= START_S and (self.lacks_room() or _gave_up(self.log_path, offset)):
                break
            now_pid = self.pid()
            if now_pid is not None and now_pid != before and self.healthy():
                steady = steady or self.clock()
                if self.clock() - steady >= STEADY_S:
                    self.since = self.clock()
                    return now_pid
            else:
                steady = 0.0
            self.sleep(0.05)
        raise StartFailed(f"the collector does not start: {self.lacks_room() or _why(self.log_path, offset)}")

    def reload(self) -> int:
        """Restart with the config that is in place. Raises StartFailed, PushRefused while a push is under way."""
        if not self._lock.acquire(blocking=False):
            raise PushRefused("busy", ["a push is under way"])
        try:
            return self.restart()
        finally:
            self._lock.release()

    def confirm(self, config_hash: str) -> bool:
        """The pusher has seen the probes: this config is the last good one. False where it is not the one in place."""
        with self._lock:
            after = confirmed(self.state, config_hash)
            if after is None:
                return self.state.state == "confirmed" and self.state.hash == config_hash
            _write_durably(self.layout.last_good_config, self.effective())
            self._save(after)
            log.info("config.confirmed", hash=config_hash)
            return True

    def roll_back(self, config_hash: str, verdict: Literal["rejected", "undecided"], reason: str) -> bool:
        """The pusher did not see the probes. Also tells what became of a config that went back by itself."""
        with self._lock:
            if self.state.state == "unconfirmed" and self.state.hash == config_hash:
                self._take_back(verdict, reason)
                return True
            if self.state.last_hash == config_hash and verdict == "rejected":
                self.journal.reject(config_hash, reason)
                self._save(taken_back(ConfigState(hash=config_hash), self.state.hash, verdict, reason))
                return True
            return False

    def probe(self, pipelines: frozenset[tuple[str, str]] | None = None) -> list[Probe]:
        """Write a probe into each pipeline, of all that are live by default. Raises OSError."""
        active = self.effective()
        wanted = live_pipelines(active) if pipelines is None else pipelines
        return write_probes(self.layout.file_links, wanted, self.hash_of(active), self.clock)

    def _take_back(self, verdict: Literal["rejected", "undecided"], reason: str) -> None:
        good = self.layout.last_good_config.read_text(encoding="utf-8")
        failed = self.state.hash
        _write_durably(self.layout.active_config, good)
        if verdict == "rejected":
            self.journal.reject(failed, reason)
        log.warning("config.taken_back", hash=failed, verdict=verdict, reason=reason)
        try:
            self.restart()
        except StartFailed as error:
            # The supervisor goes on trying; the last good file is in place, which is all that can be done here.
            log.error("collector.last_good_does_not_start", error=str(error))
        self._save(taken_back(self.state, self.hash_of(good), verdict, reason))

    def _save(self, state: ConfigState) -> None:
        self.state = state
        self.journal.save_value(KEY, state.to_json())


class StartFailed(RuntimeError):
    """The collector was started and did not become healthy; the message carries the line of its log that says why."""


def _write_durably(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _written(path: Path, offset: int) -> str:
    """What the log got since it had ``offset`` bytes. Raises OSError."""
    with path.open("rb") as file:
        file.seek(offset if _size(path) >= offset else 0)
        return file.read().decode("utf-8", "replace")


def _gave_up(path: Path, offset: int) -> bool:
    """Whether the collector has told since ``offset`` that it does not start."""
    with contextlib.suppress(OSError):
        return re.search(r"^Error:", _written(path, offset), re.MULTILINE) is not None
    return False


def _why(path: Path, offset: int) -> str:
    """The line of the collector's log, written since ``offset``, that names the fault."""
    try:
        lines = _written(path, offset).splitlines()
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"
    told = [line for line in lines if re.search(r'^Error:|"level":"error"|cannot|failed', line)]
    return (told or lines or ["its log is empty"])[-1][:500]
