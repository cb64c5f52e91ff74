"""What is kept of templates on an object store: a tenant's templates, and how many lines of each a day had.

Files are Parquet, named by their content and never changed; a small JSON beside them names the one that counts, with
its sha256, and is replaced by a conditional put. So a reader sees one whole state, two writers cannot both win, and a
file that is not what was written is refused instead of read. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import orjson

from ml.masking import MASKS_VERSION
from ml.service_templates import Template, followed
from ml.templates import TemplateMiner
from onecollector_resources.storage.objects import ObjectMissing, ObjectStore, key_part

if TYPE_CHECKING:
    import polars as pl

SCHEMA_VERSION = 1

LARGEST = 256 << 20
"""Bytes of a file that is read: two million templates are about 200 MB."""


class TemplateStoreError(RuntimeError):
    """What is kept cannot be used; the message says which object, what was expected, what was found, what to do."""


@dataclass(frozen=True, slots=True)
class Seen:
    """When a template's first and last line were, in ns since the epoch."""

    first_ns: int
    last_ns: int

    def with_lines(self, first_ns: int, last_ns: int) -> Seen:
        """Also then."""
        return Seen(min(self.first_ns, first_ns), max(self.last_ns, last_ns))


@dataclass(slots=True)
class StoredTemplates:
    """A tenant's templates. ``etag`` is the version that was read, empty where there was none."""

    services: dict[str, list[Template]] = field(default_factory=dict)
    merged_into: dict[str, dict[str, str]] = field(default_factory=dict)
    seen: dict[tuple[str, str], Seen] = field(default_factory=dict)
    """By service and id."""
    etag: str = ""

    def fill(self, miner: TemplateMiner) -> None:
        """Give a new miner what is known."""
        for service, templates in self.services.items():
            last = [self.seen[service, t.id].last_ns if (service, t.id) in self.seen else 0 for t in templates]
            miner.service(service).restore(templates, self.merged_into.get(service, {}), last)

    def take(self, miner: TemplateMiner) -> None:
        """Take over what a miner knows now."""
        for service, known in miner.services.items():
            self.services[service] = list(known.templates.values())
            # A template that was swallowed lives again when its text comes after the other one was forgotten.
            self.merged_into[service] = dict(known.merged_into)
        self.merged_into = {service: merged for service, merged in self.merged_into.items() if merged}
        alive = {(service, template.id) for service, templates in self.services.items() for template in templates}
        self.seen = {key: seen for key, seen in self.seen.items() if key in alive}

    def current(self, service: str, template_id: str) -> str:
        """The id of what a template has become part of; itself where it has not."""
        return followed(template_id, self.merged_into.get(service, {}))


