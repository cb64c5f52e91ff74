"""Templates of one token count as matrices, so that a million texts are looked up without a loop over texts.

A template is a row: a number for each token, and which positions are wildcards. Texts that a template covers are found
by a sum of products that leaves the wildcards out: one look-up for all templates with wildcards at the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ml.tokens import Kind

if TYPE_CHECKING:
    import numpy as np

UNMATCHED = -1


@lru_cache
def _factors(length: int) -> np.ndarray[Any, Any]:
    """A factor for each position: odd, so that no bit of a token's number is lost."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(length)).integers(0, 1 << 63, length, np.uint64) * 2 + np.uint64(1)


class Bucket:
    """Rows by age. ``members`` are the templates' numbers; ``words`` their tokens, None for a wildcard."""

    def __init__(self, length: int) -> None:
        import numpy as np

        self.length = length
        self.members = np.zeros(0, np.int64)
        self.numbers = np.zeros((0, length), np.uint64)
        self.wild = np.zeros((0, length), bool)
        self.kinds = np.zeros((0, length), np.uint8)
        self.words: list[tuple[str | None, ...]] = []
        self._factors = _factors(length)

    def add(
        self, number: int, numbers: np.ndarray[Any, Any], kinds: np.ndarray[Any, Any], words: tuple[str | None, ...]
    ) -> None:
        """A new row, the youngest."""
        import numpy as np

        wild = np.array([word is None for word in words], bool)
        kinds = np.where(wild, np.uint8(Kind.WILDCARD), kinds)
        self.members = np.concatenate([self.members, [number]])
        self.numbers = np.concatenate([self.numbers, numbers[None]])
        self.wild = np.concatenate([self.wild, wild[None]])
        self.kinds = np.concatenate([self.kinds, kinds[None]])
        self.words.append(words)

    def remove(self, rows: Sequence[int]) -> None:
        """Take rows out."""
        import numpy as np

        if not rows:
            return
        gone = set(rows)
        self.words = [words for at, words in enumerate(self.words) if at not in gone]
        for name in ("members", "numbers", "wild", "kinds"):
            setattr(self, name, np.delete(getattr(self, name), list(rows), axis=0))

    def widen(self, rows: np.ndarray[Any, Any], same: np.ndarray[Any, Any]) -> tuple[int, bool, tuple[int, ...]]:
        """One template of these rows and a text that agrees with them at ``same``: (number, True, those swallowed).

        It is the oldest of them, and swallows what else it covers.
        """
        keep = int(rows[0])
        wild = ~same | self.wild[rows].any(0)
        covered = ((self.numbers == self.numbers[keep]) | wild).all(1)
        keep = int(covered.argmax())
        swallowed = [at for at in covered.nonzero()[0].tolist() if at != keep]
        self.wild[keep] = wild
        self.kinds[keep][wild] = Kind.WILDCARD
        self.words[keep] = tuple(None if hidden else word for word, hidden in zip(self.words[keep], wild, strict=True))
        number = int(self.members[keep])
        numbers = tuple(self.members[swallowed].tolist())
        self.remove(swallowed)
        return number, True, numbers

    def match(self, texts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The number of the template that covers each text (n x length), UNMATCHED where none does."""
        import numpy as np

        found = np.full(len(texts), UNMATCHED, np.int64)
        if not len(texts) or not len(self.members):
            return found
        if not self.length:
            found[:] = self.members[0]
            return found
        products = texts * self._factors
        whole = products.sum(1, dtype=np.uint64)
        own = np.where(self.wild, np.uint64(0), self.numbers * self._factors).sum(1, dtype=np.uint64)
        patterns, of_pattern = np.unique(self.wild, axis=0, return_inverse=True)
        of_pattern = of_pattern.ravel()
        wildcards = patterns.sum(1)
        for count in np.unique(wildcards):
            left = np.flatnonzero(found < 0)
            if not len(left):
                break
            best = np.full(len(left), np.iinfo(np.int64).max)
            for pattern in np.flatnonzero(wildcards == count):
                rows = np.flatnonzero(of_pattern == pattern)
                hidden = np.flatnonzero(patterns[pattern])
                keys = whole[left]
                if len(hidden):
                    keys = keys - products[left[:, None], hidden].sum(1, dtype=np.uint64)
                order = np.argsort(own[rows])
                sums, numbers = own[rows][order], self.members[rows][order]
                at = np.minimum(np.searchsorted(sums, keys), len(sums) - 1)
                best = np.where(sums[at] == keys, np.minimum(best, numbers[at]), best)
            hit = best < np.iinfo(np.int64).max
            found[left[hit]] = best[hit]
        return found

    def match_again(
        self,
        texts: np.ndarray[Any, Any],
        found: np.ndarray[Any, Any],
        start: int,
        number: int,
        swallowed: Sequence[int],
    ) -> None:
        """Put ``found`` right from row ``start`` on, after template ``number`` became wider."""
        import numpy as np

        # What was this template's may now be another's that says more; what was nobody's may be this one's.
        moved = start + np.flatnonzero(np.isin(found[start:], [number, *swallowed]))
        if len(moved):
            found[moved] = self.match(texts[moved])
        row = int(np.flatnonzero(self.members == number)[0])
        covered = np.arange(start, len(texts))
        for position in np.flatnonzero(~self.wild[row]):
            covered = covered[texts[covered, position] == self.numbers[row, position]]
        others = covered[found[covered] >= 0]
        found[covered[found[covered] < 0]] = number
        if len(others):
            wildcards = dict(zip(self.members.tolist(), self.wild.sum(1).tolist(), strict=True))
            mine = (wildcards[number], number)
            better = [mine < (wildcards[other], other) for other in found[others].tolist()]
            found[others[better]] = number
