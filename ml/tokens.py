"""Texts as tokens: each a number to compare by, and a kind that says how likely it is to be a value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ml.masking import VALUE

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

WILDCARD = "<*>"

SHAPE = "\x02"
"""Between a sentence and its keys; no masked text holds a control character."""


class Kind(IntEnum):
    """What a token looks like."""

    VALUE = 0
    WILDCARD = 1
    NAME = 2
    """Holds a value, or has punctuation inside, as ``java.io.File``, ``eth-a`` and ``a/b`` do."""
    WORD = 3
    CAPITALS = 4
    """Mostly the name of a state: ``NEW``, ``FAILED``."""
    SYMBOL = 5


PUNCTUATED = re.compile(r"[./\\@_$:{}<>-]")
_NAMED_NEXT = """
user username login account host hostname database table relation queue topic pod namespace image volume interface
container node server device group domain file class named name for from
"""
NAMED_NEXT = frozenset(_NAMED_NEXT.split())
"""Words behind which a name follows more often than not."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts cut at spaces. ``numbers`` (uint64) are equal for equal tokens; text i begins at ``starts[i]``.

    ``shape`` says which of ``shapes`` a text has: the keys of a structured line, "" for running text.
    """

    texts: pl.Series
    words: pl.Series
    numbers: np.ndarray[Any, Any]
    starts: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]
    shapes: list[str]
    shape: np.ndarray[Any, Any]

    def matrix(self, rows: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
        """Numbers of the tokens of some texts, all of this length."""
        import numpy as np

        return self.numbers[self.starts[rows][:, None] + np.arange(length)]

    def words_of(self, row: int) -> list[str]:
        """The tokens of one text."""
        return self.words.slice(int(self.starts[row]), int(self.lengths[row])).to_list()


def tokenized(texts: pl.Series, most: int) -> Tokens:
    """The first ``most`` tokens of each text; an empty text has none."""
    import numpy as np
    import polars as pl

    shapes, shape = [""], np.zeros(len(texts), np.int64)
    sentences = texts
    if texts.str.contains(SHAPE, literal=True).any():
        fields = texts.str.split_exact(SHAPE, 1).struct.unnest()
        sentences, keys = fields["field_0"], fields["field_1"].fill_null("")
        shapes = keys.unique(maintain_order=True).to_list()
        place = {name: at for at, name in enumerate(shapes)}
        shape = np.array([place[name] for name in keys.to_list()], np.int64)
    lists = sentences.str.split(" ").list.head(most)
    empty = (sentences == "").to_numpy()
    lengths = lists.list.len().to_numpy().astype(np.int64)
    words = lists.explode()
    if empty.any():
        words = words.filter(pl.Series(~np.repeat(empty, lengths)))
        lengths[empty] = 0
    return Tokens(texts, words, numbers_of(words), np.cumsum(lengths) - lengths, lengths, shapes, shape)


def numbers_of(words: pl.Series) -> np.ndarray[Any, Any]:
    """A number for each token (uint64), the same within this process."""
    return words.hash().to_numpy()


@lru_cache(maxsize=1 << 14)
def kind_of(token: str) -> Kind:
    """By the token's looks alone."""
    if token == VALUE:
        return Kind.VALUE
    if token == WILDCARD:
        return Kind.WILDCARD
    if VALUE in token:
        return Kind.NAME
    core = token.strip(".:,;()[]\"'")
    if PUNCTUATED.search(core):
        return Kind.NAME
    if not any(map(str.isalpha, core)):
        return Kind.SYMBOL
    return Kind.CAPITALS if len(core) > 1 and core.isupper() else Kind.WORD


def names_follow(words: list[str]) -> list[bool]:
    """Where a token is named by its neighbour (``user alice``) or stands in brackets or quotes (``(alice)``)."""
    return [
        (at > 0 and words[at - 1].strip("(:,\"'").lower() in NAMED_NEXT)
        or (len(word) > 2 and word[0] in "([{'\"" and word[-1] in ")]}'\",:;.")
        for at, word in enumerate(words)
    ]
