"""What a person who shares a finding relies on: no secret of a known shape is in it, and no terminal is talked to."""

from __future__ import annotations

import json
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml.named_secrets import without_named
from ml.redaction import MOST, redacted

CARD = "4242 4242 4242 4242"
SECRETS = {
    CARD: "[card]",
    "4242-4242-4242-4242": "[card]",
    "378282246310005": "[card]",
    "ann.lee+logs@mail.example.org": "[email]",
    "Bearer abcDEF123.ghi-jkl_mno": "Bearer [token]",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.s5dCwQ": "[token]",
    "AKIAIOSFODNN7EXAMPLE": "[key]",
    "password=hunter2hunter2": "password=[secret]",
    'api_key: "s3cr3t with spaces"': "api_key: [secret]",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345": "[token]",
    "SECRET_KEY=wJalrXUtnFEMI/K7MDENG": "SECRET_KEY=[secret]",
    r'{"log":"{\"password\":\"a \\\"b\\\" c\"}\n"}': r'{"log":"{\"password\":[secret]}\n"}',
    "'token': b'a b', x": "'token': [secret], x",
    'password: Some("a b"), x': "password: [secret], x",
    "Cookie: theme=dark; sid=a1b2c3": "Cookie: [secret]",
    '{"name": "DB_PASSWORD", "value": "hunter2hunter2"}': '{"name": "DB_PASSWORD", "value": [secret]}',
    '<db:Password type="text">hunter2 & more</db:Password>': '<db:Password type="text">[secret]</db:Password>',
}
NAMES = ("password", "db_passwd", "api-key", "SECRET_KEY", "signingKey", "refresh_token", "Authorization")
MARK = "hunter2"
NESTED = st.recursive(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12).map(lambda text: text + MARK),
    lambda inner: st.lists(inner, min_size=1, max_size=2) | st.dictionaries(st.just("value"), inner, min_size=1),
    max_leaves=3,
)


@pytest.mark.parametrize(("secret", "shown"), SECRETS.items())
@given(before=st.text(max_size=600), after=st.text(max_size=600))
@example(before="12", after="3")
@example(before="x" * (MOST - 20), after="")
def test_no_secret_is_shown_wherever_it_stands(secret: str, shown: str, before: str, after: str) -> None:
    found = redacted(f"{before} {secret} {after}")
    assert secret not in found
    assert shown in redacted(f"see {secret} there")


@given(st.text(max_size=3000) | st.text("0123456789 -@.:=eyJ\x1b[", max_size=6000))
def test_what_is_shown_is_short_printable_and_the_same_when_shown_again(text: str) -> None:
    found = redacted(text)
    assert len(found) <= MOST
    assert not [c for c in found if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029"]
    assert redacted(found) == found


@given(st.lists(st.sampled_from(list(SECRETS)), min_size=1, max_size=400))
def test_half_a_secret_at_the_cut_is_not_shown_either(secrets: list[str]) -> None:
    found = redacted("; ".join(secrets))
    assert "4242" not in found and "hunter2" not in found and "eyJ" not in found


@given(st.sampled_from(NAMES), NESTED, st.integers(0, 3))
def test_what_a_name_tells_is_hidden_however_deep_in_json_and_what_follows_stays(
    name: str, secret: object, depth: int
) -> None:
    text = json.dumps({name: secret, "user": "bob"})
    for _ in range(depth):
        text = json.dumps({"log": text, "stream": "stdout"})
    shown = redacted(text)
    assert MARK not in shown
    assert "[secret]" in shown and "bob" in shown and shown.count("stdout") == depth


@pytest.mark.parametrize(
    "bit",
    [
        "password=",
        'password="',
        "password=[",
        "token={'",
        "\\",
        "secret\\\\",
        "pwd: (x) ",
        "cookie: a=b; ",
        "<a:token b>",
    ],
)
def test_no_line_makes_it_slow(bit: str) -> None:
    began = time.process_time()
    without_named(bit * (1_000_000 // len(bit)))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "line",
    [
        "partition_key=eu routing key: orders, tokens: 12, the password is wrong",
        "connection to 10.0.3.7:5432 refused",
        'select token > 3 from x where y <token/> {"name": "tokens", "value": 3}',
        "2026-11-03T14:02:11.123456Z request 1730642531123 took 12 ms",
        'GET /orders/20261103140211000001 200 "-" trace=4bf92f3577b34da6a3ce929d0e0e4736',
        "unicode stays: größer, 日本語, [b]not markup[/b]",
    ],
)
def test_what_is_no_secret_stays_as_it_is(line: str) -> None:
    assert redacted(line) == line


def test_terminals_are_not_talked_to_and_their_colours_hide_no_secret() -> None:
    assert redacted("\x1b[31mred\x1b[0m \x1b]0;title\x07a\tb\x00c\u202ed") == "red a b c d"
    assert redacted("pass\x1b[1mword=hunter2") == "password=[secret]"
    assert redacted("postgres://app:pw@db:5432/x Authorization: Bearer abcdefgh12345") == (
        "postgres://[login]@db:5432/x Authorization: [secret]"
    )


def test_a_line_of_any_length_is_cut_and_says_so() -> None:
    assert redacted("a" * 501) == "a" * 499 + "…"
    assert redacted("a" * 500) == "a" * 500
    assert redacted("a" * 10_000_000).endswith("…")
    assert redacted(("1-" * 5000) + CARD).endswith("…")
