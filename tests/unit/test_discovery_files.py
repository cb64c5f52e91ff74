"""Declared files: what the globs match, one source per path, rotations and second names left out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.discovery.filesystem import DeclaredFiles, rotated_from
from onecollector_resources.settings import Settings


def declared(*files: dict[str, Any]) -> Settings:
    return Settings.model_validate({"files": files, "agent": {"host_name": "h"}})


def paths(files: DeclaredFiles) -> set[str]:
    return {observed.log_path for observed in files.list_now().sources.values()}


def touch(*files: Path, text: str = "x\n") -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[DeclaredFiles]:
    files = DeclaredFiles(declared({"glob": f"{tmp_path}/*.log*", "service": "s"}), lambda: None)
    files.start()
    yield files
    files.stop()


def test_a_glob_matches_files_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path / "a.log", tmp_path / "b.txt", tmp_path / ".hidden.log", tmp_path / "deep/er/c.log")
    (tmp_path / "folder.log").mkdir()
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "nowhere.log").symlink_to(tmp_path / "not-there")
    flat = DeclaredFiles(declared({"glob": f"{tmp_path}/*.log", "service": "s"}), lambda: None)
    deep = DeclaredFiles(declared({"glob": f"{tmp_path}/**/*.log", "service": "s"}), lambda: None)
    middle = DeclaredFiles(declared({"glob": f"{tmp_path}/d*/er/?.log", "service": "s"}), lambda: None)
    assert paths(flat) == {f"{tmp_path}/a.log"}
    assert paths(deep) == {f"{tmp_path}/a.log", f"{tmp_path}/deep/er/c.log"}
    assert paths(middle) == {f"{tmp_path}/deep/er/c.log"}


def test_folders_that_link_to_themselves_end(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.log")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    files = DeclaredFiles(declared({"glob": f"{tmp_path}/**", "service": "s"}), lambda: None)
    assert paths(files) == {f"{tmp_path}/a/x.log"}


def test_the_first_of_two_globs_decides(tmp_path: Path) -> None:
    touch(tmp_path / "a.log")
    files = DeclaredFiles(
        declared({"glob": f"{tmp_path}/a.*", "service": "one"}, {"glob": f"{tmp_path}/*.log", "service": "two"}),
        lambda: None,
    )
    assert [source.service for source in files.list_now().sources.values()] == ["one"]


def test_a_rotated_file_is_no_source_of_its_own(tmp_path: Path, one: DeclaredFiles) -> None:
    touch(tmp_path / "a.log", text="first\n")
    before = one.list_now().sources
    (tmp_path / "a.log").rename(tmp_path / "a.log.1")
    assert paths(one) == set(), "between the rename and the new file"
    touch(tmp_path / "a.log", text="second\n")
    touch(tmp_path / "a.log-20260102", tmp_path / "a.log.2.gz")
    assert one.list_now().sources.keys() == before.keys()
    assert paths(one) == {f"{tmp_path}/a.log"}


def test_numbered_files_that_were_never_rotated_are_sources(tmp_path: Path, one: DeclaredFiles) -> None:
    touch(tmp_path / "worker.log.1", text="a\n")
    touch(tmp_path / "worker.log.2", text="b\n")
    assert len(paths(one)) == 2


def test_of_two_names_of_one_file_the_known_one_stays(tmp_path: Path, one: DeclaredFiles) -> None:
    touch(tmp_path / "m.log")
    assert paths(one) == {f"{tmp_path}/m.log"}
    os.link(tmp_path / "m.log", tmp_path / "a.log")
    (tmp_path / "z.log").symlink_to(tmp_path / "m.log")
    assert paths(one) == {f"{tmp_path}/m.log"}


def test_a_source_keeps_its_facts_while_its_file_is_there(tmp_path: Path, one: DeclaredFiles) -> None:
    touch(tmp_path / "a.log")
    before = one.list_now()
    os.chmod(tmp_path / "a.log", 0o600)
    touch(tmp_path / "a.log", text="more\n")
    assert one.list_now() == before
    (tmp_path / "a.log").unlink()
    assert one.list_now().sources == {}


def test_a_folder_that_cannot_be_read_keeps_what_it_held(
    tmp_path: Path, one: DeclaredFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a.log")
    before = one.list_now()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path) == str(tmp_path):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert before.complete
    now = one.list_now()
    assert (now.sources, now.complete) == (before.sources, False)


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    files = DeclaredFiles(declared({"glob": f"{tmp_path}/not/there/*.log", "service": "s"}), lambda: None)
    listing = files.list_now()
    assert (listing.sources, listing.complete) == ({}, True)


def test_new_files_are_told_of_at_once_also_in_new_folders(tmp_path: Path) -> None:
    told = threading.Event()
    files = DeclaredFiles(declared({"glob": f"{tmp_path}/**/*.log", "service": "s"}), told.set)
    files.start()
    try:
        assert paths(files) == set()
        (tmp_path / "new").mkdir()
        assert told.wait(60)
        told.clear()
        paths(files)
        touch(tmp_path / "new/a.log")
        assert told.wait(60)
        assert paths(files) == {f"{tmp_path}/new/a.log"}
    finally:
        files.stop()


def test_two_hundred_files_at_once_are_few_batches(tmp_path: Path) -> None:
    told = threading.Semaphore(0)
    files = DeclaredFiles(declared({"glob": f"{tmp_path}/*.log", "service": "s"}), told.release)
    files.start()
    try:
        paths(files)
        touch(*(tmp_path / f"{number}.log" for number in range(200)))
        began, batches = time.monotonic(), 0
        while told.acquire(timeout=0.5 if batches else 60):
            batches += 1
        assert 1 <= batches <= 5 + (time.monotonic() - began)
        assert len(paths(files)) == 200
    finally:
        files.stop()


def test_what_cannot_be_a_source_wakes_nobody(tmp_path: Path) -> None:
    told = threading.Event()
    files = DeclaredFiles(declared({"glob": f"{tmp_path}/*.log", "service": "s"}), told.set)
    files.start()
    try:
        paths(files)
        touch(tmp_path / "noise.txt")
        assert not told.wait(0.5)
    finally:
        files.stop()


@pytest.mark.parametrize("end", [".1", ".12", "-20260102", ".2026-01-02", "-20260102-1530", ".old", "~", "-1767312000"])
def test_the_usual_ends_of_rotated_files_are_known(end: str) -> None:
    assert rotated_from(f"/l/app.log{end}") == "/l/app.log"


@given(st.from_regex(r"/[a-z]{1,8}/[a-z]{1,8}(-[a-z0-9]{1,6})?\.log", fullmatch=True))
def test_plain_names_are_not_taken_for_rotated_ones(path: str) -> None:
    assert rotated_from(path) == path
