"""A template as a LogQL query that finds its lines: a pattern filter where that is exact, else its words one by one.

What mining did to a line (units, runs of values, white space) cannot all be said in a pattern, so a pattern is given
only when it matches the lines that are known; words that all of them hold are always true.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ml.logql import PLACE, query_of, quoted
from ml.masking import VALUE
from ml.tokens import WILDCARD

WORDS = 4
"""Line filters that a query has at most."""

_GAPS = re.compile(f"(?:{re.escape(VALUE)}|{re.escape(WILDCARD)})+")
_KEYS = re.compile(r"(?:^| )\{[^{}]*\}$")
_CAPTURE = re.compile(r"<[A-Za-z_]\w*>")
"""What Loki would read as a named capture, which a filter may not have."""


def query_matching(template: str, service: str, examples: Sequence[str]) -> str:
    """A query for lines of a service with this template's text that finds all ``examples``, which are lines of it."""
    selector = query_of({"service_name": service})
    sentence = _KEYS.sub("", template) if examples and not all(template in line for line in examples) else template
    parts = _GAPS.split(sentence)
    pattern = PLACE.join(parts)
    if sentence != template:
        # A structured line has its keys around the sentence.
        pattern = re.sub(f"({PLACE})+", PLACE, f"{PLACE}{pattern}{PLACE}")
    if examples and any(parts) and not any(map(_CAPTURE.search, parts)) and all(_matches(pattern, e) for e in examples):
        return f"{selector} |> {quoted(pattern)}"
    words = sorted({part.strip() for part in parts if all(part.strip() in line for line in examples)}, key=len)
    return selector + "".join(f" |= {quoted(word)}" for word in words[::-1][:WORDS] if len(word) > 2)


def _matches(pattern: str, line: str) -> bool:
    """As Loki tests it (pkg/logql/log/pattern): each text where it comes first, every gap at least one character."""
    at = 0
    for number, part in enumerate(pattern.split(PLACE)):
        if not part:
            continue
        found = line.find(part, at)
        if found < 0 or (found == at and number):
            return False
        at = found + len(part)
    return pattern.endswith(PLACE) == (at != len(line))
