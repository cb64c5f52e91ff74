"""What a finding is to everybody who stores, sends or reads one: frozen records without a word about how it was found.

A finding's key is the hash of tenant, service and first minute, so the same minute found again is the same finding,
whichever process or model found it. Texts come out of logs: they were cut, redacted and freed of control characters before
they got here, and stay data wherever they go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

FINDINGS_SERVICE = "onecollector-findings"
"""The service whose lines in Loki are findings; nothing is learned from it or found in it."""

Severity = Literal["error", "warning"]
Judgement = Literal["none", "confirmed", "dismissed"]
FindingState = Literal["open", "closed"]
Channel = Literal["webhook", "loki"]
DeliveryKind = Literal["opened", "closed", "held_back"]
DeliveryState = Literal["pending", "sent", "refused"]
Announcement = Literal["sent", "held_back"]
"""``held_back``: beyond the tenant's cap an hour; it is kept and shown, and counted in one message, but posts none."""


@dataclass(frozen=True, slots=True)
class MovedTemplate:
    """A template that moved. ``observed`` and ``expected`` are lines in the finding's window, milliseconds for durations.

    ``examples`` are at most three lines; ``query`` is LogQL that is ready to paste.
    """

    template: str
    text: str
    observed: float
    expected: float
    is_error: bool
    query: str
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something unusual that a service did. All times are UTC and whole minutes; ``last`` is the last unusual minute.

    ``signal`` is one of ``ml.detectors.VOTES``; ``p`` its p-value in the weightiest minute ``peak``; ``a_day`` how often a
    calibration day had an episode like it; ``weight`` its decades above nothing. ``observed`` and ``expected`` are of
    [window_first, window_last]. ``unchanged`` are signals that were as usual. ``incident`` is the key of the incident's
    first finding.
    """

    key: str
    tenant: str
    service: str
    model_id: str
    incident: str
    first: datetime
    last: datetime
    peak: datetime
    window_first: datetime
    window_last: datetime
    signal: str
    severity: Severity
    p: float
    a_day: float
    weight: float
    budget: float
    observed: float
    expected: float
    sentence: str
    query: str
    templates: tuple[MovedTemplate, ...] = ()
    unchanged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredFinding:
    """A finding as the registry holds it. ``number`` is short, for people; ``opened`` is when it was written."""

    number: int
    finding: Finding
    state: FindingState
    announcement: Announcement
    opened: datetime
    changed: datetime
    judgement: Judgement = "none"
    judged_by: str = ""
    judged_at: datetime | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A change that costs no budget: a deploy or a restart, by its new templates."""

    tenant: str
    service: str
    first: datetime
    templates: int


@dataclass(frozen=True, slots=True)
class Incident:
    """Findings of one tenant that belong together. ``evidence`` is what the investigation run collected; empty before.

    ``number`` rises with every incident: who has seen one has seen all below it.
    """

    key: str
    tenant: str
    first: datetime
    last: datetime
    services: tuple[str, ...]
    findings: tuple[int, ...]
    evidence: dict[str, object] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message about a finding, on its way or there. ``key`` is the finding's; for ``held_back`` the hour's.

    ``payload`` is the message as JSON, fixed when it was written: sent twice, it is the same twice.
    """

    id: int
    key: str
    tenant: str
    channel: Channel
    kind: DeliveryKind
    payload: Mapping[str, Any]
    state: DeliveryState
    attempts: int
    next_attempt: datetime
    created: datetime
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding that somebody judged; minutes since 1970, both inclusive.

    ``weight`` is what it weighed when it was found, in decades.
    """

    service: str
    first: int
    last: int
    verdict: Literal["confirmed", "dismissed"]
    weight: float = 0.0
