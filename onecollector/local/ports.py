"""Ports of the parts on one machine: free ones are chosen once and remembered, a taken one is named with its holder.

A port that was remembered and is now held by a stranger is not silently changed: links, bookmarks and other hosts may
know it. The message says who holds it and which setting moves it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

PREFERRED: Mapping[str, int] = {
    "loki": 3100,
    "loki_grpc": 9095,
    "agent": 7610,
    "collector_health": 13133,
    "collector_metrics": 8888,
    "dagster": 3000,
    "code_server": 4000,
}
SETTING: Mapping[str, str] = {
    "loki": "loki.port",
    "agent": "agent.port",
    "collector_health": "collector.health_port",
    "collector_metrics": "collector.metrics_port",
    "dagster": "dagster.port",
}


class PortTaken(RuntimeError):
    """A port that a part must have is held by another process."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who listens on a port."""

    pid: int | None
    command: str


def is_free(port: int) -> bool:
    """Whether a listener on loopback could be opened now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it a port whose last connections linger in TIME_WAIT would look taken to us and free to the part.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def holder_of(port: int) -> Holder | None:
    """The process that listens on the port, as far as our rights let us see."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            if connection.pid is None:
                return Holder(None, "a process of another user")
            try:
                return Holder(connection.pid, " ".join(psutil.Process(connection.pid).cmdline())[:80])
            except psutil.Error:
                return Holder(connection.pid, "?")
    return None


def any_free_port(taken: set[int]) -> int:
    """A port that is free now and not in ``taken``."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in taken:
            return port


def choose_ports(wanted: Mapping[str, int | None], remembered: Mapping[str, int]) -> dict[str, int]:
    """A port for every part of PREFERRED: the setting, else the remembered one, else the usual one if free, else any.

    Raises PortTaken where a port of the settings is held by somebody.
    """
    chosen: dict[str, int] = {}
    for part, usual in PREFERRED.items():
        fixed = wanted.get(part)
        known = remembered.get(part)
        if fixed is not None and fixed != known and not is_free(fixed):
            raise PortTaken(taken_message(part, fixed))
        port = fixed or known
        if port is None:
            port = usual if usual not in chosen.values() and is_free(usual) else any_free_port(set(chosen.values()))
        chosen[part] = port
    return chosen


def taken_message(part: str, port: int) -> str:
    """What is expected, who holds it, what to do."""
    holder = holder_of(port)
    who = "an unknown process"
    if holder is not None:
        who = f"pid {holder.pid} ({holder.command})" if holder.pid is not None else holder.command
    fix = f"set {SETTING[part]} in onecollector.yaml" if part in SETTING else "remove runtime.json in the state folder"
    return f"port {port} for {part} is held by {who}; stop it, or {fix}"
