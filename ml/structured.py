"""Lines that are JSON or logfmt: mined by their message and by which keys they have, not as running text.

They are read after digits were masked, so each distinct shape is parsed once, however many lines have it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    import polars as pl

MESSAGE_KEYS = ("msg", "message", "log", "event", "text", "body", "short_message", "@message", "error", "err")
"""Where loggers put the sentence, the first that is there."""

KEYS = 40
"""Keys that a shape names; more become an ellipsis."""

CANDIDATE = r'^\s*(?:\{\s*"|[A-Za-z_][0-9A-Za-z_.]*=)'
"""What a line begins with that may be structured."""

_PAIR = re.compile(r'\s*([A-Za-z_][\w.\-/]*)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?=\s|$)')
_DIGIT_ESCAPE = re.compile(r"\\0")


class Shaped(NamedTuple):
    """The sentence of a line, and its keys as ``{a,b}``; no keys for a line that is running text."""

    message: str
    shape: str


def candidates(lines: pl.Series) -> pl.Series:
    """Which lines may be structured, as booleans."""
    return lines.str.contains(CANDIDATE)


def shaped(line: str) -> Shaped:
    """A lightly masked line by message and keys; the line itself where it is not structured. Never raises."""
    pairs = _json(line) if line.lstrip()[:1] == "{" else _logfmt(line)
    if pairs is None:
        return Shaped(line, "")
    message = next((pairs[key] for key in MESSAGE_KEYS if pairs.get(key)), "")
    names = sorted(pairs)
    return Shaped(message, "{" + ",".join([*names[:KEYS], *(["…"] if len(names) > KEYS else [])]) + "}")


def _json(line: str) -> dict[str, str] | None:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            # "\u00e9" was masked to "\0".
            found = orjson.loads(_DIGIT_ESCAPE.sub("0", line))
        except orjson.JSONDecodeError:
            return None
    if not isinstance(found, dict):
        return None
    return {key: value if isinstance(value, str) else "" for key, value in found.items()}


def _logfmt(line: str) -> dict[str, str] | None:
    """Pairs of a line that is nothing but pairs, two at least."""
    pairs: dict[str, str] = {}
    at, found = 0, 0
    end = len(line.rstrip())
    while at < end:
        match = _PAIR.match(line, at)
        if match is None:
            return None
        value = match[2]
        pairs[match[1]] = value[1:-1].replace('\\"', '"') if value[:1] == '"' else value
        at = match.end()
        found += 1
    return pairs if found > 1 else None
