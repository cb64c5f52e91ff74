"""What changes for good: new templates are news for a while and then known; a deploy is one notice.

A template is *fresh* for ``FRESH_MINUTES`` after it was seen for the first time, or for the first time in ``RETURN_MINUTES``.
Several fresh templates of info level within ``DEPLOY_MINUTES`` are a deploy or a restart: one notice that costs no alert
budget, and a stricter threshold on everything but errors while the service settles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml.quarters import Quarters

OVERFLOW = "overflow"
"""Template id of lines that mining gave up on: counted, never fresh."""
FRESH_MINUTES = 30
RETURN_MINUTES = 1440
LEARNING_MINUTES = 1440
"""Without an earlier history, what appears in the first day is known."""
DEPLOY_KINDS = 3
DEPLOY_MINUTES = 10
SETTLING_MINUTES = 20
FEW = 2_000
"""Rows up to which a loop is faster than sorting."""
FORGET_MINUTES = 60 * 1440
MOST_STRANGERS = 4_000
"""Templates beside a vocabulary's that are remembered of a service: twice as many as its miner knows at a time."""


@dataclass(frozen=True, slots=True)
class Sightings:
    """When each template last appeared after an absence, and when it was last seen; minutes since 1970.

    ``quarters`` is the day before, where somebody carries it on: a resident scorer does, frames have it beside.
    """

    appeared: Mapping[str, int] = field(default_factory=dict)
    last: Mapping[str, int] = field(default_factory=dict)
    quarters: Quarters = field(default_factory=Quarters)


@dataclass(frozen=True, slots=True)
class Notice:
    """A change that is worth a line but no alarm: first and last row, how many templates were fresh."""

    first: int
    last: int
    kind: Literal["change"]
    templates: int


def freshness(
    minutes: NDArray[np.int64], templates: Sequence[str], start: int, before: Sightings | None = None
) -> tuple[NDArray[np.bool_], Sightings]:
    """For each (minute, template) whether it is fresh then, and what is to be remembered; the order does not matter.

    A template that has not been seen for ``FORGET_MINUTES`` is forgotten. Without ``before``, templates of the first
    ``LEARNING_MINUTES`` after ``start`` are known.
    """
    known = before or Sightings()
    fresh = np.zeros(len(minutes), np.bool_)
    appeared, last = dict(known.appeared), dict(known.last)
    if len(minutes) == 0:
        return fresh, known
    never = start - 10 * FORGET_MINUTES
    if before is not None and len(minutes) <= FEW:
        return _one_by_one(minutes, templates, never, known)
    names, code = coded(templates)
    order = _by_name_and_minute(minutes, code, len(names))
    sorted_code, sorted_minutes = code[order], minutes[order]
    first_of = np.flatnonzero(np.r_[True, sorted_code[1:] != sorted_code[:-1]])
    earlier = np.r_[np.int64(-1), sorted_minutes[:-1]].astype(np.int64)
    earlier[first_of] = [last.get(names[c], never) for c in sorted_code[first_of]]
    began = sorted_minutes - earlier > RETURN_MINUTES
    since = np.where(began, sorted_minutes, never)
    since[first_of] = np.where(
        began[first_of], sorted_minutes[first_of], [appeared.get(names[c], never) for c in sorted_code[first_of]]
    )
    # The running maximum must not reach over from one template to the next.
    lift = sorted_code.astype(np.int64) * 10**12
    since = np.maximum.accumulate(since + lift) - lift
    if before is None:
        since[since < start + LEARNING_MINUTES] = never
    fresh[order] = (sorted_minutes - since < FRESH_MINUTES) & np.array([name != OVERFLOW for name in names])[
        sorted_code
    ]
    for end in np.r_[first_of[1:], len(order)] - 1:
        name = names[sorted_code[end]]
        appeared[name] = int(since[end])
        last[name] = max(int(sorted_minutes[end]), last.get(name, never))
    newest = int(minutes.max())
    kept = {name: at for name, at in last.items() if newest - at < FORGET_MINUTES}
    return fresh, Sightings({name: appeared[name] for name in kept}, kept)


