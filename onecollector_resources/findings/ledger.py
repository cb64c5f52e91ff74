"""What a scorer needs of whoever keeps findings: a protocol, so that scoring is tested without a database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from onecollector_resources.findings.records import Announcement, Finding, Notice, StoredFinding


class FindingLedger(Protocol):
    """Every method raises RegistryError where the database is not there; what was asked for may be asked for again."""

    def open(self, finding: Finding, announcement: Announcement) -> StoredFinding:
        """Keep it, with what is to be sent of it, in one transaction. One that is there by its key is left as it is."""
        ...

    def extend(self, finding: Finding) -> StoredFinding:
        """What it is by now: last minute, peak, explanation. Its key, incident and first minute stay."""
        ...

    def close(self, tenant: str, last_before: datetime) -> int:
        """Close the tenant's open findings whose last minute is before that; answers how many."""
        ...

    def open_findings(self, tenant: str) -> Sequence[StoredFinding]:
        """Open ones, oldest first."""
        ...

    def announced_since(self, tenant: str, since: datetime) -> int:
        """Findings opened since then that were sent: what an hour's cap is counted by."""
        ...

    def unconfirmed_since(self, tenant: str, since: datetime) -> Sequence[tuple[str, datetime]]:
        """Service and first minute of each finding from then on that nobody confirmed."""
        ...

    def held_back(self, tenant: str, hour: datetime, findings: int) -> None:
        """How many findings of that hour, in all, were kept but not sent: one message, sent when the hour is over.

        Told again before that, the higher number counts.
        """
        ...

    def notice(self, notice: Notice) -> None:
        """Keep a deploy or a restart; the same one again is left as it is."""
        ...
