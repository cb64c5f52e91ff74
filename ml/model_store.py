"""Models on an object store: immutable folders of plain arrays and JSON, whole or not there, and never unpickled.

Files go first and the manifest last, so a training that is killed leaves no model. What is read is held against the
manifest before anything is computed with it; a model that is not what was written is refused, and the one that served
before goes on serving.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ml.detectors import Shard
from ml.drift import Sightings
from ml.gate_limits import MOST_FILE
from ml.model_channels import Channels, Clock
from ml.model_manifest import (
    MODEL_ID,
    TRAIN_AGAIN,
    Learned,
    ModelFile,
    ModelManifest,
    ModelRefused,
    from_bytes,
    identity,
    model_prefix,
    to_bytes,
)
from ml.shadow_store import ShadowStore
from ml.shard_arrays import BadShard, from_arrays, to_arrays
from ml.template_store import StoredTemplates, of_table, to_table
from onecollector_resources.storage.objects import ObjectCorrupt, ObjectMissing, ObjectStore, PutConflict

LARGEST_ARRAYS = 1 << 30
"""Bytes of a shard's arrays when they are unpacked."""
MANIFEST = "manifest.json"
LEFT_BEHIND = timedelta(days=1)
"""After this long, files without a manifest are a training that was killed."""


@dataclass(frozen=True, slots=True)
class TrainedShard:
    """A shard, and when each template of its services was seen last: what a scorer starts from."""

    shard: Shard
    sightings: tuple[Sightings, ...]


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What a service's part of a model was learned from. ``days`` were observed, ``missing_share`` of the range was not;
    ``overflow`` of its lines have no template of their own.
    """

    service: str
    days: float
    lines: int
    templates: int
    missing_share: float
    learning: bool
    overflow: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was read whole and found right."""

    manifest: ModelManifest
    shards: tuple[TrainedShard, ...]
    templates: StoredTemplates
    """What lines are mined with for this model: its vocabularies are of these."""

    @property
    def model_id(self) -> str:
        return self.manifest.model_id