@dataclass(frozen=True, slots=True)
class TemplateStore:
    """One tenant's. Every method may raise StoreError; reading raises TemplateStoreError for what is damaged."""

    store: ObjectStore
    tenant: str

    @property
    def prefix(self) -> str:
        """Where everything of the tenant lies."""
        return f"templates/{key_part(self.tenant)}/"

    def load(self) -> StoredTemplates:
        """The tenant's templates; none where nothing was kept yet."""
        found = self._read("templates.json")
        if found is None:
            return StoredTemplates()
        etag, manifest, frame = found
        state = of_table(frame)
        state.etag = etag
        if manifest["masks"] != MASKS_VERSION:
            # Texts are masked otherwise now: what was known does not cover them, its ids stay for what was counted.
            state.services.clear()
        return state

    def save(self, state: StoredTemplates) -> None:
        """Keep the tenant's templates. Raises PutConflict where another wrote since ``state`` was read."""
        state.etag = self._write(
            "templates.json", "templates", to_table(state), {"services": len(state.services)}, state.etag
        )

    def days(self) -> list[date]:
        """Days of which counts are kept, in order."""
        folder = self.prefix + "days/"
        keys = [info.key.removeprefix(folder) for info in self.store.list(folder)]
        return sorted(date.fromisoformat(key.removesuffix(".json")) for key in keys if key.endswith(".json"))

    def load_day(self, day: date) -> tuple[dict[str, Any], pl.DataFrame] | None:
        """What is known of a day and its counts (see ``ml.template_days.COLUMNS``); None where it was not counted."""
        found = self._read(f"days/{day}.json")
        return None if found is None else found[1:]

    def save_day(self, day: date, counts: pl.DataFrame, facts: Mapping[str, Any]) -> None:
        """Keep a day's counts over those that were there; ``facts`` are plain values about the whole day."""
        before = self._read_pointer(f"days/{day}.json")
        self._write(f"days/{day}.json", f"days/{day}", counts, facts, before[0] if before else "")

    def _write(self, pointer: str, name: str, frame: pl.DataFrame, facts: Mapping[str, Any], etag: str) -> str:
        opened = io.BytesIO()
        frame.write_parquet(opened, compression="zstd", statistics=False)
        data = opened.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        file = f"{name}-{digest[:12]}.parquet"
        before = self._read_pointer(pointer)
        self.store.put(self.prefix + file, data)
        manifest = {
            **facts,
            "schema": SCHEMA_VERSION,
            "masks": MASKS_VERSION,
            "file": file,
            "sha256": digest,
            "bytes": len(data),
            "rows": frame.height,
        }
        body = orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
        key = self.prefix + pointer
        now = self.store.put(key, body, only_if_match=etag) if etag else self.store.put(key, body, only_if_absent=True)
        if before is not None and before[1].get("file") not in (None, file):
            self.store.delete(self.prefix + before[1]["file"])
        return now

    def _read_pointer(self, pointer: str) -> tuple[str, dict[str, Any]] | None:
        """Version and content of a JSON; None where it is not there."""
        key = self.prefix + pointer
        try:
            etag, data = self.store.head(key).etag, self.store.get(key)
        except ObjectMissing:
            return None
        try:
            manifest = orjson.loads(data)
            if manifest["schema"] != SCHEMA_VERSION:
                raise self._refused(pointer, f"schema {SCHEMA_VERSION}", f"schema {manifest['schema']}")
            if not all(isinstance(manifest[name], kind) for name, kind in _FIELDS.items()):
                raise TypeError("a field of another type")
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise self._refused(pointer, "a manifest of templates", f"something else ({error})") from error
        return etag, manifest

    def _read(self, pointer: str) -> tuple[str, dict[str, Any], pl.DataFrame] | None:
        import polars as pl

        for attempt in range(5):
            found = self._read_pointer(pointer)
            if found is None:
                return None
            etag, manifest = found
            if manifest["bytes"] > LARGEST:
                raise self._refused(pointer, f"a file of {LARGEST:,} bytes at most", f"{manifest['bytes']:,} bytes")
            try:
                data = self.store.get(self.prefix + manifest["file"])
            except ObjectMissing as error:
                if attempt < 4 and self._read_pointer(pointer) != found:
                    # Replaced meanwhile.
                    continue
                raise self._refused(manifest["file"], "the file that its manifest names", "none") from error
            digest = hashlib.sha256(data).hexdigest()
            if digest != manifest["sha256"]:
                raise self._refused(manifest["file"], f"sha256 {manifest['sha256'][:12]}…", f"{digest[:12]}…")
            try:
                return etag, manifest, pl.read_parquet(io.BytesIO(data))
            except pl.exceptions.PolarsError as error:
                raise self._refused(manifest["file"], "Parquet", f"something else ({error})") from error
        raise self._refused(pointer, "one state", "that it was replaced five times while it was read")

    def _refused(self, key: str, expected: str, found: str) -> TemplateStoreError:
        return TemplateStoreError(
            f"{self.store.url}/{self.prefix}{key}: expected {expected}, found {found}; bring it back from a copy, or "
            f"remove what lies under {self.prefix} and count the days again"
        )


_FIELDS = {"file": str, "sha256": str, "bytes": int, "rows": int, "masks": int}


def to_table(state: StoredTemplates) -> pl.DataFrame:
    """Everything that is known, a row for each template."""
    import polars as pl

    schema = {
        "service": pl.String,
        "id": pl.String,
        "founded_by": pl.String,
        "shape": pl.String,
        "tokens": pl.List(pl.String),
        "first_ns": pl.Int64,
        "last_ns": pl.Int64,
        "merged_into": pl.String,
    }
    return pl.DataFrame(list(_rows(state)), schema=schema, orient="row")


def of_table(frame: pl.DataFrame) -> StoredTemplates:
    """What ``to_table`` made a table of."""
    state = StoredTemplates()
    for row in frame.iter_rows(named=True):
        service, identity = row["service"], row["id"]
        if row["merged_into"] is not None:
            state.merged_into.setdefault(service, {})[identity] = row["merged_into"]
            continue
        template = Template(identity, row["founded_by"], row["shape"], tuple(row["tokens"]))
        state.services.setdefault(service, []).append(template)
        if row["first_ns"] is not None:
            state.seen[service, identity] = Seen(row["first_ns"], row["last_ns"])
    for service, templates in state.services.items():
        for template in templates:
            # Versions before this one kept that it had been swallowed once.
            state.merged_into.get(service, {}).pop(template.id, None)
    return state


def _rows(state: StoredTemplates) -> Iterator[Sequence[Any]]:
    for service, templates in sorted(state.services.items()):
        for template in templates:
            seen = state.seen.get((service, template.id))
            times = (seen.first_ns, seen.last_ns) if seen else (None, None)
            yield service, template.id, template.founded_by, template.shape, list(template.tokens), *times, None
    for service, merged in sorted(state.merged_into.items()):
        for identity, into in merged.items():
            yield service, identity, None, None, None, None, None, into
