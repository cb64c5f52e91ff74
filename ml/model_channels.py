"""Which model serves: small pointers that move by conditional put, so of two who move one at once only one does.

``production`` names the model that serves and, in the same object, the one that served before it: going back is one
put as well, and a process killed between two puts leaves the one model or the other. ``previous`` is a copy of that for
people, and the way back where ``production`` itself is damaged. ``candidate`` is what was trained last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from ml.model_manifest import FORMAT, MODEL_ID, ModelRefused
from onecollector_resources.storage.objects import ObjectMissing, ObjectStore, PutConflict, key_part
from onecollector_resources.storage.sealed import Unsealed, seal, unseal

Channel = Literal["production", "candidate", "previous"]
Clock = Callable[[], datetime]


MEND: dict[Channel, str] = {
    "production": "set it again: onecollector models promote MODEL --force",
    "candidate": "train again: onecollector models train",
    "previous": "it is written anew when a model is promoted: onecollector models promote MODEL",
}
"""What to do about a pointer that cannot be read."""


class MovedMeanwhile(RuntimeError):
    """Somebody else moved the pointer: nothing was changed."""


class NotPassed(RuntimeError):
    """The model failed gates; the message says which, and how to promote it all the same."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a channel points. ``moved`` is when, ``why`` is in words; ``previous`` is empty where none served before."""

    model_id: str
    previous: str
    moved: str
    why: str


@dataclass(frozen=True, slots=True)
class Channels:
    """One tenant's. Every method may raise StoreError."""

    store: ObjectStore
    tenant: str
    clock: Clock = lambda: datetime.now(UTC)

    def key(self, channel: Channel) -> str:
        """Where the pointer lies."""
        return f"channels/{key_part(self.tenant)}/{channel}.json"

    def read(self, channel: Channel) -> tuple[str, Pointer] | None:
        """Version and content; None where it was never set. Raises ModelRefused for one that is damaged."""
        key = self.key(channel)
        try:
            # In this order: what is put over an older version than was read is refused by the store.
            etag, data = self.store.head(key).etag, self.store.get(key)
        except ObjectMissing:
            return None
        where = f"{self.store.url}/{key}"
        try:
            body = unseal(data)
            if body.pop("format") != FORMAT:
                raise Unsealed(f"expected format {FORMAT}")
            pointer = Pointer(**body)
            for model_id in (pointer.model_id, pointer.previous):
                if model_id and not MODEL_ID.fullmatch(model_id):
                    raise Unsealed(f"expected the id of a model, found {model_id!r}")
        except (Unsealed, KeyError, TypeError) as error:
            raise ModelRefused(f"{where}: {error}; {MEND[channel]}") from None
        return etag, pointer

    def current(self, channel: Channel = "production") -> str:
        """The id of the model; empty where there is none. Raises ModelRefused."""
        found = self.read(channel)
        return found[1].model_id if found else ""

    def pointed_at(self) -> str:
        """The id of the model in production; empty where there is none, or where the pointer cannot be read."""
        try:
            return self.current()
        except ModelRefused:
            return ""

    def point_candidate(self, model_id: str, why: str) -> None:
        """The candidate is what was trained last: of two trainings the later put stays."""
        self.store.put(self.key("candidate"), self._sealed(Pointer(model_id, "", self._now(), why)))

    def promote(self, model_id: str, why: str, *, over: str | None = None) -> Pointer:
        """Let a model serve. ``over`` is the one that it was compared with: another in its place is MovedMeanwhile."""
        found = self.read("production")
        current = found[1].model_id if found else ""
        if over is not None and current not in (over, model_id):
            raise self._moved(f"expected {over or 'no model'} in production, found {current or 'none'}")
        if found and current == model_id:
            self._copy_previous(found[1])
            return found[1]
        return self._move(Pointer(model_id, current, self._now(), why), found[0] if found else "")

    def roll_back(self, why: str) -> Pointer:
        """Let the model serve again that did before. Raises ModelRefused where none did."""
        found = self.read("production")
        if found is None or not found[1].previous:
            raise ModelRefused(
                f"{self.store.url}/{self.key('production')}: expected a model that served before, found none; "
                "choose one: onecollector models list, onecollector models promote MODEL"
            )
        now = found[1]
        return self._move(Pointer(now.previous, now.model_id, self._now(), why), found[0])

    def reset(self, model_id: str, why: str) -> Pointer:
        """Let a model serve where the pointer cannot be read: whatever is there is overwritten."""
        pointer = Pointer(model_id, "", self._now(), why)
        self.store.put(self.key("production"), self._sealed(pointer))
        return pointer

    def _move(self, pointer: Pointer, etag: str) -> Pointer:
        key, data = self.key("production"), self._sealed(pointer)
        try:
            if etag:
                self.store.put(key, data, only_if_match=etag)
            else:
                self.store.put(key, data, only_if_absent=True)
        except PutConflict as error:
            raise self._moved(str(error)) from error
        self._copy_previous(pointer)
        return pointer

    def _copy_previous(self, pointer: Pointer) -> None:
        if pointer.previous:
            copy = Pointer(pointer.previous, "", pointer.moved, f"{pointer.model_id} took its place: {pointer.why}")
            self.store.put(self.key("previous"), self._sealed(copy))

    def _moved(self, what: str) -> MovedMeanwhile:
        return MovedMeanwhile(
            f"{self.tenant}: {what}: somebody else moved it, nothing was changed; look: onecollector models list"
        )

    def _now(self) -> str:
        return self.clock().astimezone(UTC).isoformat(timespec="seconds")

    @staticmethod
    def _sealed(pointer: Pointer) -> bytes:
        return seal({"format": FORMAT, **asdict(pointer)})
