"""The frozen records that every part of OneCollector shares.

They are plain facts: what was observed on a host, what was decided, what was lost. Times are aware UTC
datetimes, sizes are bytes, and every state is one of a closed set, so that a typo cannot become a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

SourceKind = Literal["container", "file"]
CollectMode = Literal["link", "spool", "none"]

Phase = Literal["waiting", "collecting", "uncollectable", "finished", "gone"]
"""What the agent sees of a source.

waiting: held under .pending (``reason`` says for what). collecting: its file is in the tree, the container runs.
uncollectable: nothing can be read (``reason``). finished: the container ended, its files are still in the tree.
gone: ended, and nothing of it is left in the tree.
"""

Flow = Literal["unknown", "flowing", "silent", "suspect", "proved"]
"""What Loki shows of a source, as HealthMonitor judged it last."""

SourceState = Literal["flowing", "silent", "waiting", "suspect", "uncollectable", "gone", "collecting"]
"""What people are shown: ``source_state(phase, flow)``."""

ConfigVerdict = Literal["unknown", "valid", "invalid", "live", "rejected", "undecided"]

GapCause = Literal[
    "links_over_size",
    "links_over_age",
    "free_space_floor",
    "unknown_containers",
    "log_removed",
    "truncated",
    "missing_in_loki",
    "unreadable",
    "engine_away",
    "disk_full",
    "backfill_horizon",
]


@dataclass(frozen=True, slots=True)
class LogSource:
    """One stream of lines on one host: a container, or a declared plain file.

    ``source_id`` is the container id, or for a plain file 64 hex digits made of host and path. ``tenant``,
    ``service`` and ``safe_name`` are safe as path components; ``service_raw`` and ``name`` are as they were found.
    ``pipeline`` (``docker``, ``plain+java``) is the folder name that chooses the collector's receiver.
    """

    host: str
    source_id: str
    kind: SourceKind
    name: str
    safe_name: str
    tenant: str
    service: str
    service_raw: str
    profile: str
    multiline: str | None
    mode: CollectMode
    path: str
    phase: Phase
    reason: str = ""
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    ended: datetime | None = None
    flow: Flow = "unknown"
    flow_reason: str = ""
    revision: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """``(host, source_id)``: the identity of a source in the registry."""
        return (self.host, self.source_id)

    @property
    def pipeline(self) -> str:
        """The folder under ``<tree>/<tenant>/``: the profile, with ``+<multiline>`` where a rule applies."""
        return pipeline_name(self.profile, self.multiline)

    @property
    def state(self) -> SourceState:
        """The one word that people are shown."""
        return source_state(self.phase, self.flow)


def pipeline_name(profile: str, multiline: str | None) -> str:
    """``docker`` or ``docker+java``; ``+`` never occurs in a safe name, so the pair can be read back."""
    return f"{profile}+{multiline}" if multiline else profile


def source_state(phase: Phase, flow: Flow) -> SourceState:
    """One word out of what the agent sees and what Loki shows."""
    if phase in ("waiting", "uncollectable", "gone"):
        return phase
    if flow in ("flowing", "silent", "suspect"):
        return flow
    return "flowing" if flow == "proved" else "collecting"


@dataclass(frozen=True, slots=True)
class ObservedSource:
    """A source as discovery found it, its identity decided; what LinkKeeper and the registry rows are made from.

    ``driver`` is the engine's log driver (json-file, local, none, ...) or ``file`` for a plain file. ``held`` and
    ``uncollectable`` are reasons, empty where there is none; an excluded source is left alone altogether.
    """

    source_id: str
    kind: SourceKind
    name: str
    safe_name: str
    tenant: str
    service: str
    service_raw: str
    profile: str
    multiline: str | None
    driver: str
    log_path: str
    running: bool
    created: datetime
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ended: datetime | None = None
    excluded: bool = False
    held: str = ""
    uncollectable: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def pipeline(self) -> str:
        """The folder under ``<tree>/<tenant>/``."""
        return pipeline_name(self.profile, self.multiline)


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something an engine or a file system said: only ever "look now", never a fact to build on.

    ``action``: create, start, die, destroy, rename, rotate, file_created, file_removed, resync.
    ``source_id`` is empty for events about no source in particular. ``time_ns`` is the origin's own clock.
    """

    origin: Literal["docker", "kubernetes", "filesystem", "agent"]
    action: str
    source_id: str
    time_ns: int
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """One row of the registry's history, and the outbox that sensors read. ``detail`` is schema version 1.

    kind: appeared, changed, ended, gone, removed, policy (settings that change configs), gap.
    """

    revision: int
    time: datetime
    host: str
    source_id: str
    kind: str
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """A rendered collector config. ``hash`` is the first 16 hex digits of the text's sha256."""

    hash: str
    text: str
    agent_class: str
    inputs_hash: str
    pipelines: tuple[tuple[str, str], ...]
    """(tenant, pipeline) pairs that the text collects, sorted."""
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A fragment that was left out so that the rest can ship."""

    tenant: str
    fragment: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a check found. ``where`` is a config path or a part's name; ``fix`` is what to do about it."""

    level: Literal["error", "warning"]
    rule: str
    where: str
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """Lines that were lost or may have been: a range, a cause and, where known, a count; never silence."""

    host: str
    source_id: str
    service: str
    tenant: str
    cause: GapCause
    started: datetime
    ended: datetime
    bytes: int | None = None
    lines: int | None = None
    detail: str = ""
    key: str = ""
    """Idempotency key: reporting the same gap twice keeps one row."""


@dataclass(frozen=True, slots=True)
class SegmentRecords:
    """How many records the agent saw in one file of a source: the truth that Loki is compared with.

    ``records`` counts newline-terminated records; numbers run from 1 to ``records``. ``continued`` are the record
    numbers that the collector joins to a neighbour and that are therefore not expected on their own in Loki.
    ``final``: the file will not grow any more.
    """

    source_id: str
    segment: int
    records: int
    size: int
    read: int
    final: bool
    tenant: str
    service: str
    first_seen: datetime
    joined: int = 0
    """How many of ``records`` end up inside another line (Docker's 16 KiB parts, multiline)."""
    left_out: int = 0
    """Records 1 to this are older than the backfill's border, and not collected."""


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """Health of one part. ``state`` is ok, degraded, down or unknown; ``reason`` says why it is not ok."""

    component: str
    state: Literal["ok", "degraded", "down", "unknown"]
    reason: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
