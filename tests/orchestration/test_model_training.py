"""From exported days to a model in production: the assets, their gates between them, and the commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from ml.evaluation.days import DAY, START_MINUTE
from ml.evaluation.lines import MINUTE_NS
from ml.examination import Remembered
from ml.gate_limits import GATES
from ml.model_channels import NotPassed
from ml.model_store import ModelStore
from ml.tally_store import DayWriter, TallyStore, day_start_minute
from onecollector.cli.main import app
from onecollector_assets.anomaly_models import anomaly_models, production_models
from onecollector_assets.model_training import train_tenant
from onecollector_assets.promotion import promote, promote_candidate
from onecollector_assets.tallies import minute_tallies
from onecollector_assets.tallying import NothingToLearn, keep_tallies
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.discovery.links_model import PROBES
from onecollector_resources.exports.partitions import Partition
from onecollector_resources.findings.opening import finding_store
from onecollector_resources.findings.records import FINDINGS_SERVICE
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.settings import Settings, load_settings
from onecollector_resources.storage.file_store import FileStore
from onecollector_resources.storage.opening import model_store
from sensors.training import count_daily, train_daily
from tests.orchestration.exported_days import FIRST, export_days, services_of, settings_file
from tests.unit.exported import exported, some_lines
from tests.unit.findings_made import finding

DAYS = 5
LAST = date(2026, 1, 9)
LOST_HOUR = 30
SURGE = 2 * DAY + 14 * 60
"""Row of the minute in which svc-1 begins to write four times as much, for eight minutes."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Five days of two services with one surge, one hour of which nobody exported, trained once."""
    folder = tmp_path_factory.mktemp("shop")
    services = services_of((3, 8), DAYS)
    first, last = ((START_MINUTE + SURGE + minutes) * MINUTE_NS for minutes in (0, 8))
    surge = [(ns + more, *line) for ns, *line in services["svc-1"] if first <= ns < last for more in (1000, 2000, 3000)]
    services["svc-1"] = sorted(services["svc-1"] + surge)
    export_days(folder, services, DAYS, left_out=[LOST_HOUR])
    settings_file(folder, learning_days=2, train_workers=1)
    yield folder


@pytest.fixture
def settings(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ONECOLLECTOR_CONFIG", str(shop / "onecollector.yaml"))
    return load_settings()


def materialize(assets: list[Any], partition: str, **more: Any) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            assets,
            partition_key=partition,
            instance=instance,
            resources={"onecollector": OneCollectorResource(), "io_manager": dg.mem_io_manager},
            raise_on_error=False,
            **more,
        )


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["models", *arguments], env={"COLUMNS": "200"}, catch_exceptions=True)
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


def test_a_day_is_tallied_once_and_lost_hours_are_unknown(settings: Settings) -> None:
    result = materialize([minute_tallies], "2026-01-06")
    (event,) = result.asset_materializations_for_node("minute_tallies")
    (check,) = result.get_asset_check_evaluations()
    assert event.metadata["minutes unknown"].value == 60 and not check.passed
    store = model_store(settings)
    again = keep_tallies(settings, store, "default", date(2026, 1, 6))
    assert again is not None and again.lines is None and set(again.day.services) == {"svc-0", "svc-1"}
    day = day_start_minute(date(2026, 1, 6))
    assert again.day.coverage.unobserved("svc-0") == ((day + 360, day + 420),)
    tally = TallyStore(store, "default").tally(again.day, "svc-1")
    assert tally is not None and tally["lines"].sum() == event.metadata["lines"].value - sum(
        TallyStore(store, "default").tally(again.day, "svc-0")["lines"]  # pyright: ignore[reportOptionalSubscript]
    )


def test_a_model_is_trained_examined_and_serves(settings: Settings) -> None:
    result = materialize([anomaly_models, production_models], "default")
    gates = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert result.success, {name: check.description for name, check in gates.items() if not check.passed}
    (event,) = result.asset_materializations_for_node("anomaly_models")
    told = {name: value.value for name, value in event.metadata.items()}
    assert (told["services"], told["learning"]) == (2, 0)
    assert "OneCollector" in told["examined"] and "data:image/png" in told["picture"]
    assert len(gates) == len(GATES) and all(check.passed for check in gates.values() if check.blocking)
    models = ModelStore(model_store(settings), "default")
    serving = models.serving()
    assert serving.model is not None and serving.model.model_id == told["model"] == models.channels.current("candidate")
    facts = {one.service: one for one in models.services(serving.model.manifest)}
    assert facts["svc-0"].missing_share == pytest.approx(60 / (DAYS * 1440), abs=0.002)
    assert serving.model.manifest.learned.last_day == "2026-01-09"
    assert {"svc-0", "svc-1"} <= serving.model.templates.services.keys()


