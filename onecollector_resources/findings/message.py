"""A finding as JSON: what is stored, what is posted, what ``--json`` prints; the same names everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from onecollector_resources.findings.records import DeliveryKind, Finding, MovedTemplate, StoredFinding

VERSION = 1
"""Of the message. A field that is added leaves it as it is; one that changes its meaning raises it."""


def storable(value: Any) -> Any:
    """The value as every database can keep it: no NUL, whole UTF-8, no number that JSON has no word for."""
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else 0.0
    if isinstance(value, Mapping):
        return {storable(str(name)): storable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [storable(one) for one in value]
    return iso(value) if isinstance(value, datetime) else value


def template_row(template: MovedTemplate) -> dict[str, Any]:
    """A moved template as JSON."""
    return storable(asdict(template))


def template_of(row: Mapping[str, Any]) -> MovedTemplate:
    """A moved template out of JSON."""
    return MovedTemplate(
        **{
            **row,
            "first_seen": _time(row.get("first_seen")),
            "last_seen": _time(row.get("last_seen")),
            "examples": tuple(row.get("examples", ())),
        }
    )


def message(stored: StoredFinding, kind: DeliveryKind) -> dict[str, Any]:
    """What is posted when a finding opens or closes."""
    found = stored.finding
    return storable(
        {
            "version": VERSION,
            "kind": kind,
            "number": stored.number,
            **plain_finding(found),
            "hint": f"onecollector findings show {stored.number}",
        }
    )


def plain_finding(found: Finding) -> dict[str, Any]:
    """A finding's own fields as JSON."""
    plain = {name: getattr(found, name) for name in Finding.__dataclass_fields__ if name != "templates"}
    return storable(plain) | {"templates": [template_row(one) for one in found.templates]}


def plain_stored(stored: StoredFinding) -> dict[str, Any]:
    """All that the registry holds of a finding, as JSON."""
    rest = {name: getattr(stored, name) for name in StoredFinding.__dataclass_fields__ if name != "finding"}
    return storable(rest) | plain_finding(stored.finding)


def held_back_message(tenant: str, hour: datetime, findings: int) -> dict[str, Any]:
    """What is posted for all findings of an hour that were beyond the cap."""
    told = f"{findings} {'finding' if findings == 1 else 'findings'} held back this hour"
    return {
        "version": VERSION,
        "kind": "held_back",
        "tenant": tenant,
        "hour": iso(hour),
        "findings": findings,
        "sentence": f"{told}: beyond models.findings_per_hour",
        "hint": f"onecollector findings list --tenant {tenant} --since {iso(hour)}",
    }


def iso(time: datetime) -> str:
    """UTC, with a Z."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
