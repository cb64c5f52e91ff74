"""A full disk becomes one gap row, from when it was full until there is room again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from onecollector.agent.disk_watch import FULL_BYTES, DiskWatch, free_bytes, one_of_each_disk
from onecollector_resources.records import Gap

START = datetime(2026, 11, 1, tzinfo=UTC)
FOLDER = Path("/var/lib/docker")


def watch_of(room: list[int | None], told: list[Gap]) -> DiskWatch:
    left = iter(room)
    return DiskWatch("h", {FOLDER: "lines of containers are lost"}, told.append, free=lambda _: next(left))


@given(st.lists(st.sampled_from([0, FULL_BYTES - 1, FULL_BYTES, 1 << 40, None]), max_size=30))
def test_each_full_time_is_one_gap_that_covers_it(room: list[int | None]) -> None:
    told: list[Gap] = []
    watch = watch_of(room, told)
    for second in range(len(room)):
        watch.look(START + timedelta(seconds=second))
    full = {n for n, free in enumerate(room) if free is not None and free < FULL_BYTES}
    covered = [(gap.started - START).seconds for gap in told], [(gap.ended - START).seconds for gap in told]
    spans = list(zip(*covered, strict=True))
    still = {(since - START).seconds for since in watch.full().values()}
    for second in full:
        assert any(begin <= second < end for begin, end in spans) or (still and min(still) <= second)
    assert all(begin in full and end not in full for begin, end in spans)
    assert len({gap.key for gap in told}) == len(told)


def test_a_gap_names_the_folder_and_what_it_means() -> None:
    told: list[Gap] = []
    watch = watch_of([0, 1 << 40], told)
    watch.look(START)
    watch.look(START + timedelta(seconds=9))
    assert [(gap.cause, gap.detail) for gap in told] == [
        ("disk_full", "no room in /var/lib/docker: lines of containers are lost")
    ]


def test_room_is_read_from_the_file_system(tmp_path: Path) -> None:
    assert (free_bytes(tmp_path) or 0) > 0
    assert free_bytes(tmp_path / "nothing") is None


def test_a_disk_is_told_of_once_by_its_gravest_folder(tmp_path: Path) -> None:
    for name in ("containers", "state"):
        (tmp_path / name).mkdir()
    folders = {tmp_path / "containers": "dropped", tmp_path / "state": "waited", tmp_path / "none": "waited"}
    assert one_of_each_disk({**folders, Path("/proc"): "other"}) == {
        tmp_path / "containers": "dropped",
        Path("/proc"): "other",
    }


def test_the_collectors_start_waits_for_room(tmp_path: Path) -> None:
    """The script's loop ends where there is room and goes round where there is not."""
    import subprocess

    from onecollector.local.programs import wait_for_room

    folder = tmp_path / "it's a folder"
    folder.mkdir()

    def runs_through(min_free_mib: int) -> bool:
        script = wait_for_room(folder, min_free_mib).replace("sleep 0.5", "exit 7")
        done = subprocess.run(["sh", "-c", f"{script}exit 0"], capture_output=True, text=True)
        assert not done.stderr
        return done.returncode == 0

    assert runs_through(0)
    assert runs_through(1)
    assert not runs_through(1 << 30)
