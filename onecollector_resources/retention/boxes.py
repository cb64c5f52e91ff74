"""Groups of streams as selectors that Loki can be asked with, each stream in exactly one of them.

A stream falls under the first rule that matches, and "everything else" cannot be written as one selector. But only
the labels that rules name decide, so streams with equal values of those labels go together; values are joined into
alternations as long as the joined selector stands for no other stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

from onecollector_resources.loki.names import INNER_LABELS
from onecollector_resources.retention.selectors import Matcher, selector_text

K = TypeVar("K", bound=Hashable)
Box = tuple[frozenset[str], ...]
"""Values of each deciding label that are in it; "" for streams without the label."""


def selectors_by_group(
    streams: Iterable[Mapping[str, str]], names: Iterable[str], group: Callable[[Mapping[str, str]], K]
) -> dict[K, tuple[str, ...]]:
    """Selectors of each group. ``group`` must go by the labels ``names`` alone."""
    order = tuple(sorted(names))
    members: dict[K, dict[tuple[str, ...], list[Mapping[str, str]]]] = {}
    for stream in streams:
        values = tuple(stream.get(name, "") for name in order)
        members.setdefault(group(stream), {}).setdefault(values, []).append(stream)
    out: dict[K, tuple[str, ...]] = {}
    for key, classes in members.items():
        texts: list[str] = []
        for box in _joined(classes, len(order)):
            inside = [s for values, mine in classes.items() if _holds(box, values) for s in mine]
            texts.extend(_texts(order, box, inside))
        out[key] = tuple(sorted(texts))
    return out


def _joined(classes: Iterable[tuple[str, ...]], width: int) -> list[Box]:
    boxes: set[Box] = {tuple(frozenset((value,)) for value in values) for values in classes}
    for place in range(width):
        joined: dict[tuple[Box, Box], set[str]] = {}
        for box in boxes:
            joined.setdefault((box[:place], box[place + 1 :]), set()).update(box[place])
        boxes = {(*before, frozenset(values), *behind) for (before, behind), values in joined.items()}
    return sorted(boxes, key=lambda box: [sorted(values) for values in box])


def _holds(box: Box, values: tuple[str, ...]) -> bool:
    return all(value in allowed for value, allowed in zip(values, box, strict=True))


def _texts(names: tuple[str, ...], box: Box, streams: list[Mapping[str, str]]) -> Iterator[str]:
    matchers = [_matcher(name, values) for name, values in zip(names, box, strict=True)]
    if any("" not in values for values in box):
        yield selector_text(matchers)
        return
    # Loki wants one label that is there: the commonest first, then those that are not there yet.
    rest, absent = streams, []
    while rest:
        counts: dict[str, int] = {}
        for stream in rest:
            for name, value in stream.items():
                if value and name not in INNER_LABELS:
                    counts[name] = counts.get(name, 0) + 1
        if not counts:
            return
        name = min(counts, key=lambda one: (-counts[one], one))
        yield selector_text([*matchers, *(Matcher(one, "=", "") for one in absent), Matcher(name, "=~", ".+")])
        absent.append(name)
        rest = [stream for stream in rest if not stream.get(name)]


def _matcher(name: str, values: frozenset[str]) -> Matcher:
    if len(values) == 1:
        return Matcher(name, "=", next(iter(values)))
    return Matcher(name, "=~", "|".join(re.escape(value) for value in sorted(values)))
