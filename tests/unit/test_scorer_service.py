"""The scorer's loop and what it says of itself: a tenant that fails stops no other, and whoever asks is told why."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from onecollector.scorer import service as serving
from onecollector.scorer.service import ScorerService
from onecollector.scorer.status_file import ScorerStatus, health_of, read_status
from onecollector.scorer.tenant import TenantScorer
from onecollector.scorer.tenant_status import TenantStatus
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.layout import StateLayout
from onecollector_resources.registry.store import LogSourceRegistry


class Tenant:
    """Scores a minute at each step; ``step`` may be made to fail."""

    def __init__(self, tenant: str, step: Callable[[], None]) -> None:
        self.tenant, self.status, self._does = tenant, TenantStatus(model_id="m"), step
        self.begun_again = 0

    def step(self, now: float) -> bool:
        self._does()
        self.status.minute += 1
        return False

    def missed(self, now: float) -> None: ...

    def again(self) -> None:
        self.begun_again += 1


def test_a_tenant_that_fails_in_a_way_nobody_foresaw_stops_no_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/r.db"
    LogSourceRegistry(url).migrate()
    clock = itertools.count(0.0)

    def fails() -> None:
        raise ZeroDivisionError("a fault of ours")

    def counts() -> None:
        if well.status.minute >= 20:
            service.stop()

    bad, well = Tenant("bad", fails), Tenant("well", counts)
    scorers = cast("list[TenantScorer]", [bad, well])
    store = FindingStore(url)
    service = ScorerService(StateLayout(tmp_path), scorers, store, [], clock=lambda: next(clock))
    service._stopped.wait = lambda timeout=None: service._stopped.is_set()  # type: ignore[method-assign]
    service.run()
    assert well.status.minute > 20 and bad.begun_again > 1
    status = read_status(StateLayout(tmp_path).scorer_status)
    assert status is not None and any("bad: ZeroDivisionError" in problem for problem in status.problems)
    store.disconnect()


def test_messages_go_on_after_a_fault_that_nobody_foresaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = itertools.count(1)

    def fails_at_first(*_: object) -> int:
        if next(begun) == 1:
            raise UnicodeEncodeError("ascii", "é", 0, 1, "a fault of ours")
        service.stop()
        return 0

    monkeypatch.setattr(serving, "deliver_due", fails_at_first)
    monkeypatch.setattr(serving, "DELIVER_S", 0.0)
    store = FindingStore(f"sqlite:///{tmp_path}/r.db")
    service = ScorerService(StateLayout(tmp_path), [], store, [])
    told_of: list[str] = []
    service._problems = Told(told_of)
    deadline = threading.Timer(60, service.stop)
    deadline.start()
    service.run()
    deadline.cancel()
    assert next(begun) > 2
    assert len(told_of) == 1 and "a fault of ours" in told_of[0]
    assert not service._problems
    store.disconnect()


class Told(dict[str, str]):
    """Problems, and each that was ever told."""

    def __init__(self, ever: list[str]) -> None:
        super().__init__()
        self._ever = ever

    def __setitem__(self, name: str, problem: str) -> None:
        self._ever.append(problem)
        super().__setitem__(name, problem)


def told(**tenant: Any) -> dict[str, Any]:
    """A tenant's status as it lies in the file."""
    usual = {"model_id": "m", "minute": 99, "services": 4, "learning": 0, "lines": 83, "waits": "", "problems": {}}
    return usual | tenant


@pytest.mark.parametrize(
    ("tenants", "ok", "note"),
    [
        ([told()], True, "4 services, 83 lines a minute"),
        ([told(services=1, lines=1, learning=3)], True, "1 service, 3 learning, 1 line a minute"),
        ([told(lines=301_204, services=1_500)], True, "1,500 services, 301,204 lines a minute"),
        ([told(model_id="", minute=0, waits="no model serves")], True, "waiting: no model serves"),
        (
            [told(), told(model_id="", waits="no model serves", problems={"model": "x"})],
            True,
            "t1: no model serves: x; t0: 4 services, 83 lines a minute",
        ),
        ([told(minute=90)], False, "9 minutes behind"),
    ],
)
def test_what_status_says(tenants: list[dict[str, Any]], ok: bool, note: str) -> None:
    status = ScorerStatus(1, 6_000.0, tenants={f"t{n}": one for n, one in enumerate(tenants)})
    assert health_of(status, 6_001.0) == (ok, note)


def test_a_scorer_that_says_nothing_is_not_well() -> None:
    assert health_of(None, 0.0) == (False, "it has not said anything yet")
    assert health_of(ScorerStatus(1, 0.0), 600.0) == (False, "said nothing for 10 minutes")
