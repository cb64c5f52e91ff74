"""Whatever a line is, its shape is found or it is running text; nothing raises."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.masking import lightly_masked, masked, settled
from ml.structured import KEYS, candidates, shaped


@given(st.text() | st.text(alphabet='{}[]":,= \\a0'))
def test_reading_a_line_never_raises(line: str) -> None:
    found = shaped(line)
    assert found.shape or found.message == line


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.none() | st.booleans() | st.integers() | st.text(), max_size=6)
)
def test_json_of_any_values_is_known_by_its_keys(pairs: dict[str, object]) -> None:
    import json

    assert shaped(json.dumps(pairs)).shape == "{" + ",".join(sorted(pairs)) + "}"


@pytest.mark.parametrize(
    ("line", "message", "shape"),
    [
        ('{"msg":"a b","x":1}', "a b", "{msg,x}"),
        ('{"message":"m","msg":""}', "m", "{message,msg}"),
        ('{"x":{"msg":"inner"}}', "", "{x}"),
        ('level=info msg="say \\"hi\\"" n=1', 'say "hi"', "{level,msg,n}"),
        ("a=1 b=", "", "{a,b}"),
        ("total = 5, used = 3", "total = 5, used = 3", ""),
        ("a=1", "a=1", ""),
        ("rhost=x user logged in", "rhost=x user logged in", ""),
        ("[1, 2]", "[1, 2]", ""),
        ('{"msg":"cut off', '{"msg":"cut off', ""),
    ],
)
def test_shapes(line: str, message: str, shape: str) -> None:
    assert shaped(line) == (message, shape)


def test_a_flood_of_keys_makes_no_endless_shape() -> None:
    shape = shaped("{" + ",".join(f'"k{n:03}":1' for n in range(500)) + "}").shape
    assert shape.count(",") == KEYS and shape.endswith(",…}")


def test_json_stays_json_under_the_light_mask() -> None:
    line = '{"ts":"2026-11-03T14:00:00Z","n":-12.5e3,"ok":true,"msg":"f\\u00fcr 5 Leute","id":"a1b2"}'
    (light,) = lightly_masked(pl.Series([line])).to_list()
    assert shaped(light).shape == "{id,msg,n,ok,ts}"


def test_only_what_begins_like_it_is_tried() -> None:
    lines = pl.Series(['{"a":1}', ' { "a":1}', "a=1 b=2", "plain text", "a = 1", "{curly} text"])
    assert candidates(lines).to_list() == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("block blk_-160 of 12 KB", "block <V> of <V>"),
        ("at 10.0.0.1:80, 10.0.0.2:80", "at <V>"),
        ("icbi.........0", "icbi........<V>"),
        ("a  b\t\tc", "a b c"),
        ("1 2 3 4 5 done", "<V> done"),
        ("job=nightly user= end", "job=<V> user= end"),
        ("is 5. Then 6.", "is <V>. Then <V>."),
    ],
)
def test_masks(line: str, text: str) -> None:
    assert settled(masked(pl.Series([line]))).to_list() == [text]
