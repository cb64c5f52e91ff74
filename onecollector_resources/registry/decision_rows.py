"""What was decided and what was lost: configs and verdicts, rollouts, agents, gaps, marks, audit, pruning."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update

from onecollector_resources.records import CollectorConfig, ConfigVerdict, Gap, Quarantined, SourceEvent
from onecollector_resources.registry import schema
from onecollector_resources.registry.database import Database


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """A config with what was decided about it."""

    config: CollectorConfig
    verdict: ConfigVerdict
    reasons: tuple[str, ...]
    changed: datetime


@dataclass(frozen=True, slots=True)
class Rollout:
    """One attempt to make a config live. ``state``: running, live, rejected, undecided."""

    id: int
    agent_class: str
    hash: str
    previous_hash: str | None
    state: str
    started: datetime
    ended: datetime | None
    detail: Mapping[str, Any]


class DecisionRows(Database):
    """The part of the registry that holds decisions."""

    def record_event(self, kind: str, detail: Mapping[str, Any], *, actor: str, host: str = "") -> int:
        """Append an event of no source in particular; answers its revision. Raises RegistryError."""
        with self.writing() as connection:
            revision = self.next_revision(connection)
            self.note(connection, revision, kind, host=host, detail=detail)
            self.record_audit(connection, actor, kind, host, None, dict(detail))
        return revision

    def events_after(self, revision: int, limit: int = 1000, kinds: Collection[str] | None = None) -> list[SourceEvent]:
        """Events beyond a revision, oldest first. Raises RegistryError."""
        table = schema.source_events
        query = select(table).where(table.c.revision > revision).order_by(table.c.revision, table.c.id).limit(limit)
        if kinds is not None:
            query = query.where(table.c.kind.in_(list(kinds)))
        with self.reading() as connection:
            rows = connection.execute(query).all()
        return [SourceEvent(r.revision, r.time, r.host, r.source_id, r.kind, r.detail) for r in rows]

    def record_config(
        self, config: CollectorConfig, verdict: ConfigVerdict, reasons: Sequence[str] = (), *, actor: str
    ) -> None:
        """Keep a config by its hash; one that is known keeps its verdict. Raises RegistryError."""
        table, now = schema.configs, self.clock()
        with self.writing() as connection:
            if connection.scalar(select(table.c.hash).where(table.c.hash == config.hash)) is not None:
                return
            connection.execute(
                insert(table).values(
                    hash=config.hash,
                    agent_class=config.agent_class,
                    text=config.text,
                    inputs_hash=config.inputs_hash,
                    pipelines=[list(pair) for pair in config.pipelines],
                    quarantined=[[q.tenant, q.fragment, q.reason] for q in config.quarantined],
                    verdict=verdict,
                    reasons=list(reasons),
                    created=now,
                    changed=now,
                )
            )
            self.note(
                connection, self.next_revision(connection), "config", detail={"hash": config.hash, "verdict": verdict}
            )
            self.record_audit(connection, actor, "config.built", config.hash, None, {"verdict": verdict})

    def set_config_verdict(
        self, config_hash: str, verdict: ConfigVerdict, reasons: Sequence[str] = (), *, actor: str
    ) -> None:
        """Change a verdict; ``live`` takes it from the one that was live before. Raises KeyError, RegistryError."""
        table, now = schema.configs, self.clock()
        with self.writing() as connection:
            row = connection.execute(select(table).where(table.c.hash == config_hash)).first()
            if row is None:
                raise KeyError(f"no config {config_hash}")
            if verdict == "live":
                connection.execute(
                    update(table)
                    .where(
                        table.c.agent_class == row.agent_class, table.c.verdict == "live", table.c.hash != config_hash
                    )
                    .values(verdict="valid", changed=now)
                )
            connection.execute(
                update(table)
                .where(table.c.hash == config_hash)
                .values(verdict=verdict, reasons=list(reasons), changed=now)
            )
            self.note(
                connection, self.next_revision(connection), "config", detail={"hash": config_hash, "verdict": verdict}
            )
            self.record_audit(
                connection,
                actor,
                "config.verdict",
                config_hash,
                {"verdict": row.verdict},
                {"verdict": verdict, "reasons": list(reasons)},
            )

    def get_config(self, config_hash: str) -> StoredConfig | None:
        """A config by its hash. Raises RegistryError."""
        return self._config(schema.configs.c.hash == config_hash)

    def live_config(self, agent_class: str = "default") -> StoredConfig | None:
        """The config that was last confirmed live. Raises RegistryError."""
        table = schema.configs
        return self._config((table.c.agent_class == agent_class) & (table.c.verdict == "live"))

    def _config(self, where: Any) -> StoredConfig | None:
        with self.reading() as connection:
            row = connection.execute(select(schema.configs).where(where)).first()
        if row is None:
            return None
        config = CollectorConfig(
            row.hash,
            row.text,
            row.agent_class,
            row.inputs_hash,
            tuple((t, p) for t, p in row.pipelines),
            tuple(Quarantined(*parts) for parts in row.quarantined),
        )
        return StoredConfig(config, row.verdict, tuple(row.reasons), row.changed)

    def reject_config(self, agent_class: str, config_hash: str, reason: str, *, actor: str) -> None:
        """Remember that a config was at fault. Raises RegistryError."""
        table = schema.rejected_configs
        with self.writing() as connection:
            connection.execute(delete(table).where(table.c.agent_class == agent_class, table.c.hash == config_hash))
            connection.execute(
                insert(table).values(agent_class=agent_class, hash=config_hash, reason=reason, time=self.clock())
            )
            self.record_audit(connection, actor, "config.rejected", config_hash, None, {"reason": reason})

    def rejected_configs(self, agent_class: str = "default") -> dict[str, str]:
        """Rejected hashes with their reasons. Raises RegistryError."""
        table = schema.rejected_configs
        with self.reading() as connection:
            rows = connection.execute(select(table).where(table.c.agent_class == agent_class)).all()
        return {row.hash: row.reason for row in rows}

    def forgive_config(self, agent_class: str, config_hash: str, *, actor: str) -> bool:
        """Forget a rejection; False where there is none. Wakes the sensors, so that it is offered again. Raises RegistryError."""
        table = schema.rejected_configs
        with self.writing() as connection:
            done = connection.execute(
                delete(table).where(table.c.agent_class == agent_class, table.c.hash == config_hash)
            )
            if not done.rowcount:
                return False
            self.note(connection, self.next_revision(connection), "policy", detail={"forgiven": config_hash})
            self.record_audit(connection, actor, "config.forgiven", config_hash, None, None)
        return True

    def record_agent(
        self,
        host: str,
        *,
        agent_class: str = "default",
        health: str = "unknown",
        effective_hash: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """What an agent says of itself; bumps no revision. Raises RegistryError."""
        table = schema.agents
        values = {
            "agent_class": agent_class,
            "last_seen": self.clock(),
            "effective_hash": effective_hash,
            "health": health,
            "facts": dict(facts or {}),
        }
        with self.writing() as connection:
            if not connection.execute(update(table).where(table.c.host == host).values(**values)).rowcount:
                connection.execute(insert(table).values(host=host, **values))

    def agents(self) -> list[dict[str, Any]]:
        """All agents. Raises RegistryError."""
        with self.reading() as connection:
            return [
                dict(row._mapping) for row in connection.execute(select(schema.agents).order_by(schema.agents.c.host))
            ]

    def record_rollout(self, agent_class: str, config_hash: str, previous_hash: str | None, *, actor: str) -> int:
        """Open a rollout; answers its id. Raises RegistryError."""
        with self.writing() as connection:
            result = connection.execute(
                insert(schema.rollouts).values(
                    agent_class=agent_class,
                    hash=config_hash,
                    previous_hash=previous_hash,
                    state="running",
                    started=self.clock(),
                    detail={},
                )
            )
            key = result.inserted_primary_key
            assert key is not None
            self.note(connection, self.next_revision(connection), "rollout", detail={"id": key[0], "hash": config_hash})
            self.record_audit(connection, actor, "rollout.started", config_hash, previous_hash, None)
        return int(key[0])

    def update_rollout(self, rollout_id: int, *, state: str, detail: Mapping[str, Any], actor: str) -> None:
        """Write a step or the end of a rollout. Raises RegistryError."""
        table = schema.rollouts
        ended = self.clock() if state != "running" else None
        with self.writing() as connection:
            connection.execute(
                update(table).where(table.c.id == rollout_id).values(state=state, detail=dict(detail), ended=ended)
            )
            self.record_audit(connection, actor, f"rollout.{state}", str(rollout_id), None, dict(detail))

    def rollouts(self, limit: int = 50, state: str | None = None) -> list[Rollout]:
        """Rollouts, newest first. Raises RegistryError."""
        table = schema.rollouts
        query = select(table).order_by(table.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(table.c.state == state)
        with self.reading() as connection:
            return [Rollout(**row._mapping) for row in connection.execute(query)]

    def record_gaps(self, gaps: Sequence[Gap], *, actor: str) -> int:
        """Keep gaps; one whose key is known is not kept twice. Answers how many are new. Raises RegistryError."""
        if not gaps:
            return 0
        table = schema.gaps
        with self.writing() as connection:
            known = set(connection.scalars(select(table.c.key).where(table.c.key.in_([gap_key(gap) for gap in gaps]))))
            fresh = {gap_key(gap): gap for gap in gaps if gap_key(gap) not in known}
            if not fresh:
                return 0
            names = [field.name for field in fields(Gap) if field.name != "key"]
            connection.execute(
                insert(table),
                [{"key": key} | {name: getattr(gap, name) for name in names} for key, gap in fresh.items()],
            )
            revision = self.next_revision(connection)
            for gap in fresh.values():
                self.note(
                    connection,
                    revision,
                    "gap",
                    host=gap.host,
                    source_id=gap.source_id,
                    detail={"cause": gap.cause, "lines": gap.lines},
                )
            self.record_audit(connection, actor, "gaps", f"{len(fresh)} gaps", None, None)
        return len(fresh)

    def list_gaps(self, since: datetime | None = None, source_id: str | None = None, limit: int = 1000) -> list[Gap]:
        """Gaps that ended at or after ``since``, newest first. Raises RegistryError."""
        table = schema.gaps
        query = select(table).order_by(table.c.ended.desc()).limit(limit)
        if since is not None:
            query = query.where(table.c.ended >= since)
        if source_id is not None:
            query = query.where(table.c.source_id == source_id)
        with self.reading() as connection:
            return [Gap(**row._mapping) for row in connection.execute(query)]

    def get_mark(self, name: str) -> int:
        """A remembered revision, 0 where there is none. Raises RegistryError."""
        with self.reading() as connection:
            return int(connection.scalar(select(schema.marks.c.revision).where(schema.marks.c.name == name)) or 0)

    def set_mark(self, name: str, revision: int) -> None:
        """Remember a revision; bumps none. Raises RegistryError."""
        table = schema.marks
        with self.writing() as connection:
            if not connection.execute(update(table).where(table.c.name == name).values(revision=revision)).rowcount:
                connection.execute(insert(table).values(name=name, revision=revision))

    def audit_rows(self, limit: int = 100, after: int = 0) -> list[dict[str, Any]]:
        """Audit rows beyond an id, oldest first. Raises RegistryError."""
        table = schema.audit
        with self.reading() as connection:
            rows = connection.execute(select(table).where(table.c.id > after).order_by(table.c.id).limit(limit))
            return [dict(row._mapping) for row in rows]

    def prune(self, older_than: datetime) -> int:
        """Remove history, audit rows, gaps, ended rollouts and sources that are gone, from before ``older_than``.

        Answers the number of rows. Raises RegistryError.
        """
        events, audit, gaps, rollouts, sources = (
            schema.source_events,
            schema.audit,
            schema.gaps,
            schema.rollouts,
            schema.sources,
        )
        statements = (
            delete(events).where(events.c.time < older_than),
            delete(audit).where(audit.c.time < older_than),
            delete(gaps).where(gaps.c.ended < older_than),
            delete(rollouts).where(rollouts.c.ended < older_than),
            delete(sources).where(sources.c.phase == "gone", sources.c.ended < older_than),
        )
        removed = 0
        for statement in statements:
            with self.writing() as connection:
                removed += connection.execute(statement).rowcount
        return removed


def gap_key(gap: Gap) -> str:
    """The key under which a gap is kept: its own, else what makes it this gap."""
    key = gap.key or f"{gap.host}/{gap.source_id}/{gap.cause}/{int(gap.started.timestamp() * 1000)}"
    # sqlite keeps what is longer than its column, PostgreSQL refuses it; a folder's name in a key can be that long.
    return key if len(key) <= schema.GAP_KEY else hashlib.sha256(key.encode()).hexdigest()
