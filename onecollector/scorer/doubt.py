"""Minutes whose lines may still be on their way: after Loki was away, or where most services seem to have dropped at once.

Such a minute waits until its lines stand still. A real drop of everything is told half a minute later for it; a collector
that catches up is never told at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ml.coverage import usual_lines, wide_drop
from ml.live_window import LATE, KeptMinute
from onecollector.scorer.reader import LineReader, ReadTrouble

STILL_S = 30.0
"""Lines of a doubtful minute are all there when none came for so long: a collector tries again every 10 s."""
LONGEST_DOUBT_S = 600.0
LOOKED_AT = 3_000_000
"""Lines that are looked at at once, about: counting is reading for Loki. It is ten minutes of a busy tenant, hours of others."""
NEVER_STOOD: tuple[object, float, float, int] = (None, 0.0, 0.0, 0)
"""What a doubtful minute's lines were, since when, since when it is doubted, and up to which minute they are looked at."""


class Doubt:
    """Remembers since when the lines in doubt stand still."""

    def __init__(self, reader: LineReader) -> None:
        self._reader = reader
        self._missed_through = 0
        self._stood = NEVER_STOOD
        self._stood_through = 0
        self._most = LOOKED_AT

    def missed(self, minute: int) -> None:
        """Loki did not answer up to this minute: what it should have had may come late."""
        self._missed_through = max(self._missed_through, minute)

    def back_to(self, closed: int) -> None:
        """Minutes after the newest ``closed`` one were never there: a clock that was ahead ran through them."""
        self._missed_through = min(self._missed_through, closed + 1)
        self._stood, self._stood_through = NEVER_STOOD, min(self._stood_through, closed)

    def about(
        self, minute: int, closed: int, lines: Mapping[str, int], before: Sequence[KeptMinute], now: float
    ) -> bool:
        """Whether ``lines`` of a minute may not be all. ``closed`` is the newest closed minute. Raises ReadTrouble."""
        if minute <= self._stood_through:
            return False
        usual = usual_lines(before)
        if minute > self._missed_through and not wide_drop(lines, usual):
            self._stood, self._most = NEVER_STOOD, LOOKED_AT
            return False
        # What was missed is looked at many minutes at once, or each would have to stand still by itself.
        a_minute = max(sum(lines.values()), sum(usual.values()), 1)
        reach = max(LATE, int(self._most / a_minute))
        through = min(max(minute, self._stood[3] or closed), minute + reach - 1)
        looked_at = lines if through == minute else self._look(minute, through)
        found, since, began, _ = self._stood
        if found is None:
            began = now
        if found != (minute, looked_at):
            self._stood = ((minute, looked_at), now, began, through)
            since = now
        if now - since < STILL_S and now - began < LONGEST_DOUBT_S:
            return True
        self._stood_through, self._stood = through, NEVER_STOOD
        return False

    def _look(self, minute: int, through: int) -> dict[tuple[str, int], int]:
        try:
            return dict(self._reader.counts(minute, through + 1))
        except ReadTrouble:
            # More than this Loki counts in one query, it may be: less the next time.
            self._most //= 2
            raise
