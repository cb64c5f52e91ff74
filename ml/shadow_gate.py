"""The last gate before a model serves: a day in the shadow of the one that does.

An outage in that day is no fault of the candidate: only alarms that the other model has not are held against the budget,
and only where chance does not explain them. What people confirmed of that day it has to have found too.
"""

from __future__ import annotations

from collections.abc import Sequence

from ml.gate_limits import MOST_RATE
from ml.gates import Gate, findings_interval
from ml.shadowing import MOST_ALARMS, Shadow, found_by, too_many_failures
from onecollector_resources.findings.records import Judged


def shadow_gate(shadow: Shadow, wanted_minutes: int, budget: float, judged: Sequence[Judged]) -> Gate:
    """How it went; not passed where it is not over yet. ``judged`` are findings of that time that people judged."""
    told = told_of(shadow, wanted_minutes)
    if not shadow.whole(wanted_minutes):
        return Gate("shadow", False, told, "wait until it is over, or let it serve at once: --force")
    confirmed = [
        one for one in judged if one.verdict == "confirmed" and shadow.began <= one.last and one.first <= shadow.through
    ]
    missed = [one for one in confirmed if not found_by(shadow.own, one.service, one.first, one.last)]
    if confirmed:
        told += f"; {len(confirmed) - len(missed)} of {len(confirmed)} confirmed are found"
    if shadow.service_minutes == 0:
        return Gate("shadow", False, told, "no service could be seen: look at onecollector gaps, then train again")
    if shadow.failures > too_many_failures(wanted_minutes):
        fix = "train again; onecollector logs scorer says what could not be scored"
        return Gate("shadow", False, f"{told}; {shadow.failures} minutes could not be scored", fix)
    if missed:
        names = ", ".join(sorted({one.service for one in missed})[:3])
        return Gate("shadow", False, f"{told}; missed in {names}", "train again; findings show says what was missed")
    low, _ = findings_interval(len(shadow.alone), shadow.days)
    if low > MOST_RATE * budget or len(shadow.own) >= MOST_ALARMS:
        rate = len(shadow.alone) / shadow.days
        fix = "train again: the days that it learned from are not like today"
        return Gate("shadow", False, f"{told}; {rate:.2f} a day are its own, budget {budget:g}", fix)
    return Gate("shadow", True, told, "")


def told_of(shadow: Shadow, wanted_minutes: int) -> str:
    """``7.2 of 24 hours beside 2026…: 3 findings in 41.0 service-days, 1 of them its own; 2026… had 4``."""
    hours = f"{shadow.minutes / 60:.1f} of {wanted_minutes / 60:g} hours"
    if shadow.whole(wanted_minutes):
        hours = f"{shadow.minutes / 60:.1f} hours"
    return (
        f"{hours} beside {shadow.beside}: {len(shadow.own)} findings in {shadow.days:.1f} service-days, "
        f"{len(shadow.alone)} of them its own; {shadow.beside} had {len(shadow.others)}"
    )
