"""Sources: upsert in batches, look up, and the difference between what was known and what a host reports.

The difference is a pure function (``difference``): rows that did not change are not written and make no event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, insert, select, tuple_, update

from onecollector_resources.records import Flow, LogSource, Phase, SourceState
from onecollector_resources.registry import schema
from onecollector_resources.registry.database import Database

BATCH = 5_000
"""Rows a transaction: others wait for it, so it stays well under a second."""

TOUCH_EVERY = timedelta(minutes=1)
"""How often an unchanged source's last_seen is written."""

Key = tuple[str, str]

COLUMNS = tuple(field.name for field in fields(LogSource))
OBSERVED = tuple(c for c in COLUMNS if c not in ("first_seen", "last_seen", "flow", "flow_reason", "revision"))
"""What an agent decides; flow belongs to HealthMonitor and the times to the registry."""

FOUND_TEXTS = ("name", "service_raw", "path", "image", "reason")
"""Texts as somebody else wrote them."""

WRITTEN = tuple(c for c in COLUMNS if c != "revision")
"""What a change brings with it; the revision is the registry's."""


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a report changed: keys, and the newest revision."""

    revision: int
    appeared: tuple[Key, ...] = ()
    changed: tuple[Key, ...] = ()
    ended: tuple[Key, ...] = ()
    gone: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One row to write. ``kind`` is the event that tells of it."""

    kind: str
    before: LogSource | None
    after: LogSource


def storable(source: LogSource) -> LogSource:
    """A source as every database can keep it.

    PostgreSQL takes no NUL in a text and no database takes bytes that are not UTF-8: one label with such a character
    would keep a whole host out of the registry.
    """
    clean = {column: _clean(getattr(source, column)) for column in FOUND_TEXTS}
    return source if all(getattr(source, c) is text for c, text in clean.items()) else replace(source, **clean)


