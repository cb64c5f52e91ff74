"""A candidate into production: whole, examined, and over the model that it was compared with. Nothing here knows Dagster."""

from __future__ import annotations

from dataclasses import dataclass

from ml.model_channels import NotPassed, Pointer
from ml.model_manifest import ModelRefused
from onecollector_assets.model_training import models_of
from onecollector_resources.settings import Settings
from onecollector_resources.storage.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Promoted:
    """The pointer as it is now, and models that were removed because newer ones are kept."""

    pointer: Pointer
    removed: tuple[str, ...]


def promote_candidate(settings: Settings, store: ObjectStore, tenant: str) -> Promoted:
    """What was trained last. Raises NotPassed, MovedMeanwhile, ModelRefused, StoreError."""
    models = models_of(settings, tenant, store)
    candidate = models.channels.current("candidate")
    if not candidate:
        raise ModelRefused(f"{tenant}: expected a candidate, found none; train one: onecollector models train")
    parent = models.manifest(candidate).parent
    return promote(settings, store, tenant, candidate, "passed the gates", over=parent)


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

    Raises NotPassed, MovedMeanwhile, ModelRefused, StoreError.
    """
    models = models_of(settings, tenant, store)
    model = models.load(model_id)
    evaluation = models.evaluation(model.manifest)
    failed = [gate for gate in evaluation["gates"] if gate["blocking"] and not gate["passed"]]
    if failed and not force:
        told = "; ".join(f"{gate['name']}: {gate['found']}" for gate in failed)
        raise NotPassed(
            f"{model_id} failed {told}. Train again when it is mended, or promote it all the same: "
            f"onecollector models promote {model_id} --tenant {tenant} --force"
        )
    channels = models.channels
    try:
        pointer = channels.promote(model_id, why, over=over)
    except ModelRefused:
        if not force:
            raise
        pointer = channels.reset(model_id, why)
    return Promoted(pointer, tuple(models.prune(settings.models.keep)))
