"""The registry's tables. States are closed sets with a check constraint; JSON stands only where the shape is open.

Times are UTC and stored as epoch microseconds: one integer compares alike in sqlite and PostgreSQL, and keeps the order
of events that happen within a millisecond.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

from onecollector_resources.records import CollectMode, ConfigVerdict, Flow, GapCause, Phase, SourceKind

VERSION = 2
"""Schema version that this code reads and writes."""

GAP_KEY = 200
"""Most characters of a gap's key."""

metadata = MetaData()


class UtcTime(TypeDecorator[datetime]):
    """Aware UTC datetime as epoch microseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"expected a datetime with a time zone, found {value!r}")
        return round(value.timestamp() * 1_000_000)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value / 1_000_000, UTC)


def one_of(column: str, literal: Any) -> CheckConstraint:
    """A check constraint from a closed set."""
    values = ", ".join(f"'{value}'" for value in get_args(literal))
    return CheckConstraint(f"{column} in ({values})", name=f"{column}_known")


meta = Table(
    "meta", metadata, Column("name", String(64), primary_key=True), Column("value", BigInteger, nullable=False)
)

sources = Table(
    "sources",
    metadata,
    Column("host", String(255), primary_key=True),
    Column("source_id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("safe_name", String(128), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("service", String(128), nullable=False),
    Column("service_raw", Text, nullable=False),
    Column("profile", String(32), nullable=False),
    Column("multiline", String(128)),
    Column("mode", String(8), nullable=False),
    Column("path", Text, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("first_seen", UtcTime),
    Column("last_seen", UtcTime),
    Column("ended", UtcTime),
    Column("flow", String(16), nullable=False),
    Column("flow_reason", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    one_of("kind", SourceKind),
    one_of("mode", CollectMode),
    one_of("phase", Phase),
    one_of("flow", Flow),
    Index("sources_by_service", "service"),
    Index("sources_by_phase", "phase"),
    Index("sources_by_revision", "revision"),
)

source_events = Table(
    "source_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("revision", BigInteger, nullable=False),
    Column("time", UtcTime, nullable=False),
    Column("host", String(255), nullable=False),
    Column("source_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("detail", JSON, nullable=False),
    Index("events_by_revision", "revision"),
    Index("events_by_kind", "kind", "revision"),
    Index("events_by_source", "source_id"),
    Index("events_by_time", "time"),
)

agents = Table(
    "agents",
    metadata,
    Column("host", String(255), primary_key=True),
    Column("agent_class", String(64), nullable=False),
    Column("last_seen", UtcTime, nullable=False),
    Column("effective_hash", String(64)),
    Column("desired_hash", String(64)),
    Column("health", String(16), nullable=False),
    Column("facts", JSON, nullable=False),
)

configs = Table(
    "configs",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("agent_class", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("inputs_hash", String(64), nullable=False),
    Column("pipelines", JSON, nullable=False),
    Column("quarantined", JSON, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("changed", UtcTime, nullable=False),
    one_of("verdict", ConfigVerdict),
)

rejected_configs = Table(
    "rejected_configs",
    metadata,
    Column("agent_class", String(64), primary_key=True),
    Column("hash", String(64), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("time", UtcTime, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("agent_class", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("previous_hash", String(64)),
    Column("state", String(16), nullable=False),
    Column("started", UtcTime, nullable=False),
    Column("ended", UtcTime),
    Column("detail", JSON, nullable=False),
    CheckConstraint("state in ('running', 'live', 'rejected', 'undecided')", name="rollout_state_known"),
)

gaps = Table(
    "gaps",
    metadata,
    Column("key", String(GAP_KEY), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("source_id", String(64), nullable=False),
    Column("service", String(128), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("cause", String(32), nullable=False),
    Column("started", UtcTime, nullable=False),
    Column("ended", UtcTime, nullable=False),
    Column("bytes", BigInteger),
    Column("lines", BigInteger),
    Column("detail", Text, nullable=False),
    one_of("cause", GapCause),
    Index("gaps_by_end", "ended"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", UtcTime, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("what", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", JSON),
    Column("after", JSON),
    Index("audit_by_time", "time"),
)

marks = Table(
    "marks", metadata, Column("name", String(255), primary_key=True), Column("revision", BigInteger, nullable=False)
)
