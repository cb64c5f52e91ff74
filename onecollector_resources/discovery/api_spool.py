"""Spools over the engine's log API, for containers whose driver keeps no file that could be linked.

The engine's time of the last whole record in the spool says where to go on after a kill; records of that very time that
are in the spool already are skipped by count, because the API's ``since`` includes them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import orjson

from onecollector_resources.discovery.spool import BLOCK, whole_length

ROTATE_BYTES = 64 << 20
"""A spool file is closed at this size and the next segment begun, so that delivered ones can go."""

STREAMS = {0: "stdout", 1: "stdout", 2: "stderr"}


class LogApi(Protocol):
    """The one call that is needed of an engine."""

    def follow_logs(self, container_id: str, since: str) -> Iterator[bytes]:
        """Raw bytes of the multiplexed log stream from ``since`` (seconds.nanoseconds) on, until the container ends."""
        ...


def frames(chunks: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """(stream, payload) out of the engine's frames: type, three zeros, big-endian length, payload."""
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= 8:
            size = int.from_bytes(buffer[4:8], "big")
            if len(buffer) < 8 + size:
                break
            yield STREAMS.get(buffer[0], "stdout"), buffer[8 : 8 + size]
            buffer = buffer[8 + size :]


def resume_point(spool: Path) -> tuple[str, int]:
    """(time of the last record, how many of the last records have it); cuts a partial record off. ("", 0) for none."""
    length = whole_length(spool) if spool.exists() else 0
    if not length:
        return "", 0
    if spool.stat().st_size != length:
        os.truncate(spool, length)
    with spool.open("rb") as file:
        file.seek(max(0, length - BLOCK))
        lines = file.read(length).split(b"\n")[:-1]
    last, count = "", 0
    for line in reversed(lines):
        try:
            time = orjson.loads(line)["time"]
        except orjson.JSONDecodeError:
            # The first of the block, cut at its front.
            break
        if last and time != last:
            break
        last, count = time, count + 1
    return last, count


def since_of(time: str) -> str:
    """An RFC 3339 time as the API's ``since``: seconds and nine digits."""
    from onecollector_resources.discovery.identity import parse_time

    parsed = parse_time(time)
    if parsed is None:
        return "0"
    fraction = time.split(".")[1].rstrip("Z").split("+")[0][:9].ljust(9, "0") if "." in time else "000000000"
    return f"{int(parsed.timestamp())}.{fraction}"


class ApiSpool:
    """Follows one container in a thread of its own. ``next_file`` gives the path of the next segment.

    Where nothing was copied yet it begins behind ``followed``, which is how far earlier files go (``resume_point``), else
    at ``from_ns``.
    """

    def __init__(
        self,
        container_id: str,
        api: LogApi,
        first: Path,
        next_file: Callable[[], Path],
        from_ns: int = 0,
        followed: tuple[str, int] = ("", 0),
    ) -> None:
        self.container_id, self._api, self._path, self._next = container_id, api, first, next_file
        self._from = f"{from_ns // 10**9}.{from_ns % 10**9:09d}" if from_ns else "0"
        self._followed = followed
        self.ended = threading.Event()
        self.problem = ""
        self._stop = threading.Event()
        first.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._thread = threading.Thread(target=self._run, name=f"spool-{container_id[:12]}", daemon=True)

    def start(self) -> None:
        """Start following."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; the thread ends with its next chunk or with the process."""
        self._stop.set()

    def alive(self) -> bool:
        """Whether it still follows."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            last, skip = resume_point(self._path)
            if not last:
                last, skip = self._followed
            source = frames(self._api.follow_logs(self.container_id, since_of(last) if last else self._from))
            out: Any = self._path.open("ab")
            try:
                for stream, payload in source:
                    if self._stop.is_set():
                        return
                    stamp, _, text = payload.decode("utf-8", "replace").partition(" ")
                    if last:
                        if stamp == last and skip > 0:
                            skip -= 1
                            continue
                        if stamp < last and len(stamp) == len(last):
                            continue
                    out.write(orjson.dumps({"time": stamp, "log": text, "stream": stream}) + b"\n")
                    out.flush()
                    if out.tell() > ROTATE_BYTES:
                        out.close()
                        self._path = self._next()
                        out = self._path.open("ab")
            finally:
                out.close()
            self.ended.set()
        except (OSError, RuntimeError, ValueError) as error:
            # The keeper starts a new follower at its next look; the problem is shown until then.
            self.problem = f"{type(error).__name__}: {error}"
