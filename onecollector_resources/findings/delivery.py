"""Messages about findings on their way out: what is due is sent, oldest first, and what comes back decides about it.

A message is marked as sent after it arrived, so a process that ends in between sends it again; receivers tell by the
idempotency key (webhook) or by the same line at the same nanosecond (Loki). Each channel has its own queue, in Loki each
tenant: one that does not answer holds itself up, and nothing else.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from onecollector_resources.findings.delivery_rows import DeliveryRows
from onecollector_resources.findings.records import Channel, Delivery

log = logging.getLogger(__name__)

FIRST_S, LONGEST_S = 2.0, 300.0
"""Seconds until the second attempt, doubled for each that follows, and at most."""
HELD_S = 60.0
"""A receiver that does not answer is asked once in so many seconds at most."""
BY_TENANT: tuple[Channel, ...] = ("loki",)
"""Channels in which each tenant has a receiver of its own, with its own login and limits."""
GIVEN_UP = timedelta(hours=24)
AT_ONCE = 100
SPAN_S = 5.0
"""Nothing new is begun after this long: the caller has a minute to score."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """It is there."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It will never be taken as it is."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """It may be taken later, after ``after_s`` seconds at the earliest where the receiver said so.

    ``away``: not this message but its receiver is at fault, so others need not be tried now.
    """

    reason: str
    after_s: float = 0.0
    away: bool = False


Outcome = Arrived | Refused | Later


class Sender(Protocol):
    """One way out."""

    @property
    def channel(self) -> Channel: ...

    def send(self, delivery: Delivery) -> Outcome:
        """Send it and say what came of it; raises nothing that the network did."""
        ...


def wait_s(attempts: int, after_s: float, chance: float) -> float:
    """Seconds until the next attempt after so many that failed; ``chance`` in [0, 1) spreads them over half the time."""
    backoff = min(LONGEST_S, FIRST_S * 2.0 ** min(attempts - 1, 20))
    return max(after_s, backoff * (0.75 + 0.5 * chance))


def deliver_due(
    store: DeliveryRows,
    senders: Sequence[Sender],
    now: datetime,
    *,
    chance: Callable[[], float] = random.random,
    monotonic: Callable[[], float] = time.monotonic,
) -> int:
    """Send what is due; answers how many messages arrived. Takes about ``SPAN_S`` at most. Raises RegistryError."""
    return sum(_deliver(store, sender, now, chance, monotonic) for sender in senders)


def _deliver(
    store: DeliveryRows, sender: Sender, now: datetime, chance: Callable[[], float], monotonic: Callable[[], float]
) -> int:
    arrived, began = 0, monotonic()
    away: set[str] = set()
    for delivery in store.due(sender.channel, now, AT_ONCE):
        if monotonic() - began > SPAN_S:
            break
        if delivery.tenant in away:
            continue
        outcome = _outcome(sender, delivery)
        if isinstance(outcome, Arrived):
            store.sent(delivery)
            arrived += 1
        elif isinstance(outcome, Refused):
            log.warning("%s refuses the message about %s: %s", sender.channel, delivery.key, outcome.reason)
            store.refused(delivery, outcome.reason)
        else:
            _put_off(store, delivery, outcome, now, chance())
            if outcome.away and sender.channel not in BY_TENANT:
                break
            if outcome.away:
                away.add(delivery.tenant)
    return arrived


def _outcome(sender: Sender, delivery: Delivery) -> Outcome:
    try:
        return sender.send(delivery)
    except Exception as error:
        # A message's outermost edge: one that an earlier version wrote, say, holds up no other.
        if not delivery.attempts:
            log.exception("%s: the message about %s cannot be sent", sender.channel, delivery.key)
        return Later(f"cannot be sent: {error!r}")


def _put_off(store: DeliveryRows, delivery: Delivery, outcome: Later, now: datetime, chance: float) -> None:
    attempts = delivery.attempts + 1
    if now - delivery.created >= GIVEN_UP:
        hours = int(GIVEN_UP.total_seconds() // 3600)
        store.refused(delivery, f"given up after {hours} h and {attempts} attempts: {outcome.reason}")
    else:
        wait = wait_s(attempts, outcome.after_s, chance)
        store.try_again(delivery, now + timedelta(seconds=wait), outcome.reason)
    if outcome.away:
        held = max(outcome.after_s, min(HELD_S, wait_s(attempts, 0.0, chance)))
        tenant = delivery.tenant if delivery.channel in BY_TENANT else None
        store.hold(delivery.channel, now + timedelta(seconds=held), tenant)
