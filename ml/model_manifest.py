"""What a stored model consists of and what it was learned from. The manifest is the model's commit record.

It is written last, once, and never changed: a model without one is not there. It names every file with its size and
sha256, and carries a checksum of itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from ml.masking import MASKS_VERSION
from onecollector_resources.storage.objects import key_part
from onecollector_resources.storage.sealed import Unsealed, seal, unseal

SCHEMA = 2
"""Raised whenever signals, their order or the meaning of a parameter change: older files are refused, not guessed at."""
FORMAT = 1
MODEL_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{12}")
FILE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,80}")
TRAIN_AGAIN = "train again: onecollector models train"


class ModelRefused(RuntimeError):
    """A model, or a pointer to one, that is not used; says which file, what was expected, what was found, what to do."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model: ``bytes`` is its size."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Learned:
    """What a model was learned from. ``minutes`` counts service minutes, ``missing_share`` those that nobody observed.

    ``snapshots`` are the sha256 of each day's tallies by day, ``versions`` those of the libraries it was made with.
    """

    first_day: str
    last_day: str
    minutes: int
    missing_share: float
    snapshots: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """A model of a tenant. ``schema`` is that of the signals, ``masks`` that of templates, ``parent`` served before."""

    tenant: str
    model_id: str
    made: str
    parent: str
    services: int
    learning: int
    shards: int
    learned: Learned
    files: tuple[ModelFile, ...]
    schema: int = SCHEMA
    masks: int = MASKS_VERSION

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def prefix(self) -> str:
        """Where its files lie."""
        return model_prefix(self.tenant, self.model_id)


def model_prefix(tenant: str, model_id: str = "") -> str:
    """Where a tenant's models lie, or one of them."""
    return f"models/{key_part(tenant)}/" + (f"{model_id}/" if model_id else "")


def identity(made: datetime, files: Sequence[ModelFile], learned: Learned, parent: str) -> str:
    """The model's id: when it was made, and what it is. The same content at the same second is the same model."""
    content = orjson.dumps(
        [[asdict(file) for file in files], asdict(learned), parent, SCHEMA, MASKS_VERSION], option=orjson.OPT_SORT_KEYS
    )
    return f"{made.astimezone(UTC):%Y%m%dT%H%M%S}-{hashlib.sha256(content).hexdigest()[:12]}"


def to_bytes(manifest: ModelManifest) -> bytes:
    """Sealed JSON."""
    return seal({"format": FORMAT, **asdict(manifest)})


def from_bytes(data: bytes, where: str, model_id: str) -> ModelManifest:
    """The manifest of the model ``model_id``, read from ``where``. Raises ModelRefused."""
    try:
        body = unseal(data)
        if body.get("format") != FORMAT:
            raise Unsealed(f"expected format {FORMAT}, found {body.get('format')!r}: another version wrote it")
        if body.get("schema") != SCHEMA or body.get("masks") != MASKS_VERSION:
            raise Unsealed(
                f"expected signals of schema {SCHEMA} and masks of version {MASKS_VERSION}, "
                f"found {body.get('schema')!r} and {body.get('masks')!r}"
            )
        if body.get("model_id") != model_id:
            raise Unsealed(f"expected the manifest of {model_id}, found that of {body.get('model_id')!r}")
        return _manifest(body)
    except Unsealed as error:
        raise ModelRefused(f"{where}: {error}; {TRAIN_AGAIN}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ModelRefused(
            f"{where}: a part of the manifest is missing or of another kind: {error!r}; {TRAIN_AGAIN}"
        ) from None


def _manifest(body: dict[str, Any]) -> ModelManifest:
    body = {name: value for name, value in body.items() if name != "format"}
    files = tuple(ModelFile(**row) for row in body.pop("files"))
    learned = Learned(**body.pop("learned"))
    manifest = ModelManifest(**body, learned=learned, files=files)
    for file in files:
        if not FILE_NAME.fullmatch(file.name):
            raise ValueError(f"{file.name!r} is no name of a file")
        if not (isinstance(file.bytes, int) and file.bytes >= 0 and isinstance(file.sha256, str)):
            raise ValueError(f"{file.name}: size or checksum of another kind")
    if not isinstance(manifest.shards, int) or not 0 <= manifest.shards <= len(files):
        raise ValueError(f"{manifest.shards!r} shards")
    return manifest
