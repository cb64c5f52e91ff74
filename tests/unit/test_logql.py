"""Log queries: what is added to one keeps its meaning, and what changes lines is refused with a caret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.loki.logql import (
    LogqlError,
    Matcher,
    changes_lines,
    parse,
    plain_matchers,
    quoted,
    refuse_changes,
    tokens,
    unquote,
    with_matcher,
    with_stage,
)

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True)
SPACE = st.sampled_from(["", " ", "\n\t", ' # a "comment" } with {a="b"}\n'])
VALUES = st.text(max_size=6)


@st.composite
def selectors(draw: st.DrawFn) -> tuple[str, list[tuple[str, str, str]]]:
    """A selector as people write them, and its matchers."""
    matchers = draw(
        st.lists(st.tuples(NAMES, st.sampled_from(["=", "!=", "=~", "!~"]), VALUES), min_size=1, max_size=3)
    )
    parts = []
    for name, op, value in matchers:
        raw = "`" not in value and "\r" not in value and draw(st.booleans())
        text = f"`{value}`" if raw else quoted(value)
        parts.append(f"{draw(SPACE)}{name}{draw(SPACE)}{op}{draw(SPACE)}{text}{draw(SPACE)}")
    return f"{draw(SPACE)}{{{','.join(parts)}}}{draw(SPACE)}", matchers


STAGES = st.sampled_from(["", '|= "x}"', '!~ `{a="b"}` or "y"', '| level="a" and (n > 5 or b!="|json")', '|> "<_>"'])


def meant(query: str) -> list[tuple[str, str, str]]:
    return [(m.name, m.op, m.value) for m in parse(query).matchers]


@given(selectors(), STAGES, NAMES, VALUES, st.integers(0, 2))
def test_a_matcher_is_added_and_all_else_stays(
    selector: tuple[str, list[tuple[str, str, str]]], stage: str, name: str, value: str, brackets: int
) -> None:
    text, matchers = selector
    query = "(" * brackets + text + stage + ")" * brackets
    added = with_matcher(query, name, value)
    assert meant(query) == matchers
    assert meant(added) == [*matchers, (name, "=", value)]
    assert [t.text for t in parse(added).stages] == [t.text for t in parse(query).stages]
    assert changes_lines(query) is None
    staged = with_stage(query, "|= `a`")
    assert meant(staged) == matchers
    assert [t.text for t in parse(staged).stages] == ["|=", "`a`", *[t.text for t in parse(query).stages]]
    plain = plain_matchers(query)
    assert (plain is None) == bool(stage)


@given(VALUES)
def test_quotes_mean_what_was_quoted(value: str) -> None:
    (token,) = tokens(quoted(value))
    assert unquote(quoted(value), token) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\x41\101\u00fc\U0001f600\t\\\""', 'AAü\U0001f600\t\\"'),
        (r'"\xc3\xbc"', "ü"),
        ("`\\n\r\n`", "\\n\n"),
        ('""', ""),
    ],
)
def test_escapes_are_those_of_go(text: str, value: str) -> None:
    (token,) = tokens(text)
    assert unquote(text, token) == value


@given(st.text(max_size=30))
def test_any_text_is_a_query_or_an_error_that_points_into_it(text: str) -> None:
    try:
        parse(text)
    except LogqlError as error:
        _, line, caret = str(error).rsplit("\n", 2)
        assert caret.strip() == "^"
        assert len(caret) <= len(line) + 1


@pytest.mark.parametrize(
    ("query", "stage"),
    [
        ('{a="b"} | json', "json"),
        ('{a="b"} |= "x" | logfmt --strict | c="d"', "logfmt"),
        ('({a="b"} |= "| json" | line_format `{{.x}}`)', "line_format"),
        ('{a="b"} # | json\n | label_format x=y', "label_format"),
        ('{a="b"} | c="d" | decolorize', "decolorize"),
        ('{a="b"} | keep a', "keep"),
        ('{a="b"}|drop a', "drop"),
        ('{a="b"} | pattern "<x>"', "pattern"),
        ('{a="b"} | regexp "(?P<x>.)"', "regexp"),
        ('{a="b"} | unpack', "unpack"),
    ],
)
def test_a_stage_that_changes_lines_is_named(query: str, stage: str) -> None:
    found = changes_lines(query)
    assert found is not None
    assert found.text == stage
    with pytest.raises(LogqlError, match=rf"{stage} .*as they are stored") as error:
        refuse_changes(query)
    _, line, caret = str(error.value).rsplit("\n", 2)
    assert line[len(caret) - 1 :].startswith(stage)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ('sum(count_over_time({a="b"}[5m]))', "line 1, col 1: expected a log query, which begins with a selector"),
        ('count_over_time({a="b"}[5m])', "found 'count_over_time'"),
        ("", "found its end"),
        ('{a="b"}[5m]', r"line 1, col 8: expected a log query, found '\['"),
        ('{a="b"', "line 1, col 1: this selector has no closing }"),
        ('{a="b" c="d"}', "col 8: expected , or } after a matcher, found 'c'"),
        ("{a=b}", "col 4: expected a text in quotes, found 'b'"),
        ('{a=="b"}', "col 3: expected = != =~ or !~, found '=='"),
        ('{"a"="b"}', "col 2: expected a label's name"),
        ('{a="b"} |= "c', "col 12: this text has no closing quote"),
        ('{a="b"}\n |= "\\q"\n | ü', r"line 3, col 4: unexpected 'ü'"),
        (r'{a="b\q"}', "col 6: unknown escape"),
    ],
)
def test_an_error_says_where_and_what_was_expected(query: str, message: str) -> None:
    with pytest.raises(LogqlError, match=message):
        parse(query)


def test_a_bare_selector_is_known_as_one() -> None:
    assert plain_matchers('( {a="b", c!~`d`} ) # all') == (Matcher("a", "=", "b", 8), Matcher("c", "!~", "d", 16))
    assert plain_matchers('{a="b"} |= ""') is None
    assert with_matcher("{}", "a", "b") == '{a="b"}'
    with pytest.raises(ValueError, match="expected a label name"):
        with_matcher('{a="b"}', "a-b", "c")