def test_a_model_that_fails_a_gate_does_not_serve(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    models = ModelStore(model_store(settings), "default")
    before = models.channels.current()
    monkeypatch.setattr("ml.gates.MOST_MISSING", 0.0)
    result = materialize([anomaly_models, production_models], "default")
    assert not result.success
    failed = [check.check_name for check in result.get_asset_check_evaluations() if not check.passed]
    assert failed == ["data"]
    assert not result.asset_materializations_for_node("production_models")
    assert models.channels.current() == before != models.channels.current("candidate")
    with pytest.raises(NotPassed, match=r"did not pass data: .* --force"):
        promote_candidate(settings, models.store, "default")
    assert promote(settings, models.store, "default", models.channels.current("candidate"), "by hand", force=True)
    assert models.channels.roll_back("it was a test").model_id == before


def test_services_with_few_days_are_learning_and_it_is_said(settings: Settings, shop: Path) -> None:
    young = settings.model_copy(update={"models": settings.models.model_copy(update={"learning_days": 7.0})})
    trained = train_tenant(young, model_store(settings), "default", LAST)
    assert sorted(trained.evaluation.learning) == ["svc-0", "svc-1"] and trained.manifest.learning == 2
    assert all(gate.passed for gate in trained.gates)
    assert {gate.name: gate.found for gate in trained.gates}["faults_found"].endswith("all services are learning")
    model = ModelStore(model_store(settings), "default").load(trained.manifest.model_id)
    assert all(one.shard.learning.all() for one in model.shards)


def test_what_people_judged_is_learned_from(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = settings.model_copy(update={"models": settings.models.model_copy(update={"examined_services": 0})})
    LogSourceRegistry(settings.registry_url).migrate()
    findings = finding_store(settings)
    first = datetime.fromtimestamp((START_MINUTE + SURGE) * 60, UTC)
    number = findings.open(finding("svc-1", first), "sent").number

    def trained() -> Remembered:
        return train_tenant(quick, model_store(settings), "default", LAST).evaluation.remembered

    findings.judge(number, "confirmed", "ann")
    assert trained() == Remembered(confirmed=1)
    findings.judge(number, "dismissed", "ann")
    assert trained() == Remembered(dismissed=1)
    # Were it not for the dismissal, it would be found again, though the model has learned from its minutes.
    monkeypatch.setattr("ml.tenant_training.excused", lambda shard, *_: shard)
    assert trained() == Remembered(dismissed=1, again=("svc-1 2026-01-07T14:00",))
    findings.disconnect()


def test_where_nothing_is_exported_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONECOLLECTOR_CONFIG", str(settings_file(tmp_path)))
    settings = load_settings()
    with pytest.raises(NothingToLearn, match="onecollector export"):
        train_tenant(settings, model_store(settings), "default")
    result = materialize([anomaly_models], "default")
    assert not result.success
    start_ns = START_MINUTE * MINUTE_NS
    ours = [(start_ns + minute * MINUTE_NS, f"probe {minute}", False) for minute in range(60)]
    export_days(tmp_path, {PROBES: ours, FINDINGS_SERVICE: ours}, 1)
    with pytest.raises(NothingToLearn, match="no lines of services of default"):
        train_tenant(settings, model_store(settings), "default")


def test_hours_that_another_query_exported_are_known_of_its_services_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "exports", create=True)
    for service in ("web", "db"):
        partition = Partition("default", service, FIRST)
        exported(
            store, tmp_path / "scratch", partition, some_lines(partition, 600), ("lost",) if service == "db" else ()
        )
    monkeypatch.setenv("ONECOLLECTOR_CONFIG", str(settings_file(tmp_path)))
    settings = load_settings()
    kept = keep_tallies(settings, model_store(settings), "default", FIRST.date())
    assert kept is not None
    start = day_start_minute(FIRST.date())
    covered = kept.day.coverage
    assert covered.unobserved("web") == ((start + 60, start + 1440),)
    assert covered.unobserved("db") == covered.unobserved("cache") == ((start, start + 1440),)
    assert covered.known_until(start) == start + 60


def test_of_two_runs_that_count_a_day_at_once_both_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partition = Partition("default", "web", FIRST)
    exported(FileStore(tmp_path / "exports", create=True), tmp_path / "scratch", partition, some_lines(partition, 600))
    monkeypatch.setenv("ONECOLLECTOR_CONFIG", str(settings_file(tmp_path)))
    settings = load_settings()
    store, files, others = model_store(settings), DayWriter.files, []

    def late(writer: DayWriter) -> Any:
        """Between reading what was kept and keeping the day, another run does all of it."""
        monkeypatch.setattr(DayWriter, "files", files)
        others.append(keep_tallies(settings, store, "default", FIRST.date()))
        return files(writer)

    monkeypatch.setattr(DayWriter, "files", late)
    kept = keep_tallies(settings, store, "default", FIRST.date())
    assert kept is not None and kept.lines is None and others[0].lines == 600
    assert kept.day == others[0].day


def test_schedules_ask_for_yesterday_and_for_every_tenant(settings: Settings) -> None:
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 1, 10, 1, 37, tzinfo=UTC),
        resources={"onecollector": OneCollectorResource()},
    )
    counted = count_daily(context)
    assert isinstance(counted, dg.RunRequest) and counted.partition_key == "2026-01-09"
    (trained,) = train_daily(context)
    assert trained.partition_key == "default"


def test_without_exports_the_schedules_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONECOLLECTOR_STATE_DIR", str(tmp_path))
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 1, 10, tzinfo=UTC), resources={"onecollector": OneCollectorResource()}
    )
    for schedule in (count_daily, train_daily):
        assert "export.out" in str(schedule(context))


def test_the_commands_list_show_promote_and_go_back(settings: Settings) -> None:
    code, text = run("train", "--until", "2026-01-09", "--promote", "--json")
    assert code == 0 and json.loads(text)["promoted"]
    code, text = run("train", "--until", "2026-01-09", "--json")
    first = json.loads(text)
    assert code == 0 and first["passed"] and first["model"]
    code, text = run("promote", first["model"])
    assert code == 0 and first["model"] in text
    code, text = run("list")
    assert code == 0 and "production" in text and "previous" in text
    code, text = run("show")
    assert code == 0 and "faults_found" in text and "svc-1" in text
    code, text = run("show", first["model"], "--json")
    assert code == 0 and json.loads(text)["manifest"]["services"] == 2
    code, text = run("rollback")
    assert code == 0 and first["model"] in text
    code, text = run("list", "--json")
    told = json.loads(text)
    assert told["channels"]["previous"] == first["model"] != told["channels"]["production"]
    code, text = run("promote", "20200101T000000-0123456789ab")
    assert code != 0 and "the model is not there" in text
