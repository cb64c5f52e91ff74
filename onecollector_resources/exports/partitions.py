"""Where exported lines lie, and what is written down of them: one folder and one manifest per service and hour.

A partition is the unit of everything: it is read, written, replaced, proved and taken up again as a whole. Its files
are named by their content and its manifest names them, so a partition changes in the one moment in which its manifest
is replaced, and the same lines give the same bytes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import orjson

from onecollector_resources.storage.objects import key_part

HOUR_NS = 3_600 * 10**9
MANIFEST = "_manifest.json"
"""Begins with _ so that readers of a folder of Parquet files pass it by."""

MANIFEST_VERSION = 1

PREFIX = re.compile(
    r"tenant=(?P<tenant>[^/]+)/service=(?P<service>[^/]*)/date=(?P<date>\d{4}-\d\d-\d\d)/hour=(?P<hour>\d\d)/"
)


class ManifestError(ValueError):
    """A manifest cannot be read; the message names it, what was expected and what was found."""


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One service's lines of one hour (UTC). ``service`` is empty for streams without a ``service_name``."""

    tenant: str
    service: str
    hour: datetime

    @property
    def start_ns(self) -> int:
        """First nanosecond, inclusive."""
        return int(self.hour.timestamp()) * 10**9

    @property
    def end_ns(self) -> int:
        """End in ns, exclusive."""
        return self.start_ns + HOUR_NS

    @property
    def prefix(self) -> str:
        """``tenant=…/service=…/date=…/hour=…/``, safe as a path whatever a service is called."""
        # No service is an empty text, not Hive's mark for null: pandas.read_parquet fails on a folder with that mark.
        service = key_part(self.service)
        return f"tenant={key_part(self.tenant)}/service={service}/date={self.hour:%Y-%m-%d}/hour={self.hour:%H}/"

    @property
    def manifest_key(self) -> str:
        """Key of the manifest."""
        return self.prefix + MANIFEST

    def __str__(self) -> str:
        return f"{self.tenant}/{self.service or '(no service)'} {self.hour:%Y-%m-%d %H}:00"


def partition_of(key: str) -> Partition | None:
    """The partition that a key lies in; None for keys of something else."""
    match = PREFIX.match(key)
    if match is None:
        return None
    hour = datetime.strptime(f"{match['date']} {match['hour']}", "%Y-%m-%d %H").replace(tzinfo=UTC)
    return Partition(unquote(match["tenant"]), unquote(match["service"]), hour)


def hours_between(start_ns: int, end_ns: int) -> Iterator[datetime]:
    """Every hour (UTC) that [start_ns, end_ns) touches."""
    hour = datetime.fromtimestamp(start_ns // HOUR_NS * 3600, UTC)
    while hour.timestamp() * 1e9 < end_ns:
        yield hour
        hour += timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PartFile:
    """One Parquet file of a partition; ``name`` is within the partition's folder and carries the content's hash."""

    name: str
    rows: int
    bytes: int
    sha256: str
    first_ns: int | None
    last_ns: int | None


@dataclass(frozen=True, slots=True)
class Hole:
    """Record numbers ``first`` to ``last`` of one file of one container that no line of the hour has."""

    source_id: str
    segment: int
    first: int
    last: int
    known: str = ""
    """The cause that the registry's gaps give for it; empty where nobody knows of it."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a partition holds and how that is known.

    ``entries`` is what the source held with duplicates, ``duplicates`` how many of them were left out; ``rows`` is the
    rest. ``source`` identifies what was read (chunk keys, or Loki's own statistics), so that later data is noticed.
    ``clip_start_ns`` and ``clip_end_ns`` are the part of the hour that was asked for. ``problems`` say why a partition
    is not complete.
    """

    partition: Partition
    query: str
    engine: str
    clip_start_ns: int
    clip_end_ns: int
    entries: int
    duplicates: int
    rows: int
    line_bytes: int
    first_ns: int | None
    last_ns: int | None
    source: str
    settled: bool
    files: tuple[PartFile, ...]
    holes: tuple[Hole, ...] = ()
    problems: tuple[str, ...] = ()
    version: int = MANIFEST_VERSION

    @property
    def complete(self) -> bool:
        """Whether every line that Loki holds is there."""
        return not self.problems and self.entries - self.duplicates == self.rows

    def to_json(self) -> bytes:
        """As JSON with sorted keys: equal manifests have equal bytes."""
        fields = dataclasses.asdict(self)
        fields["partition"] = {
            "tenant": self.partition.tenant,
            "service": self.partition.service,
            "hour": self.partition.hour.isoformat(),
        }
        return orjson.dumps({**fields, "complete": self.complete}, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)


def manifest_of(data: bytes, name: str) -> Manifest:
    """A manifest read back. Raises ManifestError."""
    try:
        fields: dict[str, Any] = orjson.loads(data)
        if fields["version"] != MANIFEST_VERSION:
            raise ManifestError(
                f"{name}: expected manifest version {MANIFEST_VERSION}, found {fields['version']}; "
                "it was written by another version of onecollector"
            )
        fields.pop("complete")
        where = fields.pop("partition")
        return Manifest(
            partition=Partition(where["tenant"], where["service"], datetime.fromisoformat(where["hour"])),
            files=tuple(PartFile(**row) for row in fields.pop("files")),
            holes=tuple(Hole(**row) for row in fields.pop("holes")),
            problems=tuple(fields.pop("problems")),
            **fields,
        )
    except ManifestError:
        raise
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ManifestError(
            f"{name}: expected a manifest of an exported partition, found something else ({error}); "
            "export the hour again"
        ) from error
