"""Whether to start a reconcile now. Pure, so that every case can stand in a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """What a tick sees. Revisions are of concerns only; ``queued``: a reconcile that has not begun to read."""

    newest: int
    reconciled: int
    requested: int
    queued: bool
    running: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Request a run that is to take in ``revision``, or say why not."""

    request: bool
    revision: int
    why: str


def decide(look: Look) -> Decision:
    """One run takes in everything that is there when it starts to read, so a queued one is enough."""
    if look.newest <= look.reconciled:
        return Decision(False, look.newest, "nothing changed")
    if look.queued:
        return Decision(False, look.newest, "a queued reconcile will take it in")
    if look.newest <= look.requested and look.running:
        return Decision(False, look.newest, "a running reconcile takes it in")
    return Decision(True, look.newest, f"revision {look.newest} is beyond {look.reconciled}")
