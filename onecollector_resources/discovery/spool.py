"""Spools: a file's records copied, time first, into a file of the agent's own, where a link would not do.

The spool is its own journal. Each record carries, as ``o``, the offset in the source at which the next one begins, so
after a kill the last whole record says where to go on; a cut record at the end has no newline, was not read by anybody,
and is cut off.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import orjson

BLOCK = 1 << 20
"""Bytes read at once; one line may be longer."""


def whole_length(path: Path) -> int:
    """Bytes up to and with the last newline; 0 where there is none or no file."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    with path.open("rb") as file:
        end = size
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def last_record(path: Path, length: int) -> bytes:
    """The last whole record before ``length``."""
    if length == 0:
        return b""
    with path.open("rb") as file:
        end, tail = length - 1, b""
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            block = file.read(end - start)
            found = block.rfind(b"\n")
            if found >= 0:
                return block[found + 1 :] + tail
            tail, end = block + tail, start
    return tail


def resume(spool: Path) -> int:
    """Cut a partial record off the spool and answer the offset in the source at which to go on."""
    length = whole_length(spool)
    if spool.exists() and spool.stat().st_size != length:
        os.truncate(spool, length)
    record = last_record(spool, length)
    return int(orjson.loads(record)["o"]) if record else 0


def convert(line: bytes, framing: Literal["docker", "plain"], offset: int, now: datetime) -> bytes:
    """One source line (without its newline) as a spool record with its newline."""
    text, stream, time = None, "stdout", None
    if framing == "docker":
        try:
            parsed = orjson.loads(line)
            text, stream, time = parsed.get("log"), parsed.get("stream", "stdout"), parsed.get("time")
        except (orjson.JSONDecodeError, AttributeError):
            text = None
    if not isinstance(text, str):
        text, time = line.decode("utf-8", "replace") + "\n", None
    stamp = time if isinstance(time, str) else now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return orjson.dumps({"time": stamp, "log": text, "stream": stream, "o": offset}) + b"\n"


class FileSpool:
    """Copies one source file into one spool. Not thread-safe: one thread pumps all spools."""

    def __init__(self, source: Path, spool: Path, framing: Literal["docker", "plain"]) -> None:
        self.source, self.spool = source, spool
        self.framing: Literal["docker", "plain"] = framing
        spool.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.offset = resume(spool)
        self._in = source.open("rb")

    @property
    def inode(self) -> tuple[int, int]:
        """(device, inode) of the source as it was opened."""
        stat = os.fstat(self._in.fileno())
        return (stat.st_dev, stat.st_ino)

    def pump(self, now: datetime, *, final: bool = False) -> int:
        """Copy what is new, whole lines only (with ``final`` the rest, too); answers the number of records."""
        copied = 0
        if os.fstat(self._in.fileno()).st_size < self.offset:
            # Truncated in place: what it holds now is new.
            self.offset = 0
        with self.spool.open("ab") as out:
            while True:
                self._in.seek(self.offset)
                block = self._in.read(BLOCK)
                while block and b"\n" not in block and len(block) % BLOCK == 0:
                    more = self._in.read(BLOCK)
                    if not more:
                        break
                    block += more
                end, whole = block.rfind(b"\n") + 1, self.offset + len(block)
                if end == 0 and not (final and block):
                    return copied
                if end == 0:
                    block, end = block + b"\n", len(block) + 1
                records = []
                position = self.offset
                for line in block[:end].split(b"\n")[:-1]:
                    # The newline that a rest lacks is no byte of the source: beyond its end it would look truncated.
                    position = min(position + len(line) + 1, whole)
                    records.append(convert(line, self.framing, position, now))
                out.write(b"".join(records))
                out.flush()
                self.offset = position
                copied += len(records)

    def behind(self) -> int:
        """Bytes of the source that are not copied yet. Raises OSError."""
        return max(0, os.fstat(self._in.fileno()).st_size - self.offset)

    def close(self) -> None:
        """Let go of the source."""
        self._in.close()
