"""A counter whose mistakes are its own: what a candidate cannot count does not hinder the model that serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import structlog

from ml.minute_tally import MinuteCounter, MinuteTally
from onecollector.scorer.watch import MISFITS

if TYPE_CHECKING:
    import polars as pl

log = structlog.get_logger()

Made = TypeVar("Made")


class GuardedCounter:
    """Once something went wrong it counts no more."""

    def __init__(self, counter: MinuteCounter) -> None:
        self._counter: MinuteCounter | None = counter

    def add(self, lines: pl.DataFrame) -> None:
        """As MinuteCounter's."""
        self._guarded(lambda counter: counter.add(lines))

    def unread(self, service: str, lines: int) -> None:
        """As MinuteCounter's."""
        self._guarded(lambda counter: counter.unread(service, lines))

    def done(self) -> MinuteTally | None:
        """None where something went wrong."""
        return self._guarded(lambda counter: counter.done())

    def _guarded(self, call: Callable[[MinuteCounter], Made]) -> Made | None:
        if self._counter is None:
            return None
        try:
            return call(self._counter)
        except MISFITS:
            log.warning("candidate.stumbled", exc_info=True)
            self._counter = None
            return None
