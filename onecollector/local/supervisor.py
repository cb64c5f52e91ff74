"""supervisord under a generated config: it owns the processes of one machine, and nothing else does.

The collector is started by a run script that writes its pid and then *becomes* the collector, so that the agent can
kill it and supervisord starts it again at once (``startsecs=0``: a quick death is no reason to wait longer).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shlex
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from onecollector.local.ending import wait_ended
from onecollector_resources.layout import StateLayout

MARK = "OC_STATE_OF"
"""Variable that every process of ours carries: how `down` finds what a killed supervisord left behind."""

MAX_SOCKET = 90
"""Bytes: a Unix socket's path may have 107, and supervisord appends a suffix of its own while it binds."""


class SupervisorError(RuntimeError):
    """supervisord could not be started or asked."""


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_wait_s: int = 20
    restart_at_once: bool = False
    priority: int = 100


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What supervisord says of a program."""

    name: str
    state: str
    pid: int
    started: float
    log: str
    message: str


def socket_path(layout: StateLayout) -> Path:
    """The control socket: in the state folder, or where that path is too long in a folder of our own under /tmp."""
    inside = layout.supervisor / "s.sock"
    if len(os.fsencode(inside)) <= MAX_SOCKET:
        return inside
    digest = hashlib.sha256(os.fsencode(layout.root)).hexdigest()[:12]
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return base / f"onecollector-{os.getuid()}-{digest}" / "s.sock"


def _escaped(value: str) -> str:
    # supervisord expands %(...)s in every value.
    return value.replace("%", "%%")


def render_config(layout: StateLayout, programs: Sequence[Program]) -> str:
    """supervisord.conf: byte-identical for equal input."""
    sock = socket_path(layout)
    lines = [
        "[unix_http_server]",
        f"file={sock}",
        "chmod=0700",
        "",
        "[supervisord]",
        f"logfile={layout.logs / 'supervisord.log'}",
        "logfile_maxbytes=5MB",
        "logfile_backups=1",
        f"pidfile={layout.supervisor / 'pid'}",
        f"childlogdir={layout.logs}",
        "umask=077",
        "nocleanup=true",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        "",
        "[supervisorctl]",
        f"serverurl=unix://{sock}",
        "",
    ]
    for program in programs:
        environment = {**program.environment, MARK: str(layout.root)}
        pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted(environment.items()))
        lines += [
            f"[program:{program.name}]",
            f"command={_escaped(shlex.join(program.command))}",
            f"environment={pairs}",
            f"directory={layout.root}",
            "autostart=true",
            "autorestart=true",
            f"startsecs={0 if program.restart_at_once else 1}",
            "startretries=1000000",
            f"stopsignal={program.stop_signal}",
            f"stopwaitsecs={program.stop_wait_s}",
            "killasgroup=true",
            f"priority={program.priority}",
            "redirect_stderr=true",
            f"stdout_logfile={layout.logs / (program.name + '.log')}",
            "stdout_logfile_maxbytes=20MB",
            "stdout_logfile_backups=2",
            "",
        ]
    return "\n".join(lines)


class Supervisor:
    """Client of one state folder's supervisord."""

    def __init__(self, layout: StateLayout) -> None:
        self.layout = layout
        self.config = layout.supervisor / "supervisord.conf"

    def _call(self, method: str, *args: Any) -> Any:
        # A transport of its own for each call: one that failed once stays in the middle of its request.
        transport = SupervisorTransport(None, None, f"unix://{socket_path(self.layout)}")
        try:
            server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
            return getattr(server.supervisor, method)(*args)
        except xmlrpc.client.Fault as fault:
            raise SupervisorError(f"supervisord: {method}: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise SupervisorError(f"supervisord does not answer at {socket_path(self.layout)}: {error}") from error
        finally:
            transport.close()

    def alive(self) -> bool:
        """Whether supervisord answers."""
        try:
            return self._call("getState")["statename"] == "RUNNING"
        except SupervisorError:
            return False

    def write_config(self, programs: Sequence[Program]) -> bool:
        """Write supervisord.conf; True where it changed."""
        text = render_config(self.layout, programs)
        for folder in (self.layout.supervisor, self.layout.logs, socket_path(self.layout).parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.config.exists() and self.config.read_text(encoding="utf-8") == text:
            return False
        # Environment values may hold secrets.
        self.config.touch(mode=0o600)
        self.config.write_text(text, encoding="utf-8")
        return True

    def start(self, timeout_s: float = 60) -> None:
        """Start supervisord. Raises SupervisorError with the end of its log."""
        environment = {**os.environ, MARK: str(self.layout.root)}
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.config)],
            env=environment,
            text=True,
            capture_output=True,
            cwd=self.layout.root,
        )
        end = time.monotonic() + timeout_s
        while done.returncode == 0 and time.monotonic() < end:
            if self.alive():
                return
            time.sleep(0.05)
        raise SupervisorError(
            f"supervisord did not start: {(done.stderr or done.stdout).strip()[-500:]}; its log: {self.layout.logs / 'supervisord.log'}"
        )

    def update(self) -> list[str]:
        """Take in a changed config: stop what left or changed, start what is new. Answers the names touched."""
        added, changed, removed = self._call("reloadConfig")[0]
        for name in (*removed, *changed):
            self._call("stopProcessGroup", name)
            self._call("removeProcessGroup", name)
        for name in (*added, *changed):
            self._call("addProcessGroup", name)
        return sorted({*added, *changed, *removed})

    def heal(self) -> list[str]:
        """Start what is not running; answers the names."""
        dead = [info.name for info in self.processes() if info.state in ("STOPPED", "EXITED", "FATAL", "UNKNOWN")]
        for name in dead:
            self._call("startProcess", name, False)
        return dead

    def processes(self) -> list[ProcessInfo]:
        """All programs; empty where supervisord does not run."""
        if not self.alive():
            return []
        return [
            ProcessInfo(
                row["name"],
                row["statename"],
                int(row["pid"]),
                float(row["start"]),
                row["stdout_logfile"],
                row["spawnerr"] or row["description"],
            )
            for row in self._call("getAllProcessInfo")
        ]

    def restart(self, name: str) -> None:
        """Stop and start one program. Raises SupervisorError for an unknown name."""
        try:
            self._call("stopProcess", name, True)
        except SupervisorError as error:
            if "NOT_RUNNING" not in str(error):
                raise
        self._call("startProcess", name, False)

    def stop(self, name: str) -> None:
        """Stop one program."""
        self._call("stopProcess", name, True)

    def shutdown(self, timeout_s: float = 60) -> None:
        """Stop all programs and supervisord itself."""
        if not self.alive():
            return
        pid = int(self._call("getPID"))
        self._call("shutdown")
        # It stops answering at once and its programs one after the other: only its own end says that all have ended.
        with contextlib.suppress(psutil.NoSuchProcess):
            wait_ended([psutil.Process(pid)], timeout_s)
