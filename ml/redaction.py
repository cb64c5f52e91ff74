"""Lines out of logs as others may read them: no secrets, no control characters, cut. They stay data: nothing is markup.

Secrets are told by their shape (card numbers by their check digit too) or by the name before them. Names of hosts and
addresses stay: a refused connection says nothing without the address. Every expression has bounded repeats, so that no line makes
it slow, and a line is looked at only as far as it can be shown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from ml.named_secrets import without_named

MOST = 500
"""Characters of a line that are shown."""
READ = 4096
"""Characters of a line that are looked at: what was redacted is shorter, and leaves room for what follows."""
TAIL = 256
"""Characters before a cut in which half a secret may stand that nothing tells any more."""
CARD_DIGITS = range(13, 20)

ESCAPES = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Of terminals: colours, cursor, titles (ECMA-48)."""

SHAPES = (
    (re.compile(r"(?i)\b(bearer|basic|digest|negotiate)\s{1,8}(?!\[)[\w.~+/=-]{8,}"), r"\1 [token]"),
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]{0,4096}){0,4}"), "[token]"),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk_live_|rk_live_|sk-)[\w-]{16,}"), "[token]"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), "[key]"),
    (re.compile(r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*"), "[key]"),
    (re.compile(r"(?<=://)[^\s/@:]{0,256}:[^\s/@]{1,256}@"), "[login]@"),
    (re.compile(r"[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), "[email]"),
)
_DIGITS = re.compile(r"[0-9](?:[ -]?[0-9]){12,}")


def redacted(text: str, most: int = MOST) -> str:
    """A line as it may be shown: secrets as ``[card]``, ``[email]`` and the like, at most ``most`` characters."""
    whole = len(text) <= READ
    shown = _without_secrets(printable(text[:READ]))
    if not whole:
        shown = shown[: max(0, len(shown) - TAIL)]
    return shown if whole and len(shown) <= most else shown[: most - 1] + "…"


def printable(text: str) -> str:
    """The text without escapes of terminals; a blank for each other character that shows nothing or moves others."""
    if text.isascii() and text.isprintable():
        return text
    kept = ESCAPES.sub("", text)
    # C: control, format (also those that turn the direction around), surrogates, unassigned; Zl and Zp end lines.
    return "".join(" " if (kind := unicodedata.category(c))[0] == "C" or kind in ("Zl", "Zp") else c for c in kept)


def _without_secrets(text: str) -> str:
    for shape, word in SHAPES:
        text = shape.sub(word, text)
    return without_named(_DIGITS.sub(_cards, text))


def _cards(found: re.Match[str]) -> str:
    """Digits with the card numbers among them replaced."""
    run = found.group()
    out, at = [], 0
    for start, end in _joined(_card_spans(run)):
        out += [run[at:start], "[card]"]
        at = end
    return "".join([*out, run[at:]])


def _card_spans(run: str) -> Iterator[tuple[int, int]]:
    """Groups of digits that are a card's number together."""
    groups = [match.span() for match in re.finditer(r"[0-9]+", run)]
    for number, (start, _) in enumerate(groups):
        digits = ""
        for low, high in groups[number:]:
            digits += run[low:high]
            if len(digits) > CARD_DIGITS[-1]:
                break
            if len(digits) in CARD_DIGITS and _checks(digits):
                yield start, high


def _joined(spans: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if out and start < out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def _checks(digits: str) -> bool:
    """Luhn's sum (ISO/IEC 7812-1); all digits alike are nobody's card."""
    if len(set(digits)) == 1:
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
