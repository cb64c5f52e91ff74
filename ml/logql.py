"""A LogQL query out of a template: the service's lines that look like it, ready to paste.

Loki's pattern filter (``|>``) matches literal text and ``<_>``; two of those in a row and named ones are refused by its
parser (pkg/logql/log/pattern of Loki 3.7), so both are mended here. A template is text out of somebody's logs: it is quoted,
never trusted. Where lines of the template are at hand, ``template_query.py`` makes a query that is known to find them.
"""

from __future__ import annotations

import json
import re
import unicodedata

PLACE = "<_>"
LONGEST = 500
_PLACEHOLDER = re.compile(r"<[^<>\s]{0,40}>")
_SHAPE = re.compile(r"(?:^|\s)\{[^{}]*\}$")


def pattern_of(template: str) -> str:
    """The pattern of a template's lines; empty where it has no words.

    Loki looks for the first literal anywhere, wants at least one character for each ``<_>``, and a pattern that ends in a
    literal to end the line. The key set of a structured line is left out, and so is what Loki would take for a named capture.
    """
    parts = _PLACEHOLDER.split(_SHAPE.sub("", template)[:LONGEST].strip())
    if not any(part.strip() for part in parts):
        return ""
    cut = len(template) > LONGEST or not parts[-1]
    return PLACE.join(part for part in parts if part) + (PLACE if cut else "")


def query_of(labels: dict[str, str], template: str | None = None) -> str:
    """``{service_name="b"} |> "words <_> words"``; without a template all lines of the service.

    The message of a structured line may end the line or not: both are asked for.
    """
    selector = "{" + ", ".join(f"{name}={quoted(value)}" for name, value in labels.items()) + "}"
    pattern = pattern_of(template) if template else ""
    if not pattern:
        return selector
    within = template is not None and _SHAPE.search(template) and not pattern.endswith(PLACE)
    return f"{selector} |> {quoted(pattern)}" + (f" or {quoted(pattern + PLACE)}" if within else "")


def quoted(text: str) -> str:
    """A Go string: JSON's escapes are a part of Go's. What a terminal would act on is escaped, and is the same when pasted."""
    document = json.dumps(text, ensure_ascii=False)
    return document if document.isprintable() else "".join(_escaped(c) for c in document)


def _escaped(char: str) -> str:
    if unicodedata.category(char) not in ("Cc", "Cf", "Zl", "Zp"):
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
