"""Names of the objects in Loki's store: which tenant, which time, which checksum they are for.

A chunk's name holds its span and the crc32c of all its bytes, so a listing alone says which days it belongs to and
whether a copy is whole. On a file system Loki writes the last part of the name in base64; here it is always the plain
form, and turned back where a Loki on a file system is to read it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from onecollector_resources.loki.chunks.keys import parse_key

DAY_MS = 86_400_000
EPOCH = date(1970, 1, 1)

INDEX = "index/"
"""Where all of the index lies."""


@dataclass(frozen=True, slots=True, order=True)
class ChunkKey:
    """A chunk of one stream: lines from ``from_ms`` to ``through_ms``, both inclusive, in ms since the epoch."""

    tenant: str
    fingerprint: str
    from_ms: int
    through_ms: int
    checksum: int
    """crc32c of the object."""

    @property
    def name(self) -> str:
        return f"{self.from_ms:x}:{self.through_ms:x}:{self.checksum:x}"

    @property
    def key(self) -> str:
        """As in a bucket."""
        return f"{self.tenant}/{self.fingerprint}/{self.name}"

    @property
    def file_key(self) -> str:
        """As on a file system."""
        return f"{self.tenant}/{self.fingerprint}/{base64.b64encode(self.name.encode()).decode()}"

    def days(self) -> Iterator[date]:
        """Days (UTC) that it has lines of, the first to the last."""
        for number in range(self.from_ms // DAY_MS, self.through_ms // DAY_MS + 1):
            yield EPOCH + timedelta(days=number)


def parse_chunk_key(key: str) -> ChunkKey | None:
    """A chunk's key in either form, or None for what is none."""
    found = parse_key(key)
    tenant = key.partition("/")[0]
    if found is None or not tenant or not found.from_ms <= found.through_ms <= LAST_MS:
        return None
    return ChunkKey(tenant, found.fingerprint, found.from_ms, found.through_ms, found.crc)


LAST_MS = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1000
"""Python's dates end there."""


def day_number(day: date) -> int:
    """Days since the epoch: the number of Loki's index table of that day."""
    return (day - EPOCH).days


def day_ms(day: date) -> tuple[int, int]:
    """The day as [from, until) in ms since the epoch."""
    first = day_number(day) * DAY_MS
    return first, first + DAY_MS


def index_folder(table_prefix: str, day: date) -> str:
    """Where Loki keeps the index of a day, with the slash."""
    return f"{INDEX}{table_prefix}{day_number(day)}/"


def index_is_of(key: str, folder: str, tenant: str) -> bool:
    """Whether an index object may name chunks of the tenant: its own, or one that several tenants share."""
    inner = key.removeprefix(folder)
    return inner != key and ("/" not in inner or inner.startswith(f"{tenant}/"))
