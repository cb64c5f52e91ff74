"""Spools: whatever a kill cuts, the copy ends up with every record once, in order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.discovery.api_spool import frames, resume_point, since_of
from onecollector_resources.discovery.spool import FileSpool

NOW = datetime(2026, 1, 1, tzinfo=UTC)
texts = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=40), min_size=1, max_size=12)


def docker_line(text: str) -> bytes:
    return orjson.dumps({"log": text + "\n", "stream": "stdout", "time": "2026-01-01T00:00:00.5Z"}) + b"\n"


def logs(spool: Path) -> list[str]:
    return [orjson.loads(line)["log"] for line in spool.read_bytes().split(b"\n")[:-1]]


@given(texts, st.data())
def test_a_spool_cut_anywhere_goes_on_without_loss_or_double(lines: list[str], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, spool = Path(folder) / "in", Path(folder) / "out"
        source.write_bytes(b"".join(map(docker_line, lines)))
        first = FileSpool(source, spool, "docker")
        first.pump(NOW)
        first.close()
        whole = spool.read_bytes()
        spool.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
        again = FileSpool(source, spool, "docker")
        again.pump(NOW)
        again.close()
        assert spool.read_bytes() == whole
        assert logs(spool) == [text + "\n" for text in lines]


@given(st.lists(st.binary(max_size=60).filter(lambda b: b"\n" not in b), min_size=1, max_size=10))
def test_lines_that_are_no_json_are_copied_as_they_stand(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, spool = Path(folder) / "in", Path(folder) / "out"
        source.write_bytes(b"".join(line + b"\n" for line in lines))
        one = FileSpool(source, spool, "plain")
        one.pump(NOW)
        one.close()
        assert logs(spool) == [line.decode("utf-8", "replace") + "\n" for line in lines]


def test_a_line_without_an_end_waits_and_is_copied_when_the_file_is_final(tmp_path: Path) -> None:
    source, spool = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"whole\nhalf")
    one = FileSpool(source, spool, "plain")
    assert one.pump(NOW) == 1
    assert one.pump(NOW, final=True) == 1
    assert logs(spool) == ["whole\n", "half\n"]
    one.close()


def test_time_comes_first_so_that_heads_differ(tmp_path: Path) -> None:
    source, spool = tmp_path / "in", tmp_path / "out"
    source.write_bytes(docker_line("x" * 3000))
    one = FileSpool(source, spool, "docker")
    one.pump(NOW)
    one.close()
    assert spool.read_bytes().startswith(b'{"time":"2026-01-01T00:00:00.5Z"')


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=8), st.integers(1, 7))
def test_frames_are_read_whatever_the_chunks(payloads: list[tuple[int, bytes]], size: int) -> None:
    raw = b"".join(bytes([kind, 0, 0, 0]) + len(p).to_bytes(4, "big") + p for kind, p in payloads)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(raw), size):
            yield raw[start : start + size]

    assert list(frames(chunks())) == [({1: "stdout", 2: "stderr"}[kind], p) for kind, p in payloads]


def test_the_resume_point_counts_records_of_the_last_instant(tmp_path: Path) -> None:
    spool = tmp_path / "out"
    times = ["2026-01-01T00:00:01.5Z", "2026-01-01T00:00:02.25Z", "2026-01-01T00:00:02.25Z"]
    spool.write_bytes(
        b"".join(orjson.dumps({"time": t, "log": "x\n", "stream": "stdout"}) + b"\n" for t in times) + b'{"time":"cut'
    )
    assert resume_point(spool) == (times[-1], 2)
    assert spool.read_bytes().endswith(b"\n")
    assert since_of(times[-1]).endswith(".250000000")
