"""What is left out of an old file is exactly what the collector's filter drops."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.discovery.backfill import left_out, time_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def line(second: int, text: str, profile: str) -> bytes:
    stamp = (START + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
    if profile == "cri":
        return f"{stamp} stdout F {text}\n".encode()
    return f'{{"log":"{text}\\n","stream":"stdout","time":"{stamp}"}}\n'.encode()


def ns(second: float) -> int:
    return int((START + timedelta(seconds=second)).timestamp() * 1e9)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.text("ab", max_size=60)), max_size=40),
    st.integers(0, 52),
    st.sampled_from(["docker", "cri"]),
)
def test_the_border_lies_before_the_first_line_that_is_not_older(
    lines: list[tuple[int, str]], border: int, profile: str
) -> None:
    lines.sort(key=lambda one: one[0])
    written = [line(second, text, profile) for second, text in lines]
    old = [one for one, (second, _) in zip(written, lines, strict=True) if second < border]
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(written))
        file.flush()
        assert left_out(Path(file.name), profile, ns(border)) == (len(old), sum(map(len, old)))


def test_lines_without_a_time_are_never_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"no frame\n" * 5)
    assert left_out(path, "docker", ns(0)) == (0, 0)
    assert left_out(path, "plain", ns(0)) == (0, 0)
    path.write_bytes(line(1, "old", "docker") + b"no frame\n" + line(9, "new", "docker"))
    assert left_out(path, "docker", ns(5))[0] == 1


@pytest.mark.parametrize(
    ("text", "second"),
    [
        (b'{"log":"x\\n","stream":"stdout","time":"2026-01-01T00:00:07.5Z"}\n', 7.5),
        (b'{"log":"x\\n","stream":"stdout","time":"2026-01-01T00:00:07Z"}\n', 7),
        (b'{"log":"\\"time\\":\\"1999-01-01T00:00:00Z\\"}","time":"2026-01-01T00:00:07Z"}\n', 7),
    ],
)
def test_dockers_times_in_all_their_lengths(text: bytes, second: float) -> None:
    assert time_of(text, "docker") == ns(second)


def test_a_cri_time_with_an_offset() -> None:
    assert time_of(b"2026-01-01T02:00:07.123456789+02:00 stderr P x\n", "cri") == ns(7) + 123_456_000
