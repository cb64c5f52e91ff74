"""Which lines a live tail has shown, and which stretches of time it must look at again: the decisions, without I/O.

Loki's tail loses lines without saying so, so every stretch of time is asked for by query as well: once shortly after it
ended, and once more for lines that came late; then what was seen of it is forgotten. A line is shown by whichever
brings it first. Memory is that of the stretches still open.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b

import orjson

from onecollector_resources.loki.answers import Entry

SECOND_NS = 10**9

LATE_KEPT = 100_000
"""Lines older than all open stretches that are remembered."""


@dataclass(frozen=True, slots=True)
class TailPace:
    """When stretches of time are looked at, in seconds."""

    settle_s: float = 3
    """From a stretch's end to the first look: lines need so long from a container into Loki."""
    again_s: float = 30
    """From the first look to the second: after an outage of Loki its senders try again that late."""
    every_s: float = 1
    """Between looks."""
    stretch_s: float = 60
    """The most that is asked for in one look, and open at once is five times that."""


@dataclass
class TailCounts:
    """How lines came: by the socket, or by query after the socket did not bring them.

    ``dropped`` is what Loki said it dropped; all of those and those it said nothing of are among ``filled``.
    """

    live: int = 0
    filled: int = 0
    dropped: int = 0
    reconnects: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """A stretch [start_ns, end_ns) to ask for; after the ``last`` look it is forgotten."""

    start_ns: int
    end_ns: int
    last: bool


def key_of(entry: Entry) -> bytes:
    """A line's identity in 16 bytes."""
    return blake2b(orjson.dumps(entry.identity()), digest_size=16).digest()


@dataclass
class TailLedger:
    """What was shown from ``start_ns`` on. Times are nanoseconds since the epoch."""

    start_ns: int
    pace: TailPace = field(default_factory=TailPace)
    looked_ns: int = field(init=False)
    """What lies before was looked at."""
    settled_ns: int = field(init=False)
    """What lies before was looked at twice and is forgotten."""
    _shown: dict[int, set[bytes]] = field(default_factory=dict, init=False)
    _late: dict[bytes, None] = field(default_factory=dict, init=False)
    _again: deque[tuple[int, int]] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self.looked_ns = self.settled_ns = self.start_ns

    @property
    def remembered(self) -> int:
        """Lines in memory."""
        return sum(map(len, self._shown.values())) + len(self._late)

    def fresh(self, entry: Entry) -> bool:
        """Whether to show this line; it counts as shown from now on."""
        key = key_of(entry)
        if entry.time_ns < self.settled_ns:
            # The socket brings what reaches Loki now, however old: a look can no longer bring it.
            if key in self._late:
                return False
            self._late[key] = None
            if len(self._late) > LATE_KEPT:
                del self._late[next(iter(self._late))]
            return True
        shown = self._shown.setdefault(entry.time_ns // SECOND_NS, set())
        if key in shown:
            return False
        shown.add(key)
        return True

    def due(self, now_ns: int) -> Look | None:
        """The next look, if one is due."""
        most = int(self.pace.stretch_s * SECOND_NS)
        if self._again:
            end_ns, at_ns = self._again[0]
            if now_ns >= at_ns or self.looked_ns - self.settled_ns >= 5 * most:
                return Look(self.settled_ns, end_ns, last=True)
        # Whole seconds, as what was shown is forgotten by the second.
        end_ns = min(now_ns - int(self.pace.settle_s * SECOND_NS), self.looked_ns + most) // SECOND_NS * SECOND_NS
        if end_ns - self.looked_ns >= min(SECOND_NS, int(self.pace.every_s * SECOND_NS)):
            return Look(self.looked_ns, end_ns, last=False)
        return None

    def done(self, look: Look, now_ns: int) -> None:
        """Everything that the look found was passed to ``fresh``."""
        if not look.last:
            self.looked_ns = look.end_ns
            self._again.append((look.end_ns, now_ns + int(self.pace.again_s * SECOND_NS)))
            return
        self.settled_ns = look.end_ns
        self._again.popleft()
        for second in [second for second in self._shown if second < look.end_ns // SECOND_NS]:
            del self._shown[second]
