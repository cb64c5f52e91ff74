"""The linker: every file a container ever had gets a link, however short it lives; a link too many harms nobody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.stack import wait_until
from onecollector_resources.discovery.claims import Claims, Done, mark_of
from onecollector_resources.discovery.linker import inode_of

ID = "ab" * 32


class Machine:
    """A Docker root in a folder, and a linker process beside it."""

    def __init__(self, root: Path) -> None:
        self.containers, self.tree = root / "containers", root / "links"
        self.pending = self.tree / ".pending"
        self.process: subprocess.Popen[str] | None = None

    def start(self, floor: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "onecollector_resources.discovery.linker", self.containers, self.tree, str(floor)],
            stderr=subprocess.PIPE,
            text=True,
        )
        # It works once it has linked a file that was there before it.
        if floor == 0:
            self.write("00" * 32, "x")
            wait_until("the linker", lambda: self.claims("00" * 32), 60)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def write(self, container_id: str, text: str) -> Path:
        path = self.containers / container_id / f"{container_id}-json.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def rotate(self, container_id: str, text: str, keep: int = 3) -> None:
        path = self.containers / container_id / f"{container_id}-json.log"
        for number in range(keep - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number - 1}" if number > 1 else path.name)
            if older.exists():
                older.rename(path.with_name(f"{path.name}.{number}"))
        path.write_text(text)

    def claims(self, container_id: str = ID) -> list[Path]:
        return sorted(self.pending.glob(f"{container_id}.claim.*"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    machine.containers.mkdir()
    yield machine
    machine.end()


def test_every_file_of_a_hundred_rotations_is_kept_in_order(machine: Machine) -> None:
    machine.start()
    machine.write(ID, "0")
    for number in range(1, 100):
        machine.rotate(ID, str(number))
        # As fast as a container at full speed: a file lives for three rotations.
        wait_until("the rotation's claim", lambda n=number: len(machine.claims()) > n - 2, 60, 0.001)
    wait_until("the last claim", lambda: len(machine.claims()) == 100, 60)
    assert [int(path.read_text()) for path in machine.claims()] == list(range(100))


def test_a_container_that_is_gone_in_a_moment_leaves_its_claim(machine: Machine) -> None:
    machine.start()
    for number in range(1, 51):
        container_id = f"{number:064x}"[::-1]
        path = machine.write(container_id, str(number))
        wait_until("its claim", lambda i=container_id: machine.claims(i), 60, 0.001)
        path.unlink()
        path.parent.rmdir()
    assert len(list(machine.pending.iterdir())) == 51


def test_a_linker_that_is_killed_and_started_again_links_what_came_meanwhile_and_nothing_twice(
    machine: Machine,
) -> None:
    machine.start()
    machine.write(ID, "before")
    wait_until("its claim", machine.claims, 60)
    machine.end()
    machine.rotate(ID, "meanwhile")
    machine.start()
    wait_until("the claim of the second file", lambda: len(machine.claims()) == 2, 60)
    assert [path.read_text() for path in machine.claims()] == ["before", "meanwhile"]


def test_an_engine_that_comes_later_is_waited_for(machine: Machine) -> None:
    machine.containers.rmdir()
    machine.start()
    machine.write(ID, "x")
    wait_until("its claim", machine.claims, 60)


def test_it_ends_when_its_tree_is_gone(machine: Machine) -> None:
    machine.start()
    for path in machine.pending.iterdir():
        path.unlink()
    machine.pending.rmdir()
    machine.write(ID, "x")
    assert machine.process is not None
    assert machine.process.wait(60) == 0


def test_a_full_disk_is_not_filled_further(machine: Machine) -> None:
    machine.start(floor=1 << 60)
    machine.write(ID, "x")
    assert machine.process is not None
    assert machine.process.stderr is not None
    assert "no file is linked" in machine.process.stderr.readline()
    assert machine.claims() == []


def test_claims_of_known_delivered_and_unwanted_files_are_taken_back(machine: Machine) -> None:
    machine.start()
    path = machine.write(ID, "x" * 50)
    claims = Claims(machine.containers, machine.tree)
    wait_until("its claim", machine.claims, 60)
    claims.list_all()
    [(claim, inode)] = claims.take(ID)
    again = claim.with_name(f"{ID}.claim.{1:020d}")

    again.hardlink_to(path)
    assert claims.arrived(again.name) is None, "a link of ours holds it"
    assert not again.exists()

    claims.let_go(ID, inode, Done(0, 50, mark_of(path)))
    claim.unlink()
    again.hardlink_to(path)
    assert claims.arrived(again.name) is None, "it was delivered"
    assert not again.exists()

    with path.open("a") as file:
        file.write("y")
    again.hardlink_to(path)
    assert claims.arrived(again.name) is None, "it grew"

    with path.open("r+") as file:
        file.write("y")
    again.hardlink_to(path)
    assert claims.arrived(again.name) == ID, "another file under the same inode"
    assert claims.take(ID) == [(again, inode_of(path))]
    assert claims.arrived(again.name) is None, "its event comes late"
    taken = again.rename(machine.pending / "taken")

    claims.release(ID)
    machine.rotate(ID, "z")
    wait_until("the second file's claim", machine.claims, 60)
    claims.list_all()
    assert machine.claims() == [], "nobody wants its logs"
    assert taken.exists()
