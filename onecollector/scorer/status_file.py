"""What the scorer says of itself: one small file, written after every minute, read by whoever asks whether it is well."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

STALE_MINUTES = 3
"""The last minute that was scored may be this old."""


@dataclass(frozen=True, slots=True)
class ScorerStatus:
    """``written`` in epoch seconds; ``cpu_s`` of the last minute's work, ``lag_s`` from the minute's end until it was told.

    ``tenants`` have the fields of ``tenant.TenantStatus``.
    """

    pid: int
    written: float
    lag_s: float = 0.0
    cpu_s: float = 0.0
    memory: int = 0
    tenants: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def write_status(path: Path, status: ScorerStatus) -> None:
    """Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(orjson.dumps(status))
    os.replace(beside, path)


def read_status(path: Path) -> ScorerStatus | None:
    """None where there is none, or it is none."""
    try:
        body = orjson.loads(path.read_bytes())
        return ScorerStatus(**{**body, "problems": tuple(body["problems"])})
    except (OSError, orjson.JSONDecodeError, TypeError, KeyError):
        return None


def health_of(status: ScorerStatus | None, now: float) -> tuple[bool, str]:
    """Whether it is well, and a note: a scorer without a model waits, and that is well."""
    if status is None:
        return False, "it has not said anything yet"
    age = now - status.written
    if age > STALE_MINUTES * 60:
        return False, f"said nothing for {age / 60:.0f} minutes"
    late: list[str] = []
    refused: list[str] = []
    notes: list[str] = []
    for tenant, told in sorted(status.tenants.items()):
        named = f"{tenant}: " if len(status.tenants) > 1 else ""
        behind = int(status.written // 60) - int(told["minute"]) - 1
        if told["model_id"] and told["minute"] and behind > STALE_MINUTES:
            late.append(f"{named}{told['waits'] or f'{behind} minutes behind'}")
        elif not told["model_id"] and "model" in told["problems"]:
            # Said first, and yet well: whoever waits for all parts to be well has to be able to train a model.
            refused.append(f"{named}no model serves: {told['problems']['model']}")
            continue
        elif told["waits"]:
            notes.append(f"{named}waiting: {told['waits']}")
        else:
            learning = f", {told['learning']} learning" if told["learning"] else ""
            notes.append(
                f"{named}{_many(told['services'], 'service')}{learning}, {_many(told['lines'], 'line')} a minute"
            )
        if told.get("shadow"):
            notes.append(f"{named}{told['shadow']}")
        notes += [f"{named}{problem}" for problem in told["problems"].values()]
    notes += status.problems
    return not late, "; ".join(late or refused + notes)[:200]


def _many(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