@dataclass(frozen=True, slots=True)
class Serving:
    """The model that serves, None where none can; ``problems`` say why it is not the one in production."""

    model: Model | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelStore:
    """One tenant's models. Every method may raise StoreError."""

    store: ObjectStore
    tenant: str
    clock: Clock = lambda: datetime.now(UTC)

    @property
    def channels(self) -> Channels:
        """Which of them serves."""
        return Channels(self.store, self.tenant, self.clock)

    @property
    def shadows(self) -> ShadowStore:
        """How candidates did beside the one that serves."""
        return ShadowStore(self.store, self.tenant)

    def write(
        self,
        shards: Sequence[bytes],
        names: Sequence[bytes],
        services: Sequence[ServiceFacts],
        evaluation: Mapping[str, Any],
        learned: Learned,
        parent: str,
        templates: StoredTemplates,
    ) -> ModelManifest:
        """Keep a model: packed shards (``packed``), facts of its services, its evaluation, and the templates that its
        vocabularies are of. Nothing serves it yet.
        """
        parts: dict[str, bytes] = {}
        for number, (arrays, text) in enumerate(zip(shards, names, strict=True)):
            parts[f"shard-{number:04}.npz"], parts[f"shard-{number:04}.json"] = arrays, text
        opened = io.BytesIO()
        to_table(templates).write_parquet(opened, compression="zstd")
        parts["templates.parquet"] = opened.getvalue()
        parts["services.json"] = orjson.dumps([asdict(one) for one in services])
        parts["eval.json"] = orjson.dumps(
            evaluation, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
        )
        files = tuple(ModelFile(n, len(data), hashlib.sha256(data).hexdigest()) for n, data in sorted(parts.items()))
        made = self.clock().astimezone(UTC)
        manifest = ModelManifest(
            self.tenant,
            identity(made, files, learned, parent),
            made.isoformat(timespec="seconds"),
            parent,
            len(services),
            sum(one.learning for one in services),
            len(shards),
            learned,
            files,
        )
        for name, data in parts.items():
            self.store.put(manifest.prefix + name, data)
        try:
            self.store.put(manifest.prefix + MANIFEST, to_bytes(manifest), only_if_absent=True)
        except PutConflict:
            # The same second and the same content: it is there already.
            self.manifest(manifest.model_id)
        return manifest

    def ids(self) -> list[str]:
        """Models that are whole as far as their manifests say, oldest first."""
        prefix = model_prefix(self.tenant)
        keys = (info.key.removeprefix(prefix).split("/") for info in self.store.list(prefix))
        return sorted(key[0] for key in keys if key[1:] == [MANIFEST] and MODEL_ID.fullmatch(key[0]))

    def manifest(self, model_id: str) -> ModelManifest:
        """Raises ModelRefused."""
        key = model_prefix(self.tenant, model_id) + MANIFEST
        where = f"{self.store.url}/{key}"
        if not MODEL_ID.fullmatch(model_id):
            raise ModelRefused(f"{model_id!r}: expected the id of a model; look: onecollector models list")
        try:
            data = self.store.get(key)
        except ObjectMissing:
            raise ModelRefused(
                f"{where}: expected a manifest, found none: the model is not there; look: onecollector models list"
            ) from None
        except ObjectCorrupt as error:
            raise ModelRefused(f"{where}: {error}; {TRAIN_AGAIN}") from None
        return from_bytes(data, where, model_id)

    def file(self, manifest: ModelManifest, name: str) -> bytes:
        """A file of a model as it was written. Raises ModelRefused."""
        where = f"{self.store.url}/{manifest.prefix}{name}"
        known = next((file for file in manifest.files if file.name == name), None)
        if known is None:
            raise ModelRefused(f"{where}: expected the manifest to name it, found that it does not; {TRAIN_AGAIN}")
        if known.bytes > MOST_FILE:
            raise ModelRefused(f"{where}: expected at most {MOST_FILE:,} bytes, found {known.bytes:,}; {TRAIN_AGAIN}")
        try:
            data = self.store.get(manifest.prefix + name)
        except ObjectMissing:
            raise ModelRefused(
                f"{where}: expected a file of {known.bytes:,} bytes, found none; {TRAIN_AGAIN}"
            ) from None
        except ObjectCorrupt as error:
            raise ModelRefused(f"{where}: {error}; {TRAIN_AGAIN}") from None
        if len(data) != known.bytes:
            raise ModelRefused(f"{where}: expected {known.bytes:,} bytes, found {len(data):,}; {TRAIN_AGAIN}")
        digest = hashlib.sha256(data).hexdigest()
        if digest != known.sha256:
            raise ModelRefused(f"{where}: expected sha256 {known.sha256[:12]}…, found {digest[:12]}…; {TRAIN_AGAIN}")
        return data

    def shard(self, manifest: ModelManifest, number: int) -> TrainedShard:
        """One shard. Raises ModelRefused."""
        arrays, names = (self.file(manifest, f"shard-{number:04}.{kind}") for kind in ("npz", "json"))
        try:
            return unpacked(arrays, names)
        except BadShard as error:
            where = f"{self.store.url}/{manifest.prefix}shard-{number:04}.npz"
            raise ModelRefused(f"{where}: {error}; {TRAIN_AGAIN}") from None

    def load(self, model_id: str) -> Model:
        """The whole model. Raises ModelRefused."""
        manifest = self.manifest(model_id)
        shards = tuple(self.shard(manifest, number) for number in range(manifest.shards))
        return Model(manifest, shards, self.templates(manifest))

    def evaluation(self, manifest: ModelManifest) -> dict[str, Any]:
        """What its examination found. Raises ModelRefused."""
        return orjson.loads(self.file(manifest, "eval.json"))

    def services(self, manifest: ModelManifest) -> list[ServiceFacts]:
        """Raises ModelRefused."""
        return [ServiceFacts(**row) for row in orjson.loads(self.file(manifest, "services.json"))]

    def templates(self, manifest: ModelManifest) -> StoredTemplates:
        """The templates that its vocabularies are of. Raises ModelRefused."""
        import polars as pl

        try:
            return of_table(pl.read_parquet(io.BytesIO(self.file(manifest, "templates.parquet"))))
        except (pl.exceptions.PolarsError, KeyError, TypeError) as error:
            where = f"{self.store.url}/{manifest.prefix}templates.parquet"
            raise ModelRefused(
                f"{where}: expected a table of templates, found something else ({error}); {TRAIN_AGAIN}"
            ) from None

    def serving(self, held: Model | None = None) -> Serving:
        """The model in production; the one that is ``held``, or else the previous one, where that is refused.

        A held model is not read again as long as it is the one in production.
        """
        problems: list[str] = []
        wanted: list[str] = []
        try:
            found = self.channels.read("production")
            wanted = [found[1].model_id, found[1].previous] if found else []
            if found is None and held is not None:
                where = f"{self.store.url}/{self.channels.key('production')}"
                problems.append(
                    f"{where}: expected the pointer that was there, found none; set it: onecollector models promote"
                )
        except ModelRefused as error:
            problems.append(str(error))
            if held is None:
                try:
                    wanted = [self.channels.current("previous")]
                except ModelRefused as second:
                    problems.append(str(second))
        for model_id in filter(None, wanted):
            if held is not None and model_id == held.model_id:
                return Serving(held, tuple(problems))
            try:
                return Serving(self.load(model_id), tuple(problems))
            except ModelRefused as error:
                problems.append(str(error))
                if held is not None:
                    break
        return Serving(held if problems else None, tuple(problems))

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest ``keep`` models and those that a channel names or that are shadowed; answers which went."""
        named = set()
        for channel in ("production", "candidate", "previous"):
            found = self.channels.read(channel)
            named |= {found[1].model_id, found[1].previous} if found else set()
        named |= {shadow.model_id for shadow in self.shadows.open_ones()}
        ids = self.ids()
        gone = [model_id for model_id in ids[: max(0, len(ids) - keep)] if model_id not in named]
        for model_id in gone:
            # The manifest first: what is left of a prune that is killed is no model.
            self.store.delete(model_prefix(self.tenant, model_id) + MANIFEST)
            self.shadows.remove(model_id)
        for key in [*self._without_manifest(set(gone))]:
            self.store.delete(key)
        return gone

    def _without_manifest(self, gone: set[str]) -> Iterator[str]:
        whole, prefix = set(self.ids()), model_prefix(self.tenant)
        before = self.clock() - LEFT_BEHIND
        for info in self.store.list(prefix):
            model_id = info.key.removeprefix(prefix).split("/")[0]
            if model_id in gone or (model_id not in whole and info.modified < before):
                yield info.key


def packed(trained: TrainedShard) -> tuple[bytes, bytes]:
    """A shard as the bytes of its npz and of its JSON."""
    arrays: dict[str, Any]
    arrays, names = to_arrays(trained.shard)
    opened = io.BytesIO()
    np.savez_compressed(opened, **arrays)
    seen = [{name: [s.appeared[name], at] for name, at in s.last.items()} for s in trained.sightings]
    return opened.getvalue(), orjson.dumps({**names, "sightings": seen})


def unpacked(arrays: bytes, names: bytes) -> TrainedShard:
    """The shard. Raises BadShard for anything that is none."""
    try:
        text = orjson.loads(names)
        shard = from_arrays(_arrays(arrays), text)
        sightings = tuple(
            Sightings({n: int(at[0]) for n, at in one.items()}, {n: int(at[1]) for n, at in one.items()})
            for one in text["sightings"]
        )
    except (orjson.JSONDecodeError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise BadShard(f"the shard's names are incomplete: {error!r}") from None
    if len(sightings) != len(shard.services):
        raise BadShard(f"sightings of {len(shard.services)} services are expected, found {len(sightings)}")
    return TrainedShard(shard, sightings)


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST_ARRAYS:
            raise BadShard(f"at most {LARGEST_ARRAYS:,} bytes of arrays are expected, found {size:,}")
        with np.load(io.BytesIO(data), allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, zlib.error) as error:
        if isinstance(error, BadShard):
            raise
        raise BadShard(f"an npz of plain arrays is expected, found something else ({error})") from None
