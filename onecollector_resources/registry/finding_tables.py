"""Tables of findings: what was found, which findings belong together, and what of them is still to be sent.

A message to be sent is a row beside its finding, written in the same transaction and sent later: what was found is never
sent twice under two names, and never forgotten by a process that ends in between.
"""

from __future__ import annotations

from sqlalchemy import JSON, Column, Float, Index, Integer, String, Table, Text, UniqueConstraint

from onecollector_resources.findings.records import (
    Announcement,
    Channel,
    DeliveryKind,
    DeliveryState,
    FindingState,
    Judgement,
    Severity,
)
from onecollector_resources.registry.schema import UtcTime, metadata, one_of

FINDING_TABLES = ("findings", "incidents", "notices", "finding_deliveries")

findings = Table(
    "findings",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("key", String(64), nullable=False, unique=True),
    Column("tenant", String(128), nullable=False),
    Column("service", String(255), nullable=False),
    Column("model_id", String(128), nullable=False),
    Column("incident", String(64), nullable=False),
    Column("first", UtcTime, nullable=False),
    Column("last", UtcTime, nullable=False),
    Column("peak", UtcTime, nullable=False),
    Column("window_first", UtcTime, nullable=False),
    Column("window_last", UtcTime, nullable=False),
    Column("signal", String(32), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("p", Float, nullable=False),
    Column("a_day", Float, nullable=False),
    Column("weight", Float, nullable=False),
    Column("budget", Float, nullable=False),
    Column("observed", Float, nullable=False),
    Column("expected", Float, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("query", Text, nullable=False),
    Column("templates", JSON, nullable=False),
    Column("unchanged", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("announcement", String(16), nullable=False),
    Column("opened", UtcTime, nullable=False),
    Column("changed", UtcTime, nullable=False),
    Column("judgement", String(16), nullable=False),
    Column("judged_by", String(128), nullable=False),
    Column("judged_at", UtcTime),
    Column("note", Text, nullable=False),
    one_of("severity", Severity),
    one_of("state", FindingState),
    one_of("announcement", Announcement),
    one_of("judgement", Judgement),
    Index("findings_by_state", "tenant", "state"),
    Index("findings_by_opened", "tenant", "opened"),
    Index("findings_by_last", "last"),
    Index("findings_by_incident", "incident"),
    # A number that somebody wrote down is never another finding's.
    sqlite_autoincrement=True,
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("key", String(64), nullable=False, unique=True),
    Column("tenant", String(128), nullable=False),
    Column("first", UtcTime, nullable=False),
    Column("last", UtcTime, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("investigated", UtcTime),
    Index("incidents_by_last", "last"),
    sqlite_autoincrement=True,
)

notices = Table(
    "notices",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(128), nullable=False),
    Column("service", String(255), nullable=False),
    Column("first", UtcTime, nullable=False),
    Column("templates", Integer, nullable=False),
    UniqueConstraint("tenant", "service", "first", name="notices_once"),
    Index("notices_by_first", "tenant", "first"),
)

finding_deliveries = Table(
    "finding_deliveries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("key", String(64), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("channel", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt", UtcTime, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("last_error", Text, nullable=False),
    one_of("channel", Channel),
    one_of("kind", DeliveryKind),
    one_of("state", DeliveryState),
    UniqueConstraint("key", "channel", "kind", name="deliveries_once"),
    Index("deliveries_by_due", "channel", "state", "next_attempt"),
)
