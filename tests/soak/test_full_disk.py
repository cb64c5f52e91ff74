"""A full disk: collection resumes by itself, what the engine had written is all there, and the time is a gap row."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker.errors
import pytest

from bench.stack import Stack, private_stack, unique, wait_until
from onecollector_resources.layout import StateLayout
from tests.soak.faults import expect_exactly, writer

pytestmark = [pytest.mark.real, pytest.mark.soak, pytest.mark.timeout(900)]


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A disk of that size, gone at the end."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small tmpfs")
    mount = Path(tempfile.mkdtemp(prefix="ocf-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
        mount.rmdir()


@contextlib.contextmanager
def filled(disk: Path, for_s: float, mib_per_s: float = 50) -> Iterator[None]:
    """The disk fills; not a byte is free from then on, until the body and ``for_s`` seconds are over."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(b"\0" * (1 << 19))
            time.sleep(0.5 / mib_per_s)  # the speed at which it fills
    end = time.monotonic() + for_s
    try:
        yield
        while time.monotonic() < end:
            # Whoever frees a byte of his own loses it again: the disk stays full.
            with filler.open("ab", buffering=0) as out, contextlib.suppress(OSError):
                while True:
                    out.write(b"\0" * 512)
            time.sleep(0.2)
    finally:
        filler.unlink()


def gaps(stack: Stack) -> list[dict]:
    return stack.registry("select * from gaps where cause = 'disk_full'")


def test_full_under_queue_and_registry_loses_nothing_and_is_a_row() -> None:
    with small_disk("300m") as disk:

        def on_the_small_disk(layout: StateLayout) -> None:
            for folder in (layout.collector, layout.agent):
                (disk / folder.name).mkdir()
                folder.symlink_to(disk / folder.name)

        settings = {"registry": {"url": f"sqlite:///{disk}/registry.db"}}
        with private_stack(settings, on_the_small_disk) as stack:
            stack.registry_file = disk / "registry.db"
            service, lines, meanwhile = unique("full"), 100_000, unique("meanwhile")
            stack.run(writer(lines), service=service)
            wait_until("lines flowing", lambda: stack.first_line(f'{{service_name="{service}"}}', 60), 30)
            with filled(disk, 20):
                stack.run("seq 1 1000", service=meanwhile)
                said = stack.cli("status", check=False).stdout
                assert "waits for room" in said, said
            expect_exactly(stack, service, lines)
            expect_exactly(stack, meanwhile, 1000)
            wait_until("a gap row", lambda: gaps(stack), 30, 0.5)
            row = gaps(stack)[0]
            assert str(disk) in row["detail"] or str(stack.state) in row["detail"]
            wait_until(
                "its registry row",
                lambda: stack.registry("select 1 from sources where service = :s", s=meanwhile),
                60,
                0.5,
            )
            stack.cli("prove", "--service", service)


def test_full_under_everything_is_survived_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk("1200m") as disk:
        monkeypatch.setenv("ONECOLLECTOR_BENCH_DIR", str(disk))
        with private_stack({"agent": {"free_space_floor_bytes": 0}}) as stack:
            service = unique("full")
            stack.run(writer(40_000, 200, 200_000), service=service)
            wait_until("lines flowing", lambda: stack.first_line(f'{{service_name="{service}"}}', 60), 30)
            with filled(disk, 15, mib_per_s=10_000):
                pass
            after = unique("after-full")

            def arrives() -> bool:
                with contextlib.suppress(docker.errors.APIError):
                    stack.run("echo hello", service=after)
                return stack.first_line(f'{{service_name="{after}"}}', 120)

            wait_until("collection to resume", arrives, 120, 1)
            wait_until("a gap row", lambda: gaps(stack), 60, 0.5)
            assert any("containers" in row["detail"] for row in gaps(stack)), gaps(stack)
            # What the engine could write is all there; what it could not is the gap.
            wait_until(
                "the proof", lambda: stack.cli("prove", "--service", service, check=False).returncode == 0, 120, 2
            )
