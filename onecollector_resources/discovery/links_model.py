"""Links as records, and their names: a name holds everything, so a lost journal can be read back from the tree."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from onecollector_resources.records import ObservedSource

LINK_NAME = re.compile(r"(?P<name>[^/]+)--(?P<id>[0-9a-f]{64})(?:\.(?P<segment>\d+))?\.log")

PROBES = "onecollector-probe"
"""Service of probe lines, and folder of their files: not ours to keep or to prove."""

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LinkRow:
    """What the journal keeps of a link: what its name does not say."""

    source_id: str
    segment: int
    dev: int
    ino: int
    mode: Literal["link", "spool"]
    finished: bool
    delivered: bool
    records: int
    joined: int
    counted: int
    read: int
    created: float
    truncated: bool = False
    size: int = 0
    mark: str = ""
    """How large a delivered file was and how it begins, whose link went; empty when the file went with it."""
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One link as people and other parts see it. Sizes in bytes."""

    source_id: str
    tenant: str
    service: str
    segment: int
    path: str
    mode: Literal["link", "spool"]
    placed: bool
    finished: bool
    size: int
    read: int
    reason: str = ""

    @property
    def behind(self) -> int:
        """Bytes that the collector has not read yet."""
        return max(0, self.size - self.read)


class LinkJournal(Protocol):
    """Where a LinkKeeper remembers; writes may be lost with a power cut, not with a kill."""

    def load_links(self) -> list[LinkRow]: ...
    def save_link(self, row: LinkRow) -> None: ...
    def forget_link(self, source_id: str, segment: int) -> None: ...
    def load_value(self, key: str) -> str | None: ...
    def save_value(self, key: str, value: str) -> None: ...
    def forget_value(self, key: str) -> None: ...


def link_name(safe_name: str, source_id: str, segment: int) -> str:
    """``<name>--<id>[.<n>].log``; the first file has no number."""
    return f"{safe_name}--{source_id}{f'.{segment}' if segment else ''}.log"


@dataclass(frozen=True, slots=True)
class PlacedName:
    """What a path below a tree says."""

    tenant: str
    pipeline: str
    service: str
    safe_name: str
    source_id: str
    segment: int


def parse_path(path: Path, tree: Path) -> PlacedName | None:
    """A placed link's path read back; None for what is not one."""
    try:
        parts = path.relative_to(tree).parts
    except ValueError:
        return None
    match = LINK_NAME.fullmatch(path.name)
    if match is None or len(parts) != 4:
        return None
    return PlacedName(parts[0], parts[1], parts[2], match["name"], match["id"], int(match["segment"] or 0))


def source_to_text(observed: ObservedSource) -> str:
    """A source's description for the journal: its container may be gone when an agent comes back."""
    return json.dumps({**asdict(observed), "labels": dict(observed.labels)}, default=lambda when: when.isoformat())


def source_from_text(text: str) -> ObservedSource | None:
    """The description read back; None for what another version wrote."""
    try:
        body = json.loads(text)
        for name in ("created", "ended"):
            body[name] = datetime.fromisoformat(body[name]) if body[name] else None
        return ObservedSource(**{**body, "warnings": tuple(body["warnings"])})
    except (ValueError, TypeError, KeyError):
        return None


def source_from_name(named: PlacedName, path: Path) -> ObservedSource:
    """What a placed link's name alone says of its source, which is gone."""
    profile, _, multiline = named.pipeline.partition("+")
    began = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return ObservedSource(
        source_id=named.source_id,
        kind="file" if profile in ("plain", "cri") else "container",
        name=named.safe_name,
        safe_name=named.safe_name,
        tenant=named.tenant,
        service=named.service,
        service_raw=named.service,
        profile=profile,
        multiline=multiline or None,
        driver="",
        log_path="",
        running=False,
        created=began,
        ended=began,
    )


def ended_now(observed: ObservedSource, now: datetime) -> ObservedSource:
    """The same source, gone by now."""
    return replace(observed, running=False, ended=observed.ended or now)
