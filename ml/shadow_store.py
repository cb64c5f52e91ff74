"""Shadows on the object store: one small sealed document a candidate, written every few minutes by the scorer.

Whoever is killed loses those minutes, and the shadow takes so much longer. A document that is damaged is told and begun
again: a candidate that waits a day longer harms nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ml.model_manifest import MODEL_ID, ModelRefused
from ml.shadowing import Alarm, Shadow
from onecollector_resources.storage.objects import ObjectMissing, ObjectStore, key_part
from onecollector_resources.storage.sealed import Unsealed, seal, unseal

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ShadowStore:
    """One tenant's. Every method may raise StoreError."""

    store: ObjectStore
    tenant: str

    def key(self, model_id: str) -> str:
        """Where a model's shadow lies."""
        return f"{self._prefix}{model_id}.json"

    def read(self, model_id: str) -> Shadow | None:
        """None where the model was never in anybody's shadow. Raises ModelRefused for a document that is damaged."""
        try:
            data = self.store.get(self.key(model_id))
        except ObjectMissing:
            return None
        try:
            return _shadow(unseal(data), model_id)
        except (Unsealed, KeyError, TypeError, ValueError) as error:
            raise ModelRefused(
                f"{self.store.url}/{self.key(model_id)}: {error}; remove it, and the model is shadowed again"
            ) from None

    def save(self, shadow: Shadow) -> None:
        """In the place of what was kept."""
        self.store.put(self.key(shadow.model_id), seal({"format": FORMAT, **asdict(shadow)}))

    def end(self, model_id: str, why: str) -> None:
        """Say what became of it; nothing where there is none."""
        found = self.read(model_id)
        if found is not None and not found.ended:
            self.save(replace(found, ended=why))

    def ids(self) -> list[str]:
        """Models that have a shadow, those that were trained first in front."""
        names = (info.key.removeprefix(self._prefix).removesuffix(".json") for info in self.store.list(self._prefix))
        return sorted(name for name in names if MODEL_ID.fullmatch(name))

    def open_ones(self) -> list[Shadow]:
        """Shadows that have not ended, oldest model first; damaged ones are left out."""
        out = []
        for model_id in self.ids():
            try:
                found = self.read(model_id)
            except ModelRefused:
                continue
            if found is not None and not found.ended:
                out.append(found)
        return out

    def remove(self, model_id: str) -> None:
        """With its model."""
        self.store.delete(self.key(model_id))

    @property
    def _prefix(self) -> str:
        return f"shadows/{key_part(self.tenant)}/"


def _shadow(body: Mapping[str, Any], model_id: str) -> Shadow:
    fields = dict(body)
    if fields.pop("format") != FORMAT:
        raise Unsealed(f"expected format {FORMAT}")
    if fields["model_id"] != model_id:
        raise Unsealed(f"expected the shadow of {model_id}, found another's")
    for side in ("own", "others"):
        fields[side] = tuple(Alarm(**one) for one in fields[side])
    return Shadow(**fields)
