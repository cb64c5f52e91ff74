"""A candidate into production: whole, examined, shadowed, and over the model that it was compared with. Nothing here knows
Dagster.

The first model serves as soon as it passed its gates: a tenant without one finds nothing at all. Every later one is
watched beside the model that serves first, for ``models.shadow_hours``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ml.budgets import budgets_of, mean_budget
from ml.gates import Gate
from ml.model_channels import NotPassed, Pointer
from ml.model_manifest import ModelRefused
from ml.model_store import ModelStore
from ml.shadow_gate import shadow_gate
from ml.shadowing import SERVED, Shadow
from onecollector_assets.model_training import judged_findings, models_of
from onecollector_resources.settings import Settings
from onecollector_resources.storage.objects import ObjectStore, StoreError


@dataclass(frozen=True, slots=True)
class Promoted:
    """The pointer as it is now, how its shadow went, and models that were removed because newer ones are kept.

    ``problem`` is why what comes after moving the pointer could not be done; empty where it was.
    """

    pointer: Pointer
    removed: tuple[str, ...]
    shadow: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A candidate that is to be shadowed first, and how far that is."""

    model_id: str
    why: str


def promote_next(settings: Settings, store: ObjectStore, tenant: str) -> Promoted | Waiting:
    """The one that was shadowed to its end, else the candidate. Raises as ``promote_candidate``."""
    models = models_of(settings, tenant, store)
    serving = models.channels.current()
    if (shadow := due(settings, models, serving)) is not None:
        return promote(settings, store, tenant, shadow.model_id, "passed the gates", over=serving)
    return promote_candidate(settings, store, tenant)


def promote_candidate(settings: Settings, store: ObjectStore, tenant: str) -> Promoted | Waiting:
    """What was trained last, where nobody has to be in anybody's shadow first.

    Raises NotPassed, MovedMeanwhile, ModelRefused, StoreError.
    """
    models = models_of(settings, tenant, store)
    serving = models.channels.current()
    candidate = models.channels.current("candidate")
    if not candidate:
        raise ModelRefused(f"{tenant}: expected a candidate, found none; train one: onecollector models train")
    if candidate == serving or not is_shadowed(settings, models, serving):
        parent = models.manifest(candidate).parent
        return promote(settings, store, tenant, candidate, "passed the gates", over=parent)
    failed = failed_gates(models, candidate)
    if failed:
        raise NotPassed(_not_passed(candidate, failed, tenant))
    return Waiting(candidate, waiting_for(settings, models, candidate, serving))


def due(settings: Settings, models: ModelStore, serving: str) -> Shadow | None:
    """The newest shadow beside the model that serves, where it is whole and nothing came of it yet. Raises StoreError."""
    if not shadow_minutes(settings):
        return None
    whole = [
        one
        for one in models.shadows.open_ones()
        if one.whole(shadow_minutes(settings)) and one.beside == serving and one.model_id > serving
    ]
    return whole[-1] if whole else None


def promote(
    settings: Settings,
    store: ObjectStore,
    tenant: str,
    model_id: str,
    why: str,
    *,
    over: str | None = None,
    force: bool = False,
) -> Promoted:
    """A model by its id, read whole first. ``over``: only in the place of that one; ``force``: whatever its gates say, and
    over a pointer that cannot be read.

    Raises NotPassed, MovedMeanwhile, ModelRefused, StoreError: the pointer is as it was.
    """
    models = models_of(settings, tenant, store)
    models.load(model_id)
    shadow = ""
    if not force:
        found = models.channels.read("production")
        if failed := failed_gates(models, model_id):
            raise NotPassed(_not_passed(model_id, failed, tenant))
        if found is not None and model_id not in (found[1].model_id, found[1].previous):
            shadow = _hold_against_shadow(settings, models, model_id, found[1].model_id)
    channels = models.channels
    try:
        pointer = channels.promote(model_id, why, over=over)
    except ModelRefused:
        if not force:
            raise
        pointer = channels.reset(model_id, why)
    try:
        models.shadows.end(model_id, SERVED)
        return Promoted(pointer, tuple(models.prune(settings.models.keep)), shadow)
    except (ModelRefused, StoreError) as error:
        # It serves, whatever became of the rest: the next promotion removes what is left.
        return Promoted(pointer, (), shadow, f"{model_id} serves, but no older model was removed: {error}")


