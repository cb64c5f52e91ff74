"""What the ledger is told of unusual minutes: findings that go on, findings that begin, and how many of them wake somebody.

Everything that is decided is decided out of the ledger itself, so a minute that is told twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import structlog

from ml.following import Going, Unusual, follow, forgotten
from ml.incidents import Begun, announced, incident_of
from onecollector.scorer.explaining import Context, Explainer, at, later, minute_of
from onecollector.scorer.state import Told
from onecollector_resources.findings.ledger import FindingLedger
from onecollector_resources.findings.records import StoredFinding

log = structlog.get_logger()

HOUR = 60


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells the ledger of one tenant; of an hour at most ``findings_per_hour`` are sent."""

    tenant: str
    ledger: FindingLedger
    findings_per_hour: int

    def follow(
        self,
        told: Told,
        unusual: Sequence[Unusual],
        contexts: Mapping[str, Context],
        deployed: Set[str],
        explainer: Explainer,
        now: float,
    ) -> Told:
        """Tell the ledger what goes on and what begins. ``deployed`` are services that settle after a deploy.

        Raises RegistryError; what was told until then is left as it is when it is told again.
        """
        there = {one.finding.key: one for one in self.ledger.open_findings(self.tenant)}
        followed = follow([_going(one) for one in there.values()], unusual, told.ran_out)
        for going in followed.extends:
            found = there[going.key].finding
            if going.peak != minute_of(found.peak):
                sent = there[going.key].announcement == "sent"
                self.ledger.extend(explainer.finding(going, contexts[going.service], found.incident, examples=sent))
            else:
                self.ledger.extend(later(found, going))
        begun = [*map(_begun, there.values())]
        hour = int(now // 3600) * HOUR
        held = set(told.held) if told.held_hour == hour else set()
        held |= {key for key, one in there.items() if one.announcement == "held_back" and minute_of(one.opened) >= hour}
        incidents = list(told.begun)
        sent = set()
        if followed.opens:
            free = announced(
                self.ledger.announced_since(self.tenant, at(hour)),
                self.findings_per_hour,
                len(followed.opens),
            )
            heaviest = sorted(followed.opens, key=lambda one: (-one.weight, one.service))
            sent = {(one.service, one.minute) for one in heaviest[:free]}
        for one in followed.opens:
            announce = (one.service, one.minute) in sent
            going = Going("", one.service, one.minute, one.minute, one.minute, one.weight)
            finding = explainer.finding(going, contexts[one.service], examples=announce)
            new = Begun(finding.key, one.service, one.minute, frozenset(t.template for t in finding.templates))
            incident = incident_of(new, begun, deployed)
            begun.append(replace(new, incident=incident))
            stored = self.ledger.open(replace(finding, incident=incident), "sent" if announce else "held_back")
            log.info("finding.opened", tenant=self.tenant, service=one.service, sentence=finding.sentence)
            if incident == finding.key:
                incidents.append(one.minute)
            if stored.announcement == "held_back":
                held.add(finding.key)
        if held and held != set(told.held):
            self.ledger.held_back(self.tenant, at(hour), len(held))
        return replace(
            told,
            begun=tuple(minute for minute in incidents if minute > told.scored - HOUR),
            ran_out=forgotten(followed.ran_out, told.scored),
            held_hour=hour,
            held=tuple(sorted(held)),
        )


def _going(stored: StoredFinding) -> Going:
    found = stored.finding
    first, last, peak = map(minute_of, (found.first, found.last, found.peak))
    return Going(found.key, found.service, first, last, peak, found.weight)


def _begun(stored: StoredFinding) -> Begun:
    found = stored.finding
    templates = frozenset(one.template for one in found.templates)
    return Begun(found.key, found.service, minute_of(found.first), templates, found.incident)
