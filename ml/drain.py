"""A small Drain of our own: which texts of one shape and one token count are the same template.

Drain joins a text to the most similar template above a threshold. Here evidence decides: a text and the templates that
agree with it on the same positions become one template when there are enough of them. How many is enough depends on
what differs: with ``d`` for the weight of the differing positions (a value against a word counts little, a word against
a word fully) and ``c`` for the words that agree, it takes ``evidence * d / c`` texts, two at least. Two texts of 16
words that differ in one are the same; of five words it takes ten that differ in that one, as the names of users do and
``opened`` and ``closed`` do not. So no position is forced to be constant, and none a variable, by where it stands.

A text that a template covers belongs to the one with the fewest wildcards, the older of equals; that is looked up for
all texts at once, so texts are learned one by one only where something is new. The outcome depends on the order of the
texts, never on how they were cut into calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml.buckets import Bucket
from ml.tokens import Kind, kind_of, names_follow

if TYPE_CHECKING:
    import numpy as np

NOBODY = -1
"""Stands for the template of a text that was not learned: a limit was reached."""

EVIDENCE = 35.0
"""The middle of where accuracy hardly changes, 25 to 50, on formats of twenty systems."""

LEAST_AGREEMENT = 0.15
"""``c`` where no word agrees: single words become one template only when there are two hundred of them.

Then a flood of words is one template, instead of pushing every other one out.
"""

NAMED = 0.35
"""Factor on a difference where a name is expected."""


def _weights() -> list[list[float]]:
    """Weight of a difference, by the kinds of both tokens."""
    weights = [[1.0] * len(Kind) for _ in Kind]

    def both(a: Kind, b: Kind, weight: float) -> None:
        weights[a][b] = weights[b][a] = weight

    for kind in Kind:
        both(Kind.SYMBOL, kind, 1.5)
    for kind in Kind:
        both(Kind.VALUE, kind, 0.4)
    both(Kind.VALUE, Kind.SYMBOL, 0.8)
    both(Kind.NAME, Kind.NAME, 0.4)
    both(Kind.NAME, Kind.WORD, 0.7)
    both(Kind.NAME, Kind.CAPITALS, 0.7)
    both(Kind.CAPITALS, Kind.CAPITALS, 1.5)
    for kind in Kind:
        both(Kind.WILDCARD, kind, 0.0)
    return weights


@dataclass(slots=True)
class Grown:
    """What learning a text did: its template, and those that it swallowed. ``wider``: the template covers more now."""

    number: int
    wider: bool = False
    swallowed: tuple[int, ...] = ()


@dataclass(slots=True)
class Rows:
    """Texts of one shape and length, in order: numbers of their tokens (n x length, uint64), words and text by row."""

    numbers: np.ndarray[Any, Any]
    words: Callable[[int], list[str]]
    text: Callable[[int], str]


@dataclass(slots=True)
class Drain:
    """Templates of one service, by number. ``create`` is asked for the number of a new template and may refuse."""

    create: Callable[[str], int | None]
    evidence: float = EVIDENCE
    buckets: dict[tuple[str, int], Bucket] = field(default_factory=dict)
    _weights: Any = None

    def bucket(self, shape: str, length: int) -> Bucket:
        """Where texts of this shape and length go."""
        return self.buckets.setdefault((shape, length), Bucket(length))

    def has(self, shape: str, length: int) -> bool:
        """Whether there may be templates of this shape and length."""
        return (shape, length) in self.buckets

    def tokens(self) -> Iterator[tuple[str, int, tuple[str | None, ...]]]:
        """Every template: its shape, number and tokens, None for a wildcard."""
        for (shape, _), bucket in self.buckets.items():
            for number, words in zip(bucket.members.tolist(), bucket.words, strict=True):
                yield shape, number, words

    def forget(self, numbers: set[int]) -> None:
        """Remove templates."""
        for key, bucket in list(self.buckets.items()):
            bucket.remove([at for at, number in enumerate(bucket.members.tolist()) if number in numbers])
            if not len(bucket.members):
                del self.buckets[key]

    def assign(
        self,
        kind: tuple[str, int],
        rows: Rows,
        found: np.ndarray[Any, Any],
        budget: list[int],
        merged: Callable[[int, Sequence[int]], None],
    ) -> np.ndarray[Any, Any]:
        """The template of each row, NOBODY where ``budget[0]``, the texts that may still be learned, is used up.

        ``kind`` are the shape and length of all rows, ``found`` is what is known of them.
        """
        import numpy as np

        bucket = self.bucket(*kind)
        for row in np.flatnonzero(found < 0).tolist():
            if found[row] >= 0:
                continue
            if budget[0] <= 0:
                break
            budget[0] -= 1
            grown = self._learn(kind, bucket, rows.numbers[row], rows.words(row), rows.text(row))
            if grown is None:
                break
            found[row] = grown.number
            if grown.swallowed:
                merged(grown.number, grown.swallowed)
            if grown.wider:
                bucket.match_again(rows.numbers, found, row + 1, grown.number, grown.swallowed)
        return found

    def _learn(
        self, kind: tuple[str, int], bucket: Bucket, numbers: np.ndarray[Any, Any], words: list[str], text: str
    ) -> Grown | None:
        """Take in a text that no template covers."""
        import numpy as np

        kinds = np.array([kind_of(word) for word in words], np.uint8)
        if len(bucket.members) and len(words):
            group, same = self._evidence(bucket, numbers, kinds, words)
            if len(group):
                return Grown(*bucket.widen(group, same))
        number = self.create(text)
        if number is None:
            return None
        bucket.add(number, numbers, kinds, tuple(words))
        # To make room, all others of the bucket may have been forgotten, and it with them.
        self.buckets[kind] = bucket
        return Grown(number)

    def _evidence(
        self, bucket: Bucket, numbers: np.ndarray[Any, Any], kinds: np.ndarray[Any, Any], words: list[str]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Rows of the bucket that this text is one template with, none or more, and where they agree."""
        import numpy as np

        if self._weights is None:
            self._weights = np.array(_weights())
        equal = bucket.numbers == numbers
        same = equal | bucket.wild
        telling = (kinds == Kind.NAME) | (kinds == Kind.WORD) | (kinds == Kind.CAPITALS)
        agree = (equal & telling).sum(1)
        factor = np.where((kinds == Kind.WORD) & names_follow(words), NAMED, 1.0)
        differ = np.where(same, 0.0, self._weights[bucket.kinds, kinds] * factor).sum(1)
        needed = np.maximum(2.0, self.evidence * differ / np.maximum(agree, LEAST_AGREEMENT))
        # A group needs what the most different of it needs, and has at most all rows.
        rows = np.flatnonzero(needed <= len(needed) + 1)
        if not len(rows):
            return rows, same[:0]
        bits = np.ascontiguousarray(np.packbits(same[rows], axis=1))
        patterns, first, group_of, size = np.unique(
            bits.view(f"V{bits.shape[1]}").ravel(), return_index=True, return_inverse=True, return_counts=True
        )
        least = np.full(len(patterns), len(words))
        most = np.zeros(len(patterns))
        np.minimum.at(least, group_of, agree[rows])
        np.maximum.at(most, group_of, differ[rows])
        enough = size + 1 >= np.maximum(2.0, self.evidence * most / np.maximum(least, LEAST_AGREEMENT))
        if not enough.any():
            return rows[:0], same[:0]
        able = np.flatnonzero(enough)
        best = able[np.lexsort((first[able], most[able], -least[able]))[0]]
        return rows[group_of == best], same[rows[first[best]]]