def _clean(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def difference(
    known: Mapping[Key, LogSource], reported: Iterable[LogSource], *, full: bool, now: datetime
) -> list[Change]:
    """Rows to write, with their events. With ``full`` what is known and not reported is gone."""
    changes: list[Change] = []
    seen: set[Key] = set()
    for source in reported:
        seen.add(source.key)
        before = known.get(source.key)
        if before is None:
            changes.append(
                Change("appeared", None, replace(source, first_seen=source.first_seen or now, last_seen=now))
            )
            continue
        after = replace(
            source,
            first_seen=before.first_seen,
            last_seen=now,
            flow=before.flow,
            flow_reason=before.flow_reason,
        )
        if any(getattr(before, c) != getattr(after, c) for c in OBSERVED):
            kind = "changed"
            if after.phase == "gone" and before.phase != "gone":
                kind = "gone"
            elif after.ended is not None and before.ended is None:
                kind = "ended"
            changes.append(Change(kind, before, after))
    if full:
        for key, before in known.items():
            if key not in seen and before.phase != "gone":
                after = replace(
                    before, phase="gone", mode="none", reason="no longer on the host", ended=before.ended or now
                )
                changes.append(Change("gone", before, after))
    return changes


def _values(source: LogSource, revision: int) -> dict[str, Any]:
    row = {column: getattr(source, column) for column in COLUMNS}
    row["labels"] = dict(source.labels)
    row["revision"] = revision
    return row


def as_source(row: Row[Any]) -> LogSource:
    """A row as a record."""
    return LogSource(**row._mapping)


class SourceRows(Database):
    """The part of the registry that holds sources."""

    def _write(self, connection: Connection, changes: Sequence[Change], actor: str) -> int:
        """Write changes, events and audit rows in the caller's transaction; answers the revision."""
        revision = self.next_revision(connection)
        now = self.clock()
        new = [_values(change.after, revision) for change in changes if change.before is None]
        if new:
            connection.execute(insert(schema.sources), new)
        # Only what differs is written: an index over a column that stays costs nothing then.
        by_columns: dict[tuple[str, ...], list[LogSource]] = {}
        for change in changes:
            if change.before is not None:
                columns = tuple(c for c in WRITTEN if getattr(change.before, c) != getattr(change.after, c))
                by_columns.setdefault(columns, []).append(change.after)
        for columns, rows in by_columns.items():
            self._update(connection, columns, rows, revision)
        connection.execute(insert(schema.source_events), [_event(change, revision, now) for change in changes])
        connection.execute(insert(schema.audit), [_audit(change, actor, now) for change in changes])
        return revision

    @staticmethod
    def _update(connection: Connection, columns: Sequence[str], rows: Iterable[LogSource], revision: int) -> None:
        table = schema.sources
        statement = (
            update(table)
            .where(and_(table.c.host == bindparam("k_host"), table.c.source_id == bindparam("k_id")))
            .values({column: bindparam(f"v_{column}") for column in columns} | {"revision": revision})
        )
        values = [
            {"k_host": row.host, "k_id": row.source_id}
            | {f"v_{c}": dict(row.labels) if c == "labels" else getattr(row, c) for c in columns}
            for row in rows
        ]
        connection.execute(statement, values)

    def sync_host(self, host: str, reported: Sequence[LogSource], *, actor: str, full: bool = True) -> SyncResult:
        """Take in what a host reports; with ``full`` what is missing from it is gone.

        Raises RegistryError, ValueError for a source of another host.
        """
        wrong = next((source for source in reported if source.host != host), None)
        if wrong is not None:
            raise ValueError(f"expected sources of host {host!r}, found one of {wrong.host!r}: {wrong.source_id}")
        reported = [storable(source) for source in reported]
        known = self._known(host, None if full else [source.source_id for source in reported])
        now = self.clock()
        changes = difference(known, reported, full=full, now=now)
        revision = self._apply(changes, actor)
        self._touch(host, [s.key for s in reported if s.key in known and _stale(known[s.key], now)], now)
        by_kind = {
            kind: tuple(c.after.key for c in changes if c.kind == kind)
            for kind in ("appeared", "changed", "ended", "gone")
        }
        return SyncResult(revision, **by_kind)

    def _apply(self, changes: Sequence[Change], actor: str) -> int:
        revision = 0
        for start in range(0, len(changes), BATCH):
            with self.writing() as connection:
                revision = self._write(connection, changes[start : start + BATCH], actor)
        return revision or self.revision()

    def _known(self, host: str, ids: Sequence[str] | None) -> dict[Key, LogSource]:
        table = schema.sources
        with self.reading() as connection:
            if ids is None:
                rows = connection.execute(select(table).where(table.c.host == host)).all()
            else:
                rows = []
                for start in range(0, len(ids), 500):
                    part = table.c.source_id.in_(ids[start : start + 500])
                    rows += connection.execute(select(table).where(table.c.host == host, part)).all()
        return {(row.host, row.source_id): as_source(row) for row in rows}

    def _touch(self, host: str, keys: Sequence[Key], now: datetime) -> None:
        if not keys:
            return
        table = schema.sources
        with self.writing() as connection:
            for start in range(0, len(keys), 500):
                ids = [key[1] for key in keys[start : start + 500]]
                connection.execute(
                    update(table).where(table.c.host == host, table.c.source_id.in_(ids)).values(last_seen=now)
                )

    def register_source(self, source: LogSource, *, actor: str) -> int:
        """Add or renew one source; answers the newest revision. Raises RegistryError."""
        return self.sync_host(source.host, [source], actor=actor, full=False).revision

    def update_source(self, key: Key, changes: Mapping[str, Any], *, actor: str) -> int:
        """Change named fields of a source; answers the newest revision.

        Raises KeyError for an unknown source, ValueError for an unknown field, RegistryError.
        """
        unknown = sorted(set(changes) - set(COLUMNS))
        if unknown:
            raise ValueError(f"unknown fields {unknown}; expected some of {sorted(COLUMNS)}")
        before = self.get_source(key)
        if before is None:
            raise KeyError(f"no source {key[1]} on host {key[0]}")
        after = storable(replace(before, **changes))
        if after == before:
            return self.revision()
        return self._apply([Change("changed", before, after)], actor)

    def delete_source(self, key: Key, *, actor: str) -> bool:
        """Remove a source from the registry; its history stays. False where there is none. Raises RegistryError."""
        table = schema.sources
        with self.writing() as connection:
            row = connection.execute(select(table).where(table.c.host == key[0], table.c.source_id == key[1])).first()
            if row is None:
                return False
            connection.execute(delete(table).where(table.c.host == key[0], table.c.source_id == key[1]))
            revision = self.next_revision(connection)
            self.note(connection, revision, "removed", host=key[0], source_id=key[1])
            self.record_audit(connection, actor, "source.removed", f"{key[0]}/{key[1]}", _brief(as_source(row)), None)
        return True

    def get_source(self, key: Key) -> LogSource | None:
        """One source, or None. Raises RegistryError."""
        table = schema.sources
        with self.reading() as connection:
            row = connection.execute(select(table).where(table.c.host == key[0], table.c.source_id == key[1])).first()
        return None if row is None else as_source(row)

    def lookup_sources(
        self,
        *,
        tenant: str | None = None,
        service: str | None = None,
        host: str | None = None,
        phase: Phase | None = None,
        state: SourceState | None = None,
        name: str | None = None,
        limit: int | None = None,
        after: Key | None = None,
    ) -> list[LogSource]:
        """Sources that match all that is given, ordered by key, from beyond ``after``. Raises RegistryError."""
        table = schema.sources
        query = select(table).order_by(table.c.host, table.c.source_id)
        for column, value in (
            ("tenant", tenant),
            ("service", service),
            ("host", host),
            ("phase", phase),
            ("name", name),
        ):
            if value is not None:
                query = query.where(table.c[column] == value)
        if after is not None:
            query = query.where(tuple_(table.c.host, table.c.source_id) > tuple_(*after))
        if limit is not None and state is None:
            query = query.limit(limit)
        with self.reading() as connection:
            found = [as_source(row) for row in connection.execute(query)]
        if state is not None:
            found = [source for source in found if source.state == state][:limit]
        return found

    def list_sources(self, limit: int = 200, after: Key | None = None) -> list[LogSource]:
        """A page of all sources by key; pass the last key to get the next. Raises RegistryError."""
        return self.lookup_sources(limit=limit, after=after)

    def set_flow(self, flows: Mapping[Key, tuple[Flow, str]], *, actor: str) -> int:
        """What Loki shows of sources; answers how many changed. Unchanged ones are not written. Raises RegistryError."""
        table, changed = schema.sources, 0
        with self.reading() as connection:
            now_known = {
                (row.host, row.source_id): (row.flow, row.flow_reason)
                for row in connection.execute(
                    select(table.c.host, table.c.source_id, table.c.flow, table.c.flow_reason)
                )
            }
        todo = {key: flow for key, flow in flows.items() if key in now_known and now_known[key] != flow}
        if not todo:
            return 0
        with self.writing() as connection:
            revision = self.next_revision(connection)
            for key, (flow, reason) in todo.items():
                connection.execute(
                    update(table)
                    .where(table.c.host == key[0], table.c.source_id == key[1])
                    .values(flow=flow, flow_reason=reason)
                )
                self.note(
                    connection, revision, "flow", host=key[0], source_id=key[1], detail={"flow": flow, "reason": reason}
                )
                changed += 1
            self.record_audit(connection, actor, "flow", f"{changed} sources", None, None)
        return changed

    # The names of the first design, kept as public names.
    register_log_target = register_source
    update_source_metadata = update_source
    remove_source = delete_source
    list_all_sources = list_sources


def _stale(source: LogSource, now: datetime) -> bool:
    return source.last_seen is None or now - source.last_seen > TOUCH_EVERY


def _event(change: Change, revision: int, now: datetime) -> dict[str, Any]:
    return {
        "revision": revision,
        "time": now,
        "host": change.after.host,
        "source_id": change.after.source_id,
        "kind": change.kind,
        "detail": {"schema": 1, **_brief(change.after)},
    }


def _audit(change: Change, actor: str, now: datetime) -> dict[str, Any]:
    return {
        "time": now,
        "actor": actor,
        "what": f"source.{change.kind}",
        "subject": f"{change.after.host}/{change.after.source_id}",
        "before": None if change.before is None else _brief(change.before),
        "after": _brief(change.after),
    }


def _brief(source: LogSource) -> dict[str, Any]:
    return {
        "name": source.name,
        "tenant": source.tenant,
        "service": source.service,
        "pipeline": source.pipeline,
        "mode": source.mode,
        "phase": source.phase,
        "reason": source.reason,
    }
