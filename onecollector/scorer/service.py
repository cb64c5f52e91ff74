"""The resident process: every tenant's closed minutes one after the other, messages on their way meanwhile.

What fails is said and tried again: nothing that Loki, the registry or a webhook does ends the process. Messages go from a
thread of their own, so that a receiver that hangs delays no minute.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import psutil
import structlog

from onecollector.scorer.reader import ReadTrouble
from onecollector.scorer.status_file import ScorerStatus, write_status
from onecollector.scorer.tenant import TenantScorer
from onecollector_resources.findings.delivery import Sender, deliver_due
from onecollector_resources.findings.delivery_rows import DeliveryRows
from onecollector_resources.layout import StateLayout
from onecollector_resources.registry.faults import RegistryError

log = structlog.get_logger()

LOOK_S = 1.0
"""Seconds between two looks at the clock; a look that finds nothing to do costs nothing."""
AGAIN_S = 5.0
"""Seconds until what failed is tried again."""
WAIT_S = 10.0
"""Seconds until what is waited for is looked at again."""
DELIVER_S = 5.0
STATUS_S = 20.0


class ScorerService:
    """Runs until ``stop``. ``scorers`` by tenant."""

    def __init__(
        self,
        layout: StateLayout,
        scorers: Sequence[TenantScorer],
        deliveries: DeliveryRows,
        senders: Sequence[Sender],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout, self._scorers = layout, scorers
        self._deliveries, self._senders, self._clock = deliveries, senders, clock
        self._stopped, self._news = threading.Event(), threading.Event()
        self._problems: dict[str, str] = {}
        self._lag_s = self._cpu_s = self._written = 0.0
        self._busy_cpu = 0.0

    def stop(self) -> None:
        """Come to an end after the minute that is at work."""
        self._stopped.set()
        self._news.set()

    def run(self) -> None:
        """Until ``stop`` is called. Raises nothing that a part of the platform did."""
        courier = threading.Thread(target=self._deliver, name="deliver", daemon=True)
        courier.start()
        self._say()
        not_before = dict.fromkeys((one.tenant for one in self._scorers), 0.0)
        while not self._stopped.is_set():
            now, more = self._clock(), False
            for scorer in self._scorers:
                if now < not_before[scorer.tenant]:
                    continue
                more |= self._step(scorer, not_before)
            if self._clock() - self._written >= STATUS_S:
                self._say()
            if not more:
                self._stopped.wait(LOOK_S)
        courier.join(10)
        self._say()

    def _step(self, scorer: TenantScorer, not_before: dict[str, float]) -> bool:
        before, began = scorer.status.minute, _cpu_s()
        now = self._clock()
        try:
            more = scorer.step(now)
        except (ReadTrouble, RegistryError, OSError) as error:
            if isinstance(error, ReadTrouble) and error.away:
                scorer.missed(now)
            if scorer.tenant not in self._problems:
                log.warning("minute.put_off", tenant=scorer.tenant, error=str(error))
            return self._put_off(scorer.tenant, str(error), not_before, began)
        except Exception as error:
            # A tenant's outermost edge: whatever its lines or its model are, the others are looked at.
            log.exception("minute.failed", tenant=scorer.tenant)
            scorer.again()
            return self._put_off(scorer.tenant, repr(error), not_before, began)
        self._problems.pop(scorer.tenant, None)
        self._busy_cpu += _cpu_s() - began
        if scorer.status.waits:
            not_before[scorer.tenant] = now + WAIT_S
        if scorer.status.minute != before:
            self._news.set()
            self._lag_s = self._clock() - (scorer.status.minute + 1) * 60
            self._cpu_s, self._busy_cpu = self._busy_cpu, 0.0
            self._say()
        return more

    def _put_off(self, tenant: str, why: str, not_before: dict[str, float], began: float) -> bool:
        self._problems[tenant] = f"{tenant}: {why}"
        not_before[tenant] = self._clock() + AGAIN_S
        self._busy_cpu += _cpu_s() - began
        return False

    def _deliver(self) -> None:
        while not self._stopped.is_set():
            self._news.wait(DELIVER_S)
            self._news.clear()
            try:
                deliver_due(self._deliveries, self._senders, datetime.now(UTC))
                self._problems.pop("delivery", None)
            except RegistryError as error:
                self._problems["delivery"] = str(error)
            except Exception as error:
                # The thread's outermost edge: nobody would begin it anew, and no message would be sent any more.
                if "delivery" not in self._problems:
                    log.exception("delivery.failed")
                self._problems["delivery"] = f"messages about findings wait: {error!r}"

    def _say(self) -> None:
        self._written = self._clock()
        status = ScorerStatus(
            pid=psutil.Process().pid,
            written=self._written,
            lag_s=round(self._lag_s, 2),
            cpu_s=round(self._cpu_s, 3),
            memory=psutil.Process().memory_info().rss,
            tenants={one.tenant: asdict(one.status) for one in self._scorers},
            problems=tuple(self._problems.values()),
        )
        try:
            write_status(self._layout.scorer_status, status)
        except OSError as error:
            log.warning("status.not_written", error=str(error))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
