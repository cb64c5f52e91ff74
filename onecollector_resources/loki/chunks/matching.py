"""Which streams a selector means: Loki's four kinds of matchers over label sets, without asking Loki.

A label that is not there is an empty one, expressions are RE2's and must fit the whole value. Arrow's own RE2 does the
matching, so what fits here fits in Loki.
"""

# pyarrow makes the functions of its compute module at import, where a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


class MatcherError(ValueError):
    """A matcher that means nothing: no such operator, or an expression that is none."""


class Matching(Protocol):
    """A condition on a label; ``logql.Matcher`` is one. ``op``: ``=``, ``!=``, ``=~``, ``!~``."""

    @property
    def name(self) -> str: ...
    @property
    def op(self) -> str: ...
    @property
    def value(self) -> str: ...


def matching(label_sets: Sequence[Mapping[str, str]], matchers: Sequence[Matching]) -> np.ndarray[Any, Any]:
    """For each label set whether all matchers fit. Raises MatcherError."""
    import numpy as np

    kept = np.ones(len(label_sets), bool)
    for matcher in matchers:
        values = [labels.get(matcher.name, "") for labels in label_sets]
        match matcher.op:
            case "=" | "!=":
                fits = np.fromiter((value == matcher.value for value in values), bool, len(values))
            case "=~" | "!~":
                fits = _regex(values, matcher)
            case _:
                raise MatcherError(f"{matcher.name}: expected = != =~ or !~, found {matcher.op!r}")
        kept &= ~fits if matcher.op.startswith("!") else fits
    return kept


def _regex(values: Sequence[str], matcher: Matching) -> np.ndarray[Any, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pa.array(values, pa.string()).dictionary_encode()
    try:
        # Alone first: with what is put around it, "a)|(b" would be an expression.
        pc.match_substring_regex(texts.dictionary, matcher.value)
        fits = pc.match_substring_regex(texts.dictionary, rf"\A(?s:{matcher.value})\z")
    except pa.ArrowInvalid as error:
        raise MatcherError(
            f"{matcher.name}{matcher.op}: expected an RE2 expression, found one that is not: {error}"
        ) from None
    return fits.take(texts.indices).to_numpy(zero_copy_only=False)
