"""Lines that were lost before Loki are no silence: their minutes are left out of what is learned."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from ml.tally_store import Coverage, TalliedDay, TallyFile, day_start_minute
from ml.template_store import StoredTemplates
from ml.tenant_training import TrainingPlan
from onecollector_assets.lost_lines import lost_minutes, without_lost
from onecollector_assets.model_training import plan_of
from onecollector_resources.records import Gap
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.settings import Settings

DAY = date(2026, 1, 6)
MIDNIGHT = datetime(2026, 1, 6, tzinfo=UTC)


def gap(first: timedelta, last: timedelta, service: str = "web", tenant: str = "default") -> Gap:
    began, ended = MIDNIGHT + first, MIDNIGHT + last
    return Gap("host", f"{service}-{tenant}", service, tenant, "links_over_age", began, ended)


def test_minutes_of_lost_lines_are_unobserved(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    assert lost_minutes(settings, "default", DAY) == {}
    registry = LogSourceRegistry(settings.registry_url)
    registry.migrate()
    lost = [
        gap(timedelta(hours=1, seconds=59), timedelta(hours=1, minutes=2)),
        gap(timedelta(hours=-1), timedelta(minutes=3)),
        gap(timedelta(hours=5), timedelta(hours=6), tenant="other"),
        gap(timedelta(days=-3), timedelta(days=-2)),
    ]
    registry.record_gaps(lost, actor="test")

    first = day_start_minute(DAY)
    kept = TalliedDay(DAY, "lines", (), Coverage(gaps={"web": ((first + 90, first + 95),)}))
    days = without_lost([kept], lost_minutes(settings, "default", DAY))
    plan = TrainingPlan("default", tuple(days), first, first + 1440)
    ranges = tuple((a - first, b - first) for a, b in plan.unobserved("web"))
    # Whole minutes, of this day and tenant alone, beside what the export knew to be missing.
    assert ranges == ((0, 4), (60, 63), (90, 95))
    assert plan.unobserved("mailer") == ()


def test_of_our_own_lines_nothing_is_learned(tmp_path: Path) -> None:
    first = day_start_minute(DAY)
    wrote = ("", "onecollector-findings", "onecollector-probe", "web")
    day = TalliedDay(DAY, "lines", (TallyFile("key", 0, 1, "0" * 64, wrote, (1,) * len(wrote)),), Coverage())
    plan = plan_of(Settings(state_dir=tmp_path), "default", [day], StoredTemplates(), ())
    assert (plan.start, plan.services) == (first, ("web",))