def shadow_minutes(settings: Settings) -> int:
    """Minutes that a candidate is shadowed; 0 where nobody scores."""
    return round(settings.models.shadow_hours * 60) if settings.models.enabled else 0


def is_shadowed(settings: Settings, models: ModelStore, serving: str) -> bool:
    """Whether a candidate has to be: there is a scorer that does it, and a model beside which it can. One that is damaged, or
    of an earlier version, serves nobody. Raises StoreError.
    """
    if not serving or not shadow_minutes(settings):
        return False
    try:
        models.load(serving)
    except ModelRefused:
        return False
    return True


def failed_gates(models: ModelStore, model_id: str) -> list[tuple[str, str]]:
    """Names of the gates of its examination that it failed, and what was found. Raises ModelRefused."""
    gates = models.evaluation(models.manifest(model_id))["gates"]
    return [(gate["name"], gate["found"]) for gate in gates if gate["blocking"] and not gate["passed"]]


def _hold_against_shadow(settings: Settings, models: ModelStore, model_id: str, serving: str) -> str:
    """How its shadow went, empty where none was asked for.

    Raises NotPassed where it was not well in the shadow, which is remembered, or not long enough.
    """
    if not is_shadowed(settings, models, serving):
        return ""
    shadow = models.shadows.read(model_id)
    if shadow is not None and shadow.ended:
        if shadow.ended != SERVED:
            raise NotPassed(_not_passed(model_id, [("its shadow", shadow.ended)], models.tenant))
        return ""
    if shadow is None or not shadow.whole(shadow_minutes(settings)):
        why = waiting_for(settings, models, model_id, serving)
        raise NotPassed(
            f"{model_id} does not serve yet: {why}. Let it serve at once: {_by_force(model_id, models.tenant)}"
        )
    gate = gate_of(settings, models, shadow)
    if not gate.passed:
        models.shadows.end(model_id, f"failed: {gate.found}; {gate.fix}")
        raise NotPassed(_not_passed(model_id, [("its shadow", gate.found)], models.tenant))
    return gate.found


def gate_of(settings: Settings, models: ModelStore, shadow: Shadow) -> Gate:
    """How a shadow goes, with what people judged of that time. Raises RegistryError, ModelRefused, StoreError."""
    judged = judged_findings(settings, models.tenant, shadow.began)
    services = [one.service for one in models.services(models.manifest(shadow.model_id))]
    budget = mean_budget(budgets_of(settings.models.alert_budget, settings.models.services), services)
    return shadow_gate(shadow, shadow_minutes(settings), budget, judged)


def waiting_for(settings: Settings, models: ModelStore, model_id: str, serving: str) -> str:
    """Why a candidate does not serve yet, in words."""
    wanted = f"{settings.models.shadow_hours:g} hours beside {serving}"
    shadow = models.shadows.read(model_id)
    if shadow is not None:
        return gate_of(settings, models, shadow).found
    before = [one.model_id for one in models.shadows.open_ones() if one.model_id != serving]
    turn = f"; {before[-1]} comes first" if before else ""
    return f"it is shadowed for {wanted} first, which the scorer does while the platform is up{turn}"


def _not_passed(model_id: str, failed: list[tuple[str, str]], tenant: str) -> str:
    told = "; ".join(f"{name}: {found}" for name, found in failed)
    return (
        f"{model_id} did not pass {told}. Train again when it is mended, or promote it all the same: "
        f"{_by_force(model_id, tenant)}"
    )


def _by_force(model_id: str, tenant: str) -> str:
    return f"onecollector models promote {model_id} --tenant {tenant} --force"
