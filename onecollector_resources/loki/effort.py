"""How a read goes about it, what it did and learned, and how it says that it failed: what reads and their executor share."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from onecollector_resources.loki.congestion import Congestion
from onecollector_resources.loki.windows import Window


class ReadFailed(RuntimeError):
    """Not every line could be read; the message names the window and what was tried. ``window`` is not complete."""

    def __init__(self, message: str, window: Window) -> None:
        super().__init__(message)
        self.window = window


@dataclass(frozen=True, slots=True)
class Effort:
    """How a read goes about it. ``at_once`` requests at most; ``page_rows`` and ``page_bytes`` (of the answer; None:
    as many as there are) bound a page, ``window_bytes`` a window and what of one is kept waiting; a request that fails
    for ``patience_s`` seconds fails the read.
    """

    at_once: int
    page_rows: int
    page_bytes: int | None
    window_bytes: int
    patience_s: float


@dataclass
class Tally:
    """What a read did so far. ``rows`` are those handed out, ``bytes`` those of answers; ``troubles`` by kind, all of which were overcome."""

    windows: int = 0
    pages: int = 0
    rows: int = 0
    bytes: int = 0
    troubles: Counter[str] = field(default_factory=Counter)


@dataclass
class Traffic:
    """What all reads of one executor share: how much Loki takes, what was learned of it, and the lock over all of it.

    ``largest``: rows of the largest page that the tenant may ask for; ``row_bytes``: of an answer, per row of late.
    ``unheard``: the last thing that came was silence or a broken connection.
    """

    congestion: Congestion
    largest: int
    row_bytes: float = 0.0
    active: int = 0
    unheard: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)
