"""Ports of the parts on one machine: free ones are chosen once and remembered, a taken one is named with its holder.

A port that was remembered and is now held by a stranger is not silently changed: links, bookmarks and other hosts may
know it. The message says who holds it and which setting moves it.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

LOCAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LEAST = 10_240

PREFERRED: Mapping[str, int] = {
    "loki": 3100,
    "loki_grpc": 9095,
    "agent": 7610,
    "collector_health": 13133,
    "collector_metrics": 8888,
    "dagster": 3000,
    "code_server": 4000,
    "ml": 4001,
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


def held_by_strangers(
    ports: Mapping[str, int], ours: Collection[int], *, loki: bool
) -> Iterator[tuple[str, Holder | None]]:
    """Parts whose port is held by none of ``ours`` (pids), with the holder where it can be seen.

    Without ``loki`` its ports do not matter: it is somebody else's.
    """
    for part, port in ports.items():
        if is_free(port) or (part.startswith("loki") and not loki):
            continue
        holder = holder_of(port)
        if holder is None or holder.pid not in ours:
            yield part, holder


def port_pool() -> range:
    """Ports that the kernel gives to nobody by itself: one of the others may be an outgoing connection's when a part
    that was killed wants it back.
    """
    try:
        low, high = map(int, LOCAL_RANGE.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        low, high = 32_768, 60_999
    below, above = range(LEAST, low), range(high + 1, 65_536)
    return below if len(below) >= len(above) else above


def any_free_port(taken: set[int]) -> int:
    """A port that is free now and not in ``taken``; at random, so that two who choose at once hardly meet."""
    pool = port_pool()
    while True:
        port = random.choice(pool)
        if port not in taken and is_free(port):
            return port


def choose_ports(
    wanted: Mapping[str, int | None], remembered: Mapping[str, int], *, usual_first: bool = True
) -> dict[str, int]:
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
            free = usual_first and usual not in chosen.values() and is_free(usual)
            port = usual if free else any_free_port({*chosen.values(), *PREFERRED.values()})
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
