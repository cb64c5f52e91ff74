"""The agent's memory: links, events, gaps that the registry has not taken yet, the state of a config push.

sqlite, written at once; it outlives the agent, the collector and the registry. A full disk must not stop collection, so a
write that fails is kept in memory and tried again; a file that cannot be read is moved aside, and the tree is read
instead.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import OrderedDict
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from onecollector_resources.discovery.links_model import LinkRow
from onecollector_resources.records import ContainerEvent, Gap

log = structlog.get_logger()

TABLES = """
create table if not exists links (source_id text, segment integer, body text, primary key (source_id, segment));
create table if not exists names (key text primary key, value text);
create table if not exists gaps (key text primary key, body text, sent integer default 0);
create table if not exists rejected (hash text primary key, reason text, time real);
"""
KEPT_EVENTS = 2_000


class AgentJournal:
    """Thread-safe; every method may be called while the disk is full."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._backlog: OrderedDict[tuple[str, str], tuple[str, tuple[Any, ...]]] = OrderedDict()
        self._events: list[tuple[int, ContainerEvent]] = []
        self._number = time.time_ns() // 1_000_000
        self.problem = ""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            aside = path.with_suffix(f".broken-{int(time.time())}")
            path.rename(aside)
            for extra in ("-wal", "-shm"):
                Path(f"{path}{extra}").unlink(missing_ok=True)
            log.error("journal.moved_aside", to=str(aside), error=str(error))
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=10, check_same_thread=False, isolation_level=None)
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=normal")
        db.executescript(TABLES)
        db.execute("select count(*) from links").fetchone()
        return db

    def _write(self, what: str, key: str, sql: str, values: tuple[Any, ...]) -> None:
        with self._lock:
            self._backlog.pop((what, key), None)
            try:
                self._db.execute(sql, values)
            except sqlite3.Error as error:
                if not self.problem:
                    log.error("journal.write_failed", error=str(error))
                self.problem = str(error)
                self._backlog[(what, key)] = (sql, values)

    def retry(self) -> bool:
        """Write what could not be written; True where nothing is left."""
        with self._lock:
            for key, (sql, values) in list(self._backlog.items()):
                try:
                    self._db.execute(sql, values)
                except sqlite3.Error as error:
                    self.problem = str(error)
                    return False
                del self._backlog[key]
            self.problem = ""
            return True

    def load_links(self) -> list[LinkRow]:
        """All link rows."""
        with self._lock:
            return [LinkRow(**json.loads(body)) for (body,) in self._db.execute("select body from links")]

    def save_link(self, row: LinkRow) -> None:
        """Keep a link's row."""
        sql = "insert or replace into links values (?, ?, ?)"
        self._write(
            "link", f"{row.source_id}/{row.segment}", sql, (row.source_id, row.segment, json.dumps(asdict(row)))
        )

    def forget_link(self, source_id: str, segment: int) -> None:
        """Drop a link's row."""
        self._write(
            "link",
            f"{source_id}/{segment}",
            "delete from links where source_id = ? and segment = ?",
            (source_id, segment),
        )

    def load_value(self, key: str) -> str | None:
        """A named value."""
        with self._lock:
            waiting = self._backlog.get(("value", key))
            if waiting is not None:
                # A value that is to go carries its key alone.
                return waiting[1][1] if len(waiting[1]) > 1 else None
            row = self._db.execute("select value from names where key = ?", (key,)).fetchone()
        return row[0] if row else None

    def save_value(self, key: str, value: str) -> None:
        """Keep a named value."""
        self._write("value", key, "insert or replace into names values (?, ?)", (key, value))

    def forget_value(self, key: str) -> None:
        """Drop a named value."""
        self._write("value", key, "delete from names where key = ?", (key,))

    def add_gap(self, gap: Gap) -> None:
        """Keep a gap until the registry has it."""
        body = {**asdict(gap), "started": gap.started.isoformat(), "ended": gap.ended.isoformat()}
        log.warning("gap", cause=gap.cause, service=gap.service, bytes=gap.bytes, detail=gap.detail)
        self._write("gap", gap.key, "insert or ignore into gaps (key, body) values (?, ?)", (gap.key, json.dumps(body)))

    def gaps(self, *, unsent: bool = False) -> list[Gap]:
        """All gaps, or those the registry has not got."""
        with self._lock:
            rows = self._db.execute(
                "select body from gaps where sent = 0 or ? = 0 order by rowid", (int(unsent),)
            ).fetchall()
        out = []
        for (body,) in rows:
            data = json.loads(body)
            data["started"] = datetime.fromisoformat(data["started"]).astimezone(UTC)
            data["ended"] = datetime.fromisoformat(data["ended"]).astimezone(UTC)
            out.append(Gap(**data))
        return out

    def gaps_sent(self, keys: list[str]) -> None:
        """The registry has these gaps."""
        for key in keys:
            self._write("sent", key, "update gaps set sent = 1 where key = ?", (key,))

    def reject(self, config_hash: str, reason: str) -> None:
        """Remember a config that was at fault."""
        self._write(
            "reject",
            config_hash,
            "insert or replace into rejected values (?, ?, ?)",
            (config_hash, reason, time.time()),
        )

    def forgive(self, config_hash: str) -> bool:
        """Forget a rejection; False where there is none."""
        known = config_hash in self.rejected()
        self._write("reject", config_hash, "delete from rejected where hash = ?", (config_hash,))
        return known

    def rejected(self) -> dict[str, str]:
        """Rejected hashes with reasons."""
        with self._lock:
            return dict(self._db.execute("select hash, reason from rejected").fetchall())

    def add_event(self, event: ContainerEvent) -> int:
        """Number an event; the newest are kept in memory only, because an event only says "look now"."""
        with self._lock:
            self._number += 1
            self._events.append((self._number, event))
            del self._events[:-KEPT_EVENTS]
            return self._number

    def events_after(self, number: int) -> list[tuple[int, ContainerEvent]]:
        """Events beyond a number."""
        with self._lock:
            return [pair for pair in self._events if pair[0] > number]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
