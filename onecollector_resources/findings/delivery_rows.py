"""Messages about findings that are on their way: which are due, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from onecollector_resources.findings.message import storable
from onecollector_resources.findings.records import Channel, Delivery, DeliveryKind
from onecollector_resources.registry.database import Database
from onecollector_resources.registry.finding_tables import finding_deliveries

MOST_ERROR = 500
"""Characters of a reason that are kept."""


class DeliveryRows:
    """The part of the store that holds messages. ``database`` is the registry's."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def due(self, channel: Channel, now: datetime, limit: int = 100) -> list[Delivery]:
        """Messages to be sent now, oldest first; nothing of a finding before it is known that it opened."""
        table, earlier = finding_deliveries, finding_deliveries.alias()
        waiting = select(earlier.c.id).where(
            earlier.c.key == table.c.key,
            earlier.c.channel == table.c.channel,
            earlier.c.state == "pending",
            earlier.c.id < table.c.id,
        )
        query = (
            select(table)
            .where(table.c.channel == channel, table.c.state == "pending", table.c.next_attempt <= now)
            .where(~waiting.exists())
            .order_by(table.c.next_attempt, table.c.id)
            .limit(limit)
        )
        with self.database.reading() as connection:
            return [_delivery(row) for row in connection.execute(query)]

    def deliveries(self, key: str) -> list[Delivery]:
        """All messages about a finding, oldest first."""
        table = finding_deliveries
        with self.database.reading() as connection:
            rows = connection.execute(select(table).where(table.c.key == key).order_by(table.c.id)).all()
        return [_delivery(row) for row in rows]

    def sent(self, delivery: Delivery) -> None:
        """It arrived."""
        self._settle(delivery, state="sent", attempts=delivery.attempts + 1, last_error="")

    def refused(self, delivery: Delivery, reason: str) -> None:
        """It will not be tried again; the reason stays."""
        self._settle(
            delivery, state="refused", attempts=delivery.attempts + 1, last_error=storable(reason)[:MOST_ERROR]
        )

    def try_again(self, delivery: Delivery, at: datetime, reason: str) -> None:
        """It did not arrive; it is due again then."""
        self._settle(
            delivery, next_attempt=at, attempts=delivery.attempts + 1, last_error=storable(reason)[:MOST_ERROR]
        )

    def hold(self, channel: Channel, until: datetime, tenant: str | None = None) -> None:
        """Nothing of the channel is due before then; ``tenant``: nothing of that one in the channel."""
        table = finding_deliveries
        mine = table.c.channel == channel
        if tenant is not None:
            mine &= table.c.tenant == tenant
        with self.database.writing() as connection:
            connection.execute(
                update(table)
                .where(mine, table.c.state == "pending", table.c.next_attempt < until)
                .values(next_attempt=until)
            )

    def _settle(self, delivery: Delivery, **values: Any) -> None:
        table = finding_deliveries
        with self.database.writing() as connection:
            connection.execute(
                update(table).where(table.c.id == delivery.id, table.c.state == "pending").values(values)
            )

    @staticmethod
    def _enqueue(
        connection: Connection,
        key: str,
        tenant: str,
        channel: Channel,
        kind: DeliveryKind,
        payload: Mapping[str, Any],
        now: datetime,
        at: datetime,
    ) -> None:
        connection.execute(
            insert(finding_deliveries).values(
                key=key,
                tenant=tenant,
                channel=channel,
                kind=kind,
                payload=payload,
                state="pending",
                attempts=0,
                next_attempt=at,
                created=now,
                last_error="",
            )
        )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**{field.name: getattr(row, field.name) for field in fields(Delivery)})
