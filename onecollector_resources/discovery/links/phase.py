"""What the registry shows of a source: its phase, how it is collected, and why it is not further."""

from __future__ import annotations

from onecollector_resources.discovery.links.link import Source
from onecollector_resources.discovery.links.placing import WAITS_FOR_LINES
from onecollector_resources.records import CollectMode, ObservedSource, Phase


def phase_of(observed: ObservedSource, source: Source | None) -> tuple[Phase, CollectMode, str]:
    """(phase, mode, reason) of a source; ``source`` is None while nothing of it was taken in."""
    if observed.excluded:
        return "uncollectable", "none", "excluded by its label"
    if observed.uncollectable:
        return "uncollectable", "none", observed.uncollectable
    if observed.held:
        return "waiting", "none", observed.held
    warnings = "; ".join(observed.warnings)
    if source is None or not source.links:
        if source is not None and source.done and not observed.running:
            return "gone", "none", "ended; every line was delivered"
        if not observed.running and observed.ended is not None:
            return "gone", "none", "ended without a line"
        return "waiting", "none", warnings or "no line yet"
    newest = source.links[max(source.links)]
    placed = [link for link in source.links.values() if link.placed]
    if not placed:
        return ("collecting" if newest.reason in WAITS_FOR_LINES else "waiting"), "link", warnings or newest.reason
    finished = all(link.finished for link in placed) and not observed.running
    mode: CollectMode = "spool" if any(link.mode == "spool" for link in placed) else "link"
    reason = newest.reason if newest.mode == "spool" else warnings
    return ("finished" if finished else "collecting"), mode, reason