def bounded(seen: Sightings, minute: int, *lasting: Collection[str]) -> Sightings:
    """Of more than ``MOST_STRANGERS`` beside the ``lasting`` ones, those that were seen last, and none that would be fresh in
    this ``minute`` anyway: a service whose templates are ever new ones is not remembered without end.
    """
    if len(seen.last) <= MOST_STRANGERS + sum(map(len, lasting)):
        return seen
    known = {name for names in lasting for name in names}
    strangers = [name for name, at in seen.last.items() if name not in known and minute - at <= RETURN_MINUTES]
    strangers.sort(key=seen.last.__getitem__)
    kept = known.union(strangers[-MOST_STRANGERS:])
    last = {name: at for name, at in seen.last.items() if name in kept}
    return replace(seen, appeared={name: seen.appeared[name] for name in last if name in seen.appeared}, last=last)


@dataclass(frozen=True, slots=True)
class Named(Sequence[str]):
    """A name for each row, kept once each: ``kinds``, and which of them a row has [N]."""

    kinds: list[str]
    code: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.code)

    def __getitem__(self, row: Any) -> Any:
        return self.kinds[self.code[row]]


def _by_name_and_minute(minutes: NDArray[np.int64], code: NDArray[np.int64], names: int) -> NDArray[np.intp]:
    """The order of rows by name, and by minute within a name."""
    if names > np.iinfo(np.uint16).max or (minutes[1:] < minutes[:-1]).any():
        return np.lexsort((minutes, code))
    # Rows are in order of minutes already, and small numbers are sorted in one pass.
    return np.argsort(code.astype(np.uint16), kind="stable")


def coded(names: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Names, and which of them each row has: weeks of minutes have a few hundred names in millions of rows."""
    if isinstance(names, Named):
        return names.kinds, names.code
    if len(names) <= FEW:
        number: dict[str, int] = {}
        code = np.fromiter((number.setdefault(name, len(number)) for name in names), np.int64, len(names))
        return list(number), code
    import pyarrow as pa

    encoded: Any = pa.array(names, pa.string()).dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _one_by_one(
    minutes: NDArray[np.int64], templates: Sequence[str], never: int, known: Sightings
) -> tuple[NDArray[np.bool_], Sightings]:
    """The same for a few rows at a time, which is what a resident scorer has every minute."""
    fresh = np.zeros(len(minutes), np.bool_)
    appeared, last = dict(known.appeared), dict(known.last)
    order = range(len(minutes)) if (minutes == minutes[0]).all() else np.argsort(minutes, kind="stable").tolist()
    for at, minute in zip(order, minutes[list(order)].tolist(), strict=True):
        name = templates[at]
        if minute - last.get(name, never) > RETURN_MINUTES:
            appeared[name] = minute
        fresh[at] = minute - appeared.get(name, never) < FRESH_MINUTES and name != OVERFLOW
        last[name] = max(minute, last.get(name, never))
    if minutes[0] % 1440 == 0:
        newest = int(minutes.max())
        last = {name: at for name, at in last.items() if newest - at < FORGET_MINUTES}
        appeared = {name: at for name, at in appeared.items() if name in last}
    return fresh, Sightings(appeared, last)


def settling(
    fresh_kinds: NDArray[np.float32], fresh_infos: NDArray[np.float32]
) -> tuple[NDArray[np.int32], list[Notice]]:
    """How many minutes a service has been settling after a deploy or a restart [T], 0 where it is not, and a notice of each.

    ``fresh_kinds`` and ``fresh_infos`` [T]: distinct fresh templates and fresh info lines of each minute. A template counts
    in the minute of its first line and for as long as it is fresh, so the most of any minute is what matters.
    """
    rows = len(fresh_kinds)
    kinds = np.where(fresh_infos > 0, fresh_kinds, 0)
    recent = kinds.copy()
    for back in range(1, min(DEPLOY_MINUTES, rows)):
        recent[back:] = np.maximum(recent[back:], kinds[:-back])
    busy = recent >= DEPLOY_KINDS
    begins = np.flatnonzero(busy & ~np.r_[False, busy[:-1]])
    settles = np.zeros(rows, np.int32)
    notices = []
    last = -1
    for row in begins:
        if last >= 0 and row - last < FRESH_MINUTES:
            continue
        end = min(rows, int(row) + SETTLING_MINUTES)
        settles[row:end] = np.arange(1, end - row + 1)
        notices.append(Notice(int(row), end - 1, "change", int(recent[row:end].max())))
        last = int(row)
    return settles, notices
