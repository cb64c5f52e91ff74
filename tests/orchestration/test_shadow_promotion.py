"""A candidate serves once it was long enough in the shadow of the model before it, and did well there; the first at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from ml.model_channels import NotPassed
from ml.model_manifest import Learned
from ml.model_store import ModelStore, ServiceFacts
from ml.shadowing import SERVED, Alarm, Shadow
from onecollector.cli.main import app
from onecollector_assets.anomaly_models import production_models
from onecollector_assets.promotion import Promoted, Waiting, due, promote, promote_next
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.settings import Settings, load_settings
from onecollector_resources.storage.opening import model_store
from sensors.training import shadows_that_are_whole
from tests.orchestration.exported_days import settings_file
from tests.unit.scorer_world import DAY, NOW, SERVICES, learned, time_of


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ONECOLLECTOR_CONFIG", str(settings_file(tmp_path, enabled=True)))
    return load_settings()


@pytest.fixture
def models(settings: Settings) -> ModelStore:
    """A tenant's models, none yet."""
    return ModelStore(model_store(settings), "default")


def trained(models: ModelStore, minute: int) -> str:
    """A candidate that passed its gates."""
    arrays, names, templates = learned()
    facts = [ServiceFacts(name, 3.0, 20_000, 5, 0.0, False) for name in SERVICES]
    span = Learned("2026-06-20", "2026-06-22", 3 * DAY, 0.0, {}, {})
    store = replace(models, clock=lambda: time_of(NOW + minute))
    parent = models.channels.current()
    made = store.write([arrays], [names], facts, {"gates": [], "passed": True, "verdicts": []}, span, parent, templates)
    store.channels.point_candidate(made.model_id, "trained")
    return made.model_id


def whole(model_id: str, beside: str, alarms: int = 0) -> Shadow:
    """A day beside another model, in which so many services had alarms of their own."""
    own = tuple(Alarm(f"svc-{n}", NOW + 9, NOW + 12) for n in range(alarms))
    return Shadow(model_id, beside, NOW, NOW + DAY - 1, DAY, 4 * DAY, 0, own)


def materialized() -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [production_models],
            partition_key="default",
            instance=instance,
            resources={"onecollector": OneCollectorResource(), "io_manager": dg.mem_io_manager},
            raise_on_error=False,
        )


def asked_for() -> list[Any]:
    context = dg.build_sensor_context(resources={"onecollector": OneCollectorResource()})
    found = shadows_that_are_whole(context)
    return found if isinstance(found, list) else []


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["models", *arguments], env={"COLUMNS": "200"}, catch_exceptions=True)
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


def test_the_first_serves_at_once_and_the_next_after_a_day_in_its_shadow(
    settings: Settings, models: ModelStore
) -> None:
    first = trained(models, 0)
    assert isinstance(promote_next(settings, models.store, "default"), Promoted)
    second = trained(models, 1)
    result = materialized()
    assert result.success and not result.asset_materializations_for_node("production_models")
    waiting = promote_next(settings, models.store, "default")
    assert isinstance(waiting, Waiting) and waiting.model_id == second and "24 hours beside" in waiting.why
    assert models.channels.current() == first and not asked_for()

    models.shadows.save(whole(second, first, alarms=2))
    (request,) = asked_for()
    assert request.partition_key == "default" and second in request.run_key
    (event,) = materialized().asset_materializations_for_node("production_models")
    assert event.metadata["model"].value == second == models.channels.current()
    assert "2 findings in 4.0 service-days, 2 of them its own" in str(event.metadata["shadow"].value)
    shadow = models.shadows.read(second)
    assert shadow is not None and shadow.ended == SERVED and not asked_for()

    models.channels.roll_back("noisy")
    third = trained(models, 2)
    assert not asked_for(), "what somebody took back does not come back by itself"
    assert isinstance(promote_next(settings, models.store, "default"), Waiting)
    assert promote(settings, models.store, "default", second, "it was right").pointer.previous == first
    assert models.channels.current("candidate") == third


def test_a_model_serves_also_where_another_pointer_is_damaged_and_that_is_told(
    settings: Settings, models: ModelStore
) -> None:
    first = trained(models, 0)
    models.store.put(models.channels.key("candidate"), b"garbage")
    code, text = run("promote", first)
    assert code == 0 and f"{first} serves now" in text
    assert "no older model was removed" in text and "candidate.json" in text and "onecollector models train" in text
    assert models.channels.current() == first and models.ids() == [first]
    models.store.put(models.channels.key("production"), b"garbage")
    code, text = run("promote", first)
    assert code != 0 and "onecollector models promote MODEL --force" in text


def test_one_that_did_badly_does_not_serve_and_the_run_says_why(settings: Settings, models: ModelStore) -> None:
    first = trained(models, 0)
    promote_next(settings, models.store, "default")
    second = trained(models, 1)
    models.shadows.save(whole(second, first, alarms=40))
    result = materialized()
    assert not result.success and models.channels.current() == first
    shadow = models.shadows.read(second)
    assert shadow is not None and "10.00 a day are its own, budget 0.5" in shadow.ended
    assert not asked_for()
    with pytest.raises(NotPassed, match=r"did not pass its shadow: failed: .* --force"):
        promote(settings, models.store, "default", second, "by hand")


def test_a_shadow_of_a_model_that_serves_no_more_decides_nothing(settings: Settings, models: ModelStore) -> None:
    first = trained(models, 0)
    promote_next(settings, models.store, "default")
    second = trained(models, 1)
    models.shadows.save(whole(second, first))
    assert due(settings, models, first) is not None
    third = trained(models, 2)
    promote(settings, models.store, "default", third, "by hand", force=True)
    assert due(settings, models, third) is None and not asked_for()


def test_where_nobody_scores_a_candidate_serves_at_once(settings: Settings, models: ModelStore) -> None:
    trained(models, 0)
    promote_next(settings, models.store, "default")
    second = trained(models, 1)
    for change in ({"enabled": False}, {"shadow_hours": 0}):
        alone = settings.model_copy(update={"models": settings.models.model_copy(update=change)})
        assert isinstance(promote_next(alone, models.store, "default"), Promoted)
        assert models.channels.current() == second


def test_where_what_serves_cannot_be_read_a_candidate_serves_at_once(settings: Settings, models: ModelStore) -> None:
    first = trained(models, 0)
    promote_next(settings, models.store, "default")
    second = trained(models, 1)
    assert isinstance(promote_next(settings, models.store, "default"), Waiting)
    (path,) = (settings.layout.models).rglob(f"{first}/shard-0000.npz")
    path.write_bytes(path.read_bytes()[:-9])
    assert isinstance(promote_next(settings, models.store, "default"), Promoted)
    assert models.channels.current() == second


def test_the_commands_say_how_far_it_is(settings: Settings, models: ModelStore) -> None:
    first = trained(models, 0)
    code, text = run("promote")
    assert code == 0 and first in text
    second = trained(models, 1)
    code, text = run("promote")
    assert code == 1 and f"{second} does not serve yet: it is shadowed for 24 hours beside {first} first" in text
    models.shadows.save(replace(whole(second, first), minutes=432))
    code, text = run("list")
    assert code == 0 and "7.2 h" in text
    code, text = run("show", second)
    assert code == 0 and f"7.2 of 24 hours beside {first}: 0 findings in 4.0 service-days" in text
    code, text = run("promote")
    assert code == 1 and "7.2 of 24 hours" in text and "--force" in text
    code, text = run("promote", "--force")
    assert code == 0 and models.channels.current() == second
