"""Ways to cut lines of one instant in two where more of them share it than a page holds.

A cut is a condition and its opposite, so each line is on exactly one side, whether it was seen yet or not: whatever
order Loki keeps within an instant, both sides together are all of it. Conditions are made from what differs in a page
that was full, so each side has fewer of its lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from onecollector_resources.loki.logql import KEYWORDS, LABEL_NAME, quoted, with_matcher, with_stage

REACH = 200
"""Characters from either end of a line that are compared; more than that and a text is looked for."""

SAMPLE = 1_000
"""Rows that are looked at first."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line as Loki gave it, with the labels that it adds for itself."""

    labels: Mapping[str, str]
    line: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Condition:
    """One side of a cut by a part of a row: its label ``name``, its metadata ``name`` (none is an empty one), its line.

    The part ``is`` the value, or ``contains`` it, or its ``letter`` at ``place`` (negative from the end) is one of the
    value's. ``holds`` says which side.
    """

    part: Literal["label", "metadata", "line"]
    how: Literal["is", "contains", "letter"]
    value: str
    name: str = ""
    place: int = 0
    holds: bool = True

    def fits(self, row: Row) -> bool:
        """Whether the row is on this side."""
        text = _text(row, self.part, self.name)
        if self.how == "is":
            found = text == self.value
        elif self.how == "contains":
            found = self.value in text
        else:
            found = -len(text) <= self.place < len(text) and text[self.place] in self.value
        return found == self.holds

    def opposite(self) -> Condition:
        """The other side."""
        return replace(self, holds=not self.holds)

    def added_to(self, query: str) -> str:
        """The query for this side alone. Raises LogqlError for a query that is no log query."""
        if self.part == "line":
            marks = ("!=", "|=") if self.how == "contains" else ("!~", "|~")
            value = self.value if self.how == "contains" else self._pattern("^", "$", "")
            return with_stage(query, f"{marks[self.holds]} {quoted(value)}")
        op = (("!=", "=") if self.how == "is" else ("!~", "=~"))[self.holds]
        # Here a pattern has to match the whole text.
        value = self.value if self.how == "is" else self._pattern("", "", ".*")
        if self.part == "label":
            return with_matcher(query, self.name, value, op)
        return with_stage(query, f"| {self.name}{op}{quoted(value)}")

    def _pattern(self, begin: str, end: str, rest: str) -> str:
        letters = "[" + "".join(f"\\x{{{ord(character):x}}}" for character in self.value) + "]"
        if self.place >= 0:
            return f"(?s){begin}.{{{self.place}}}{letters}{rest}"
        return f"(?s){rest}{letters}.{{{-1 - self.place}}}{end}"


def _text(row: Row, part: str, name: str) -> str:
    return row.line if part == "line" else (row.labels if part == "label" else row.metadata).get(name, "")


def query_of(query: str, conditions: Sequence[Condition]) -> str:
    """The query under all the conditions."""
    for condition in conditions:
        query = condition.added_to(query)
    return query


def best_cut(rows: Sequence[Row]) -> Condition | None:
    """The condition that comes nearest to halving the rows; None where they differ in nothing that can be asked for.

    Labels first, where they do well: the index then leaves out the other side without reading it.
    """
    some = rows[:: len(rows) // SAMPLE + 1]
    return _best(some) or (_best(rows) if len(some) < len(rows) else None)


def _best(rows: Sequence[Row]) -> Condition | None:
    best, best_share = None, 0
    for part, name in _parts(rows):
        for condition, fit in _candidates(part, name, [_text(row, part, name) for row in rows]):
            share = min(fit, len(rows) - fit)
            if share > best_share * (1 if best is None or best.part == part else 2):
                best, best_share = condition, share
    return best


def _parts(rows: Sequence[Row]) -> Iterator[tuple[Literal["label", "metadata", "line"], str]]:
    labels = {name for row in rows for name in row.labels}
    for name in sorted(filter(LABEL_NAME.fullmatch, labels)):
        yield "label", name
    yield "line", ""
    # In a filter the stream's label comes before a metadata of its name.
    for name in sorted(filter(LABEL_NAME.fullmatch, {name for row in rows for name in row.metadata} - labels)):
        if name not in KEYWORDS:
            yield "metadata", name


def _candidates(
    part: Literal["label", "metadata", "line"], name: str, texts: Sequence[str]
) -> Iterator[tuple[Condition, int]]:
    """Conditions on one part, each with how many of the rows it fits: at least one and not all."""
    counts = Counter(texts)
    if len(counts) == 1:
        return
    if part != "line":
        value, fit = min(counts.items(), key=lambda item: (abs(2 * item[1] - len(texts)), item[0]))
        yield Condition(part, "is", value, name), fit
    found = False
    for place in _places(min(REACH, max(map(len, counts)))):
        letters = Counter(text[place] for text in texts if -len(text) <= place < len(text))
        chosen, fit = _half(letters, len(texts))
        if 0 < fit < len(texts):
            found = True
            yield Condition(part, "letter", chosen, name, place), fit
    if part == "line" and not found:
        first = texts[0]
        # Equal for as far as was looked at. The longer of two different texts is not within the other.
        whole = max(first, next(text for text in counts if text != first), key=len)
        yield Condition(part, "contains", whole), sum(whole in text for text in texts)


def _places(length: int) -> Iterator[int]:
    for place in range(length):
        yield place
        yield -1 - place


def _half(letters: Counter[str], rows: int) -> tuple[str, int]:
    """Letters, the first in their order, that about half of the rows have, and how many have them."""
    chosen, fit = "", 0
    for letter, count in sorted(letters.items()):
        if chosen and fit + count / 2 > rows / 2:
            break
        chosen += letter
        fit += count
    return chosen, fit
