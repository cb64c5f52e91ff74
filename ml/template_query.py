"""A template as a LogQL query that finds its lines: a pattern filter where that is exact, else its words one by one.

What mining did to a line (units, runs of values, white space) cannot all be said in a pattern, so a pattern is given
only when it matches the lines that are known; words that all of them hold are always true.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ml.masking import VALUE
from ml.tokens import WILDCARD

GAP = "<_>"
WORDS = 4
"""Line filters that a query has at most."""


def query_of(template: str, service: str, examples: Sequence[str]) -> str:
    """A query for lines of a service with this template's text; ``examples`` are lines of it."""
    selector = "{service_name=" + _quoted(service) + "}"
    pattern = re.sub(f"(?:{re.escape(VALUE)}|{re.escape(WILDCARD)})+", GAP, template)
    if examples and pattern != GAP and all(_matches(pattern, line) for line in examples):
        return f"{selector} |> {_quoted(pattern)}"
    parts = [part.strip() for part in re.split(r"<V>|<\*>|[{},]", template)]
    words = sorted((part for part in parts if len(part) > 2 and all(part in line for line in examples)), key=len)
    return selector + "".join(f" |= {_quoted(word)}" for word in words[::-1][:WORDS])


def _matches(pattern: str, line: str) -> bool:
    """As Loki matches it: the whole line, a gap is one character at least, lazily."""
    return re.fullmatch("(?s:.+?)".join(map(re.escape, pattern.split(GAP))), line) is not None


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
