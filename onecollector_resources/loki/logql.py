"""LogQL log queries, as far as reading lines in parts must understand them: where the selector is, what the stages do.

A query is cut into tokens and never taken apart further, so what is added (a matcher, a stage) is added to the user's
own text: quotes, comments and line breaks stay as they are, and Loki judges the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import orjson

TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
    |(?P<string>"(?:[^"\\\n]|\\[^\n])*"|`[^`]*`)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9][0-9A-Za-z_.]*)
    |(?P<mark>\|=|\|~|\|>|!=|!~|!>|=~|==|>=|<=|[][{}()|,=<>.:+*/%^@-])""",
    re.VERBOSE,
)

MATCHES = ("=", "!=", "=~", "!~")

PARSERS = {
    "json": "takes labels out of the line",
    "logfmt": "takes labels out of the line",
    "unpack": "puts another line in its place",
    "regexp": "takes labels out of the line",
    "pattern": "takes labels out of the line",
    "line_format": "writes another line",
    "label_format": "changes labels",
    "decolorize": "changes the line",
    "keep": "leaves labels out",
    "drop": "leaves labels out",
    "unwrap": "makes numbers of lines",
    "distinct": "leaves lines out",
}
"""Stages after which a line is not what is stored."""

WORDS = """and or unless by without on ignoring group_left group_right offset bool ip duration duration_seconds bytes sum avg
min max count stddev stdvar topk bottomk approx_topk sort sort_desc rate rate_counter count_over_time bytes_rate
bytes_over_time sum_over_time avg_over_time max_over_time min_over_time stdvar_over_time stddev_over_time
quantile_over_time first_over_time last_over_time absent_over_time vector label_replace variants of"""

KEYWORDS = frozenset(PARSERS) | frozenset(WORDS.split())
"""Names that cannot stand for a label in a label filter."""

LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

SIMPLE_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34}

ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|[0-7]{3}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[abfnrtv\\\"])?")


class LogqlError(ValueError):
    """A query that is no log query, or none that can be read in parts; the message points at the spot."""


@dataclass(frozen=True, slots=True)
class Token:
    """``text`` is ``query[start:end]``."""

    kind: Literal["string", "word", "number", "mark"]
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition of a stream selector; ``value`` is what the quotes mean. ``end`` is where it ends in the query."""

    name: str
    op: str
    value: str
    end: int = 0


@dataclass(frozen=True, slots=True)
class LogQuery:
    """A log query: its selector is ``text[start:end]``; ``stages`` are all tokens after that."""

    text: str
    matchers: tuple[Matcher, ...]
    start: int
    end: int
    stages: tuple[Token, ...]

    @property
    def selector(self) -> str:
        """The stream selector alone."""
        return self.text[self.start : self.end]


def pointed(query: str, at: int, message: str) -> LogqlError:
    """An error whose message shows the line of the query with a caret under the character at ``at``."""
    row = query.count("\n", 0, at)
    column = at - (query.rfind("\n", 0, at) + 1)
    line = query.split("\n")[row]
    return LogqlError(f"line {row + 1}, col {column + 1}: {message}\n    {line}\n    {' ' * column}^")


def tokens(query: str) -> Iterator[Token]:
    """The query's tokens without space and comments. Raises LogqlError where none begins."""
    at = 0
    while at < len(query):
        match = TOKEN.match(query, at)
        if match is None:
            said = "this text has no closing quote" if query[at] in '"`' else f"unexpected {query[at]!r}"
            raise pointed(query, at, said)
        kind = match.lastgroup
        if kind != "space":
            yield Token(kind, match[0], at, match.end())  # pyright: ignore[reportArgumentType]
        at = match.end()


