"""Texts as tokens: each a number to compare by, and a kind that says how likely it is to be a value."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from ml.masking import VALUE

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

WILDCARD = "<*>"


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
container node server device group domain file class named name
"""
NAMED_NEXT = frozenset(_NAMED_NEXT.split())
"""Words behind which a name follows more often than not."""


class Tokens(NamedTuple):
    """Texts cut at spaces. ``numbers`` (uint64) are equal for equal tokens; text i has ``ends[i-1]`` to ``ends[i]``."""

    words: pl.Series
    numbers: np.ndarray[Any, Any]
    ends: np.ndarray[Any, Any]


def tokenized(texts: pl.Series, most: int) -> Tokens:
    """The first ``most`` tokens of each text; an empty text has none."""
    import numpy as np
    import polars as pl

    lists = texts.str.split(" ").list.head(most)
    empty = (texts == "").to_numpy()
    lengths = lists.list.len().to_numpy().astype(np.int64)
    words = lists.explode()
    if empty.any():
        words = words.filter(pl.Series(~np.repeat(empty, lengths)))
        lengths[empty] = 0
    return Tokens(words, words.hash().to_numpy(), np.cumsum(lengths))


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
