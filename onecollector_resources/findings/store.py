"""FindingStore: findings, incidents and judgements in the registry's database, and messages about them on their way.

A finding, its incident and the messages about it are one transaction, so a process that is killed leaves all of it or
nothing, and whoever finds the same minute again finds the row that is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from onecollector_resources.findings.delivery_rows import DeliveryRows
from onecollector_resources.findings.message import held_back_message, message, storable, template_of, template_row
from onecollector_resources.findings.records import (
    Announcement,
    Channel,
    DeliveryKind,
    Finding,
    FindingState,
    Incident,
    Judged,
    Judgement,
    Notice,
    StoredFinding,
)
from onecollector_resources.registry.database import Database
from onecollector_resources.registry.finding_tables import finding_deliveries, findings, incidents, notices

HOUR = timedelta(hours=1)
FIXED = ("key", "tenant", "service", "incident", "first")
"""What of a finding stays when it goes on."""


class UnknownFinding(LookupError):
    """There is no finding of that number or key."""


class FindingStore(DeliveryRows):
    """A FindingLedger in the registry's database. ``channels`` are where findings are sent.

    ``LogSourceRegistry.migrate()`` once before the first use; every method raises RegistryError.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        channels: Collection[Channel] = ("webhook", "loki"),
    ) -> None:
        super().__init__(Database(url, clock))
        self.channels = tuple(channels)

    def open(self, finding: Finding, announcement: Announcement = "sent") -> StoredFinding:
        """Keep it with its incident, and messages about it. One that is there by its key is left as it is.

        A finding beyond the cap (``held_back``) goes to Loki, where it wakes nobody, and to no webhook.
        """
        now = self.database.clock()
        with self.database.writing() as connection:
            there = self._row(connection, findings.c.key == finding.key)
            if there is not None:
                return there
            values = _values(finding) | {
                "state": "open",
                "announcement": announcement,
                "opened": now,
                "changed": now,
                "judgement": "none",
                "judged_by": "",
                "note": "",
            }
            connection.execute(insert(findings).values(values))
            self._join(connection, finding)
            stored = self._row(connection, findings.c.key == finding.key)
            assert stored is not None
            self._announce(connection, stored, "opened", now)
        return stored

    def extend(self, finding: Finding) -> StoredFinding:
        """What it is by now. One that was closed or judged keeps that. Raises UnknownFinding."""
        values = {name: value for name, value in _values(finding).items() if name not in FIXED}
        with self.database.writing() as connection:
            done = connection.execute(
                update(findings)
                .where(findings.c.key == finding.key)
                .values(values | {"changed": self.database.clock()})
            )
            stored = self._row(connection, findings.c.key == finding.key) if done.rowcount else None
            if stored is None:
                raise UnknownFinding(f"expected a finding of key {finding.key} to extend, found none; open it first")
            self._join(connection, stored.finding)
        return stored

    def close(self, tenant: str, last_before: datetime) -> int:
        """Close the tenant's open findings whose last minute is before that; answers how many."""
        now = self.database.clock()
        old = (findings.c.tenant == tenant, findings.c.state == "open", findings.c.last < last_before)
        with self.database.writing() as connection:
            closing = [_stored(row) for row in connection.execute(select(findings).where(*old))]
            if closing:
                connection.execute(update(findings).where(*old).values(state="closed", changed=now))
            for stored in closing:
                self._announce(connection, stored, "closed", now)
        return len(closing)

    def disconnect(self) -> None:
        """Close pooled connections; ``close`` is a word for findings here."""
        self.database.close()

    def open_findings(self, tenant: str) -> Sequence[StoredFinding]:
        """Open ones, oldest first."""
        query = select(findings).where(findings.c.tenant == tenant, findings.c.state == "open")
        with self.database.reading() as connection:
            return [_stored(row) for row in connection.execute(query.order_by(findings.c.first, findings.c.number))]

    def announced_since(self, tenant: str, since: datetime) -> int:
        """Findings opened since then that were sent."""
        query = select(findings.c.number).where(
            findings.c.tenant == tenant, findings.c.opened >= since, findings.c.announcement == "sent"
        )
        with self.database.reading() as connection:
            return len(connection.execute(query).all())

    def unconfirmed_since(self, tenant: str, since: datetime) -> list[tuple[str, datetime]]:
        """Service and first minute of each finding from then on that nobody confirmed."""
        query = select(findings.c.service, findings.c.first).where(
            findings.c.tenant == tenant, findings.c.first >= since, findings.c.judgement != "confirmed"
        )
        with self.database.reading() as connection:
            return [(row.service, row.first) for row in connection.execute(query).all()]

    def held_back(self, tenant: str, hour: datetime, findings: int) -> None:
        """How many findings of that hour, in all, were kept but not sent: one message, sent when the hour is over."""
        if "webhook" not in self.channels:
            return
        table, now = finding_deliveries, self.database.clock()
        key = hashlib.sha256(f"held back {tenant} {hour:%Y-%m-%dT%H}".encode()).hexdigest()
        where = (table.c.key == key, table.c.channel == "webhook", table.c.kind == "held_back")
        with self.database.writing() as connection:
            there = connection.execute(select(table).where(*where)).first()
            if there is None:
                payload = held_back_message(tenant, hour, findings)
                self._enqueue(connection, key, tenant, "webhook", "held_back", payload, now, hour + HOUR)
            elif there.state == "pending" and there.attempts == 0 and there.payload["findings"] < findings:
                # What was tried may have arrived: it stays as it was.
                connection.execute(
                    update(table).where(*where).values(payload=held_back_message(tenant, hour, findings))
                )

    def notice(self, notice: Notice) -> None:
        """Keep a deploy or a restart; the same one again is left as it is."""
        table = notices
        same = (table.c.tenant == notice.tenant, table.c.service == notice.service, table.c.first == notice.first)
        with self.database.writing() as connection:
            if connection.execute(select(table.c.id).where(*same)).first() is None:
                connection.execute(
                    insert(table).values(
                        tenant=notice.tenant, service=notice.service, first=notice.first, templates=notice.templates
                    )
                )

    def notices(self, tenant: str, since: datetime, until: datetime) -> list[Notice]:
        """Deploys and restarts of the tenant that began in [since, until], oldest first."""
        table = notices
        inside = (table.c.tenant == tenant, table.c.first >= since, table.c.first <= until)
        with self.database.reading() as connection:
            rows = connection.execute(select(table).where(*inside).order_by(table.c.first, table.c.id)).all()
        return [Notice(row.tenant, row.service, row.first, row.templates) for row in rows]

    def find(
        self,
        tenant: str | None = None,
        service: str | None = None,
        since: datetime | None = None,
        state: FindingState | None = None,
        judgement: Judgement | None = None,
        limit: int = 50,
        until: datetime | None = None,
    ) -> list[StoredFinding]:
        """Findings, newest first, that lasted until ``since`` or later and began by ``until``."""
        query = select(findings).order_by(findings.c.first.desc(), findings.c.number.desc()).limit(limit)
        for column, value in (("tenant", tenant), ("service", service), ("state", state), ("judgement", judgement)):
            if value is not None:
                query = query.where(findings.c[column] == value)
        if since is not None:
            query = query.where(findings.c.last >= since)
        if until is not None:
            query = query.where(findings.c.first <= until)
        with self.database.reading() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def by_number(self, number: int) -> StoredFinding:
        """Raises UnknownFinding."""
        with self.database.reading() as connection:
            stored = self._row(connection, findings.c.number == number) if abs(number) < 2**31 else None
        if stored is None:
            raise UnknownFinding(f"no finding has the number {number}; look: onecollector findings list")
        return stored

    def judge(self, number: int, judgement: Judgement, actor: str, note: str = "") -> StoredFinding:
        """What a person says of it, on record; said again, the last word counts. Raises UnknownFinding."""
        before = self.by_number(number)
        values = {
            "judgement": judgement,
            "judged_by": actor[:128],
            "judged_at": self.database.clock(),
            "note": storable(note),
        }
        with self.database.writing() as connection:
            connection.execute(update(findings).where(findings.c.number == number).values(values))
            self.database.record_audit(
                connection,
                actor[:128],
                f"finding.{judgement}",
                f"{before.finding.tenant}/{before.finding.service}/{number}",
                {"judgement": before.judgement, "note": before.note},
                {"judgement": judgement, "note": storable(note)},
            )
            after = self._row(connection, findings.c.number == number)
        assert after is not None
        return after

    def judged(self, tenant: str, since_minute: int) -> Sequence[Judged]:
        """Findings that somebody confirmed or dismissed, from a minute since 1970 on, oldest first."""
        since = datetime.fromtimestamp(since_minute * 60, UTC)
        query = select(findings).where(
            findings.c.tenant == tenant, findings.c.judgement != "none", findings.c.first >= since
        )
        with self.database.reading() as connection:
            rows = connection.execute(query.order_by(findings.c.first, findings.c.number)).all()
        return [Judged(row.service, _minute(row.first), _minute(row.last), row.judgement, row.weight) for row in rows]

    def incidents_after(self, number: int, limit: int = 100) -> list[Incident]:
        """Incidents beyond a number, oldest first."""
        query = select(incidents).where(incidents.c.id > number).order_by(incidents.c.id).limit(limit)
        with self.database.reading() as connection:
            return [self._incident(connection, row) for row in connection.execute(query).all()]

    def incident(self, key: str) -> Incident | None:
        """An incident by its key."""
        with self.database.reading() as connection:
            row = connection.execute(select(incidents).where(incidents.c.key == key)).first()
            return None if row is None else self._incident(connection, row)

    def of_incident(self, key: str) -> list[StoredFinding]:
        """An incident's findings, oldest first."""
        query = select(findings).where(findings.c.incident == key).order_by(findings.c.first, findings.c.number)
        with self.database.reading() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def add_evidence(self, key: str, evidence: Mapping[str, Any]) -> None:
        """What an investigation collected, in place of what an earlier one did. Raises UnknownFinding."""
        with self.database.writing() as connection:
            done = connection.execute(
                update(incidents)
                .where(incidents.c.key == key)
                .values(evidence=storable(evidence), investigated=self.database.clock())
            )
            if not done.rowcount:
                raise UnknownFinding(f"expected an incident of key {key}, found none")

    def forget(self, older_than: datetime) -> int:
        """Remove closed findings, incidents, notices and messages from before then; answers the number of rows.

        What a person judged goes, too: by then the days that it is about are not learned from any more.
        """
        statements = (
            delete(findings).where(findings.c.state == "closed", findings.c.last < older_than),
            delete(incidents).where(incidents.c.last < older_than, incidents.c.key.not_in(select(findings.c.incident))),
            delete(notices).where(notices.c.first < older_than),
            delete(finding_deliveries).where(finding_deliveries.c.created < older_than),
        )
        removed = 0
        for statement in statements:
            with self.database.writing() as connection:
                removed += connection.execute(statement).rowcount
        return removed

    def _announce(self, connection: Connection, stored: StoredFinding, kind: DeliveryKind, now: datetime) -> None:
        for channel in self.channels:
            if channel == "loki" or stored.announcement == "sent":
                found = stored.finding
                self._enqueue(connection, found.key, found.tenant, channel, kind, message(stored, kind), now, now)

    @staticmethod
    def _join(connection: Connection, finding: Finding) -> None:
        """The incident spans its findings."""
        same = incidents.c.key == finding.incident
        there = connection.execute(select(incidents.c.first, incidents.c.last).where(same)).first()
        if there is None:
            connection.execute(
                insert(incidents).values(
                    key=finding.incident, tenant=finding.tenant, first=finding.first, last=finding.last, evidence={}
                )
            )
        elif finding.first < there.first or finding.last > there.last:
            span = {"first": min(finding.first, there.first), "last": max(finding.last, there.last)}
            connection.execute(update(incidents).where(same).values(span))

    @staticmethod
    def _row(connection: Connection, where: Any) -> StoredFinding | None:
        row = connection.execute(select(findings).where(where)).first()
        return None if row is None else _stored(row)

    @staticmethod
    def _incident(connection: Connection, row: Row[Any]) -> Incident:
        members = connection.execute(
            select(findings.c.number, findings.c.service)
            .where(findings.c.incident == row.key)
            .order_by(findings.c.first, findings.c.number)
        ).all()
        return Incident(
            row.key,
            row.tenant,
            row.first,
            row.last,
            tuple(dict.fromkeys(one.service for one in members)),
            tuple(one.number for one in members),
            row.evidence,
            row.id,
        )


def _values(finding: Finding) -> dict[str, Any]:
    plain = {field.name: getattr(finding, field.name) for field in fields(Finding)}
    clean = {name: value if isinstance(value, datetime) else storable(value) for name, value in plain.items()}
    return clean | {"templates": [template_row(one) for one in finding.templates]}


def _stored(row: Row[Any]) -> StoredFinding:
    values = {field.name: getattr(row, field.name) for field in fields(Finding)}
    values |= {
        "templates": tuple(template_of(one) for one in row.templates),
        "unchanged": tuple(row.unchanged),
    }
    return StoredFinding(
        row.number,
        Finding(**values),
        row.state,
        row.announcement,
        row.opened,
        row.changed,
        row.judgement,
        row.judged_by,
        row.judged_at,
        row.note,
    )


def _minute(time: datetime) -> int:
    return int(time.timestamp()) // 60
