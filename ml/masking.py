"""What in a line is surely a value becomes ``<V>``, by one regular expression over a whole column at once.

Most of what differs between two lines of one kind is a token that holds a digit. After masking, millions of lines are
some hundred distinct texts, and only those are looked at one by one. The expression is an alternation for RE2-like
engines (no look-around, ASCII classes: Unicode ones are slow in polars); the first branch that matches wins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

VALUE = "<V>"
"""Never Drain's own ``<*>``: a wildcard does not count as a similar token, and each unmasked id would be a template."""

MASKS_VERSION = 1
"""Goes up with any change below: templates mined under other masks are other templates."""

_WORD = "0-9A-Za-z_"
_EDGE = r"(?-u:\b)"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_UNIT = "(?:[KMGTkmgt]i?[Bb]|B|[Bb]ytes?|ns|us|µs|ms|s|secs?|seconds?|mins?|minutes?|hours?|days?)"
_NUMBER = r"(?:0|[1-9][0-9]{0,6})(?:\.[0-9]+)?"
_PART = rf"(?:\.?[{_WORD}:/@+-])"

BRANCHES = {
    "referrer and agent of an access log": r'"[^"]*" "[^"]*"$',
    "one quoted token": r"\"[^\"\s=]*\"|'[^'\s=]+'",
    "date with names": rf"{_EDGE}(?:{_DAY},? )?{_MONTH} +[0-9][0-9:., ]*(?: ?[AP]M{_EDGE}| UTC| GMT)?"
    rf"|{_EDGE}{_DAY},? [0-9]+ {_MONTH} [0-9: ]+",
    "URL, path, address": rf"[A-Za-z][{_WORD}+.-]*://[^\s,;\"')\]]+|(?:/[{_WORD}.+%~@:-]+){{2,}}/?(?:\?[^\s\"]*)?"
    rf"|[{_WORD}.+-]+@[{_WORD}-]+\.[{_WORD}.-]+",
    "list of numbers": rf"{_EDGE}{_NUMBER}(?:[ ,;#]+[+-]?{_NUMBER}){{2,}}{_EDGE}",
    # The unit changes with the size ("512 B", "1.2 KB"), and some write both.
    "quantity": rf"<?[+-]?{_EDGE}[0-9][0-9.,]*[ ]?{_UNIT}{_EDGE}(?: \([0-9.,]+ ?{_UNIT}\))?",
    # A dot only before something else: dots in a row fill a column, the last one ends a sentence.
    "token with a digit": rf"{_PART}*\.?[0-9]{_PART}*(?:\?[{_WORD}][^\s\"]*)?",
    "literal": rf"{_EDGE}(?:true|false|null|nil|None|True|False|NaN|undefined){_EDGE}",
    "list of names": rf"\[[{_WORD}.-]+(?:, ?[{_WORD}.-]+)+\]",
}

MASK = "|".join(BRANCHES.values())

_ASSIGNED = r"=[A-Za-z_][^\s,;()\[\]{}\"'=]*"
_RUN = rf"{VALUE}(?:[,;#|/:] ?{VALUE})+|{VALUE}(?: {VALUE}){{7,}}"
"""Values with something between them, or eight in a row: a list, however many it has. Fewer are columns."""

_OWN = "\ue000"
"""Stands for a value while digits are masked: of private use, so hardly in a line, and no part of a word."""

_LIGHT = rf"[{_WORD}]*[0-9][{_WORD}.:/@+-]*"
"""For lines with structure: it leaves quotes, braces and equals signs where they are."""

ESCAPES = r"\x1b\[[0-9;?]*[ -/]*[@-~]"
"""Colours and cursor movements of terminals (ECMA-48, control sequences)."""


def without_escapes(lines: pl.Series) -> pl.Series:
    """Lines without a terminal's control sequences."""
    return lines.str.replace_all(ESCAPES, "") if lines.str.contains("\x1b", literal=True).any() else lines


def masked(lines: pl.Series, masks: Sequence[str] = ()) -> pl.Series:
    """Lines with ``<V>`` for each value. ``masks`` are expressions of the service's own; they come first."""
    return lines.str.replace_all("|".join([*_branches(masks), MASK]), VALUE)


def masked_by_own(messages: pl.Series, masks: Sequence[str]) -> pl.Series:
    """Sentences of structured lines, as they were written, with ``<V>`` for what the service's own ``masks`` match, and then
    for all that ``masked`` finds once digits are masked.
    """
    marked = messages.str.replace_all("|".join(_branches(masks)), _OWN)
    return masked(lightly_masked(marked), masks).str.replace_all(_OWN, VALUE, literal=True)


def matching(lines: pl.Series, masks: Sequence[str]) -> pl.Series:
    """In which lines any of the ``masks`` matches, as booleans."""
    return lines.str.contains("|".join(_branches(masks)))


def may_match_inside(lines: pl.Series, masks: Sequence[str]) -> pl.Series:
    """In which structured lines any of the ``masks`` may match the sentence, as booleans: more than where it does."""
    import polars as pl

    if any(re.search(r'[\^$"\\]', mask) for mask in masks):
        # A sentence begins, ends and quotes elsewhere than its line.
        return pl.repeat(True, len(lines), dtype=pl.Boolean, eager=True)
    return matching(lines, masks)


def _branches(masks: Sequence[str]) -> list[str]:
    """Each mask as a branch of an alternation."""
    return [f"(?:{mask})" for mask in masks]


def lightly_masked(lines: pl.Series) -> pl.Series:
    """Lines with ``0`` for each token that holds a digit: JSON stays JSON and logfmt stays logfmt."""
    return lines.str.replace_all(_LIGHT, "0")


def settled(texts: pl.Series) -> pl.Series:
    """Distinct masked texts further reduced, where it would cost too much on every line.

    A word behind ``=`` is a value, `` ()`` is an empty one, a list of values is one value, white space is one space.
    """
    return (
        texts.str.replace_all(" ()", f" ({VALUE})", literal=True)
        .str.replace_all(_ASSIGNED, f"={VALUE}")
        .str.replace_all(_RUN, VALUE)
        .str.replace_all(r"[\s\x00-\x1f\x7f]+", " ")
        .str.strip_chars(" ")
    )
