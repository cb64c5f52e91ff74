"""Stream selectors (``{env="dev", app=~"a|b"}``): read without Loki, and applied to a stream's labels.

One selector that Loki cannot read makes it refuse the limits of all tenants, and a start fails. So what is accepted
here is narrower than what Loki takes: matchers only, and of regular expressions what both Go's RE2 and Python read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from onecollector_resources.loki.logql import LogqlError, parse, quoted

Operator = Literal["=", "!=", "=~", "!~"]

PYTHON_ONLY = re.compile(r"\(\?(?:[=!>(#]|<[=!]|P[=>])|\\[1-9Z]|[*+?}]\+")
"""Look-around, references, conditions, atomic and possessive parts: RE2 has none of them."""

MOST_REPEATS = 1000
"""RE2 refuses ``x{1001}``."""


class SelectorError(ValueError):
    """Text that is no stream selector; the message says what was expected and found."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label's condition; a label that a stream does not have counts as empty."""

    name: str
    operator: Operator
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a stream with these labels fulfils it."""
        found = labels.get(self.name, "")
        if self.operator in ("=", "!="):
            return (found == self.value) == (self.operator == "=")
        return (re.fullmatch(self.value, found, re.DOTALL) is not None) == (self.operator == "=~")

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{quoted(self.value)}"


def selector_text(matchers: Iterable[Matcher]) -> str:
    """The selector of these matchers."""
    return "{" + ", ".join(str(matcher) for matcher in matchers) + "}"


def parse_selector(text: object) -> tuple[Matcher, ...]:
    """Its matchers, in order. Raises SelectorError."""
    if not isinstance(text, str):
        raise SelectorError(f"""expected a stream selector such as '{{env="dev"}}', found {text!r}""")
    try:
        query = parse(text)
    except LogqlError as error:
        raise SelectorError(f"expected a stream selector: {error}") from error
    if query.selector != text.strip():
        raise SelectorError(
            f"expected a stream selector and nothing else, found {text!r}: retention goes by stream, filters of lines are no part of it"
        )
    if re.search(r",\s*}$", query.selector):
        raise SelectorError(f"expected a matcher behind the last comma, found {text!r}")
    matchers = tuple(Matcher(m.name, cast(Operator, m.op), m.value) for m in query.matchers)
    for matcher in matchers:
        if matcher.operator in ("=~", "!~"):
            _check_pattern(matcher.value)
    if all(matcher.matches({}) for matcher in matchers if matcher.operator in ("=", "=~")):
        raise SelectorError(
            f"""expected at least one = or =~ that needs a value, such as app="web" or app=~".+"; found {text!r}"""
        )
    return matchers


def _check_pattern(pattern: str) -> None:
    found = PYTHON_ONLY.search(re.sub(r"\\\\", "", pattern))
    if found is not None:
        raise SelectorError(f"{found[0]!r} in the regular expression {pattern!r} is not known to Loki (RE2)")
    repeats = re.findall(r"\{(\d+)(?:,(\d*))?\}", pattern)
    if any(int(number) > MOST_REPEATS for pair in repeats for number in pair if number):
        raise SelectorError(f"the regular expression {pattern!r} repeats more than {MOST_REPEATS} times")
    try:
        re.compile(pattern)
    except re.error as error:
        raise SelectorError(f"{pattern!r} is no regular expression: {error}") from error


def matches(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether a stream fulfils all of them."""
    return all(matcher.matches(labels) for matcher in matchers)
