"""A finding in words: rows of a label and a text, for a terminal and for a page; each answers one question.

Texts of logs in it are data: whoever shows them escapes them for where they are shown.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from onecollector_resources.findings.message import iso
from onecollector_resources.findings.records import Delivery, Finding, Incident, MovedTemplate, StoredFinding

SIGNALS = {
    "total_up": "more lines than usual",
    "total_down": "fewer lines than usual",
    "sustained_up": "more lines for a while",
    "errors_up": "more of known errors",
    "new_errors": "errors never seen before",
    "template_up": "more lines of one kind",
    "template_down": "fewer lines of one kind",
    "silence": "a regular line that stopped",
    "mix": "another mixture of lines",
    "latency_up": "longer durations",
    "quiet": "no line for long",
    "hours_down": "fewer lines for hours",
    "hours_up": "more lines for hours",
    "forest": "an unusual minute as a whole",
}
"""What a signal is about, in words; a finding's ``unchanged`` are signals that saw nothing."""
LINES = 5
MINUTE = timedelta(minutes=1)
Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Told:
    """What is known about a finding beside itself."""

    incident: Incident | None = None
    deliveries: Sequence[Delivery] = ()


def headline(stored: StoredFinding) -> str:
    """``payments · 2026-11-03 14:02-14:09 UTC · errors never seen before``."""
    found = stored.finding
    until = f"{found.last:%H:%M}" if found.last.date() == found.first.date() else f"{found.last:%Y-%m-%d %H:%M}"
    still = ", goes on" if stored.state == "open" else ""
    return (
        f"{found.service} · {found.first:%Y-%m-%d %H:%M}-{until} UTC{still} · {SIGNALS.get(found.signal, found.signal)}"
    )


def rarity(found: Finding) -> str:
    """``p 0.0003, budget 0.5 a day``."""
    return f"p {found.p:.1g}, budget {found.budget:g} a day"


def rows(stored: StoredFinding, told: Told) -> list[Row]:
    """What happened, what did not, lines, what else is known, what to ask."""
    found = stored.finding
    out: list[Row] = [("", found.sentence)]
    for number, template in enumerate(found.templates):
        out.append(("what" if not number else "", moved(template, found)))
    if found.unchanged:
        out.append(("unchanged", ", ".join(SIGNALS.get(name, name) for name in found.unchanged)))
    lines = [line for template in found.templates for line in template.examples][:LINES]
    out += [("lines" if not number else "", line) for number, line in enumerate(lines)]
    if told.incident is not None:
        out += incident_rows(stored, told.incident)
    out += [("not sent", f"{one.channel}, {one.kind}: {one.last_error}") for one in told.deliveries if one.last_error]
    if stored.announcement == "held_back":
        out.append(("not sent", "webhook: beyond models.findings_per_hour"))
    if stored.judgement != "none":
        when = f" {stored.judged_at:%Y-%m-%d %H:%M}" if stored.judged_at else ""
        note = f": {stored.note}" if stored.note else ""
        out.append((stored.judgement, f"by {stored.judged_by}{when}{note}"))
    out.append(("ask", ask(found)))
    if stored.judgement == "none":
        number = stored.number
        out.append(("judge", f"onecollector findings confirm {number}   or   onecollector findings dismiss {number}"))
    return out


def moved(template: MovedTemplate, found: Finding) -> str:
    """``"connection to <V> refused"  412 lines, expected 0  (new, first seen 14:02:11)``."""
    one = count(template.observed) == "1"
    unit = "ms" if found.signal == "latency_up" else "line" if one else "lines"
    counts = f"{count(template.observed)} {unit}, expected {count(template.expected)}"
    return f"“{template.text}”  {counts}{_change(template, found)}"


def _change(template: MovedTemplate, found: Finding) -> str:
    first = template.first_seen
    if first is not None and template.expected < 0.5 and first >= found.window_first - timedelta(days=1):
        return f"  (new, first seen {first:%H:%M:%S})"
    if template.expected < 0.5:
        return ""
    return f"  ({100 * (template.observed / template.expected - 1):+.0f} %)".replace("-", "\N{MINUS SIGN}")


def ask(found: Finding) -> str:
    """The command that shows the lines."""
    span = f"--from {iso(found.window_first)} --to {iso(max(found.window_last, found.last) + MINUTE)}"
    tenant = "" if found.tenant == "default" else f" --tenant {shlex.quote(found.tenant)}"
    return f"onecollector query {shlex.quote(found.query)} {span}{tenant}"


def incident_rows(stored: StoredFinding, incident: Incident) -> list[Row]:
    """What happened beside it, and what the investigation found."""
    out: list[Row] = []
    others = [number for number in incident.findings if number != stored.number]
    if others:
        shown = ", ".join(str(number) for number in others[:10]) + (" …" if len(others) > 10 else "")
        out.append(("together", f"findings {shown} of {', '.join(incident.services[:10])}"))
    return out + evidence_rows(incident.evidence)


def evidence_rows(evidence: Mapping[str, Any]) -> list[Row]:
    """What an investigation collected."""
    out: list[Row] = []
    for part in evidence.get("templates", ()):
        first = part.get("first")
        if first:
            out.append(("began", f"{part['service']} {clock_of(first['time'])} {first['line']}"))
        out += [("around", f"{part['service']} {clock_of(one['time'])} {one['line']}") for one in part["lines"][:LINES]]
    events = [f"{clock_of(one['time'])} {one['what']}" for one in evidence.get("events", ())]
    out += [("meanwhile" if not number else "", text) for number, text in enumerate(events)]
    for one in evidence.get("findings", ()):
        out.append(("also", f"{one['number']}  {clock_of(one['first'])} {one['sentence']}"))
    out += [("not known", text) for text in evidence.get("missing", ())]
    return out


def count(number: float) -> str:
    """``31.0 k``, ``3,100``, ``412``, ``0``, ``2.5``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):.1f} {unit}"
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")


def clock_of(text: str) -> str:
    """Hours, minutes and seconds, UTC, of an ISO time."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%H:%M:%S}"