def parse(query: str) -> LogQuery:
    """The query's parts. Raises LogqlError for what is no log query."""
    stream = list(tokens(query))
    at = 0
    while at < len(stream) and stream[at].text == "(":
        at += 1
    if at == len(stream) or stream[at].text != "{":
        where = stream[at].start if at < len(stream) else len(query)
        found = repr(stream[at].text) if at < len(stream) else "its end"
        raise pointed(
            query, where, f'expected a log query, which begins with a selector {{name="value"}}, found {found}'
        )
    start = stream[at].start
    at += 1
    matchers = []
    while at < len(stream) and stream[at].text != "}":
        if matchers:
            if stream[at].text != ",":
                raise pointed(query, stream[at].start, f"expected , or }} after a matcher, found {stream[at].text!r}")
            at += 1
            if at < len(stream) and stream[at].text == "}":
                break
        matchers.append(_matcher(query, stream, at))
        at += 3
    if at == len(stream):
        raise pointed(query, start, "this selector has no closing }")
    stages = tuple(stream[at + 1 :])
    for token in stages:
        if token.text in ("{", "}", "[", "]"):
            raise pointed(query, token.start, f"expected a log query, found {token.text!r} after its selector")
    return LogQuery(query, tuple(matchers), start, stream[at].end, stages)


def _matcher(query: str, stream: list[Token], at: int) -> Matcher:
    for step, (kinds, expected) in enumerate(
        ((("word",), "a label's name"), (("mark",), "= != =~ or !~"), (("string",), "a text in quotes"))
    ):
        token = stream[at + step] if at + step < len(stream) else None
        if token is None or token.kind not in kinds or (step == 1 and token.text not in MATCHES):
            where, found = (token.start, repr(token.text)) if token else (len(query), "its end")
            raise pointed(query, where, f"expected {expected}, found {found}")
    name, op, value = stream[at : at + 3]
    return Matcher(name.text, op.text, unquote(query, value), value.end)


def unquote(query: str, token: Token) -> str:
    """What a text in quotes means. Raises LogqlError for an escape that Go does not know."""
    body = token.text[1:-1]
    if token.text[0] == "`":
        return body.replace("\r", "")

    def byte_of(match: re.Match[str]) -> str:
        code = match[1]
        if code is None:
            raise pointed(query, token.start + 1 + match.start(), "unknown escape in this text")
        if code in SIMPLE_ESCAPES:
            return chr(SIMPLE_ESCAPES[code])
        number = int(code[1:], 16) if code[0] in "xuU" else int(code, 8)
        if code[0] not in "uU" and number > 127:
            # A single byte of a longer character: kept as Python keeps bytes that are no text, joined below.
            return chr(0xDC00 + number) if number < 256 else "�"
        return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "�"

    text = ESCAPE.sub(byte_of, body)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def quoted(text: str) -> str:
    """A text in quotes that Loki reads as that text."""
    return orjson.dumps(text).decode()


def with_matcher(query: str, name: str, value: str, op: str = "=") -> str:
    """The query for those of its streams alone whose label ``name`` fits. Raises LogqlError, ValueError for a bad name."""
    if not LABEL_NAME.fullmatch(name) or op not in MATCHES:
        raise ValueError(f"expected a label name and one of {MATCHES}, found {name!r} and {op!r}")
    parsed = parse(query)
    matcher = f"{name}{op}{quoted(value)}"
    # Right behind the last matcher: before the closing brace there may be a comment.
    at = parsed.matchers[-1].end if parsed.matchers else parsed.start + 1
    return f"{query[:at]}{', ' if parsed.matchers else ''}{matcher}{query[at:]}"


def with_stage(query: str, stage: str) -> str:
    """The query with a stage before all its own. Raises LogqlError."""
    at = parse(query).end
    return f"{query[:at]} {stage}{query[at:]}"


def plain_matchers(query: str) -> tuple[Matcher, ...] | None:
    """The matchers of a query that is a bare selector; None where it has stages. Raises LogqlError."""
    parsed = parse(query)
    return None if any(token.text != ")" for token in parsed.stages) else parsed.matchers


def changes_lines(query: str) -> Token | None:
    """The first stage after which lines or labels are not as stored, if any. Raises LogqlError."""
    stages = parse(query).stages
    for before, token in pairwise(stages):
        if before.text == "|" and token.text in PARSERS:
            return token
    return None


def refuse_changes(query: str) -> LogQuery:
    """The query's parts, if it gives lines as they are stored. Raises LogqlError naming the stage that does not."""
    parsed = parse(query)
    stage = changes_lines(query)
    if stage is not None:
        raise pointed(
            query,
            stage.start,
            f"{stage.text} {PARSERS[stage.text]}, and lines are read as they are stored; expected only line filters "
            "(|= != |~ !~ |> !>) and filters by labels or structured metadata; leave the stage out and apply it later",
        )
    return parsed
