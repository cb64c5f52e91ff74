"""Up to when nothing is missing: known only where every source is whole and every agent is well and there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from onecollector.scorer.sight import RegistrySight, Whole, proved
from onecollector_resources.health.memory import PROVED_AT
from onecollector_resources.records import LogSource
from onecollector_resources.registry.store import LogSourceRegistry

NOW = datetime(2026, 11, 27, 12, 0, 40, tzinfo=UTC)
PROVED = NOW.timestamp() - 25
WELL = {"h": (NOW - timedelta(seconds=50), "ok")}
WEB = LogSource(
    host="h",
    source_id="1",
    kind="container",
    name="web",
    safe_name="web",
    tenant="default",
    service="web",
    service_raw="web",
    profile="docker",
    multiline=None,
    mode="link",
    path="/x",
    phase="collecting",
    reason="",
    flow="proved",
)
"""Its records were counted at 12:00:15: 11:59 is whole."""


def test_what_was_counted_after_the_minute_and_is_in_loki_is_whole() -> None:
    minute, web = int(NOW.timestamp() // 60) - 1, frozenset({"web"})
    ended = replace(WEB, source_id="2", phase="finished", flow="proved")
    assert proved([WEB, replace(WEB, source_id="3", flow="silent"), ended], WELL, PROVED, NOW) == Whole(minute, web)
    assert proved([WEB], WELL, PROVED - 60, NOW) == Whole(minute - 1, web)
    gone = replace(WEB, source_id="4", service="cart", phase="gone", flow="unknown")
    assert proved([WEB, gone], WELL, PROVED, NOW) == Whole(minute, frozenset({"web", "cart"}))


@pytest.mark.parametrize(
    ("sources", "agents"),
    [
        ([], WELL),
        ([WEB, replace(WEB, source_id="2", flow="flowing")], WELL),
        ([WEB, replace(WEB, source_id="2", flow="suspect")], WELL),
        ([WEB, replace(WEB, source_id="2", flow="unknown")], WELL),
        ([WEB, replace(WEB, source_id="2", phase="waiting")], WELL),
        ([WEB, replace(WEB, source_id="2", host="other")], WELL),
        ([WEB], {"h": (NOW - timedelta(minutes=10), "ok")}),
        ([WEB], {"h": (NOW, "degraded")}),
    ],
    ids=["nobody", "lines on their way", "lines missing", "not looked at", "not collected yet", "a host that nobody knows",
         "an agent that is away", "a collector that is not well"],
)  # fmt: skip
def test_where_anything_may_be_missing_nothing_is_whole(
    sources: list[LogSource], agents: dict[str, tuple[datetime, str]]
) -> None:
    assert proved(sources, agents, PROVED, NOW) == Whole()


def test_a_registry_says_it(tmp_path: Path) -> None:
    registry = LogSourceRegistry(f"sqlite:///{tmp_path}/r.db", clock=lambda: NOW)
    registry.migrate()
    sight = RegistrySight(registry)
    assert sight.whole("default", NOW.timestamp()) == Whole()
    registry.sync_host("h", [replace(WEB, flow="unknown")], actor="test", full=True)
    registry.record_agent("h", health="ok", effective_hash="")
    registry.set_mark(PROVED_AT, int(PROVED))
    assert sight.whole("default", NOW.timestamp()) == Whole()
    registry.set_flow({WEB.key: ("proved", "")}, actor="test")
    assert sight.whole("default", NOW.timestamp()).through == int(NOW.timestamp() // 60) - 1
    assert sight.whole("other", NOW.timestamp()) == Whole()
