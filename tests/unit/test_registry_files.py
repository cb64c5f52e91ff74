"""A registry file that is missing, locked, read-only or not ours: a clear error, nothing overwritten, and then it goes on."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from onecollector_resources.registry import database
from onecollector_resources.registry.store import LogSourceRegistry, RegistryNotMigrated, RegistryUnavailable
from tests.unit.test_registry import source
from tests.unprivileged import as_nobody


@pytest.fixture
def registry(tmp_path: Path) -> LogSourceRegistry:
    one = LogSourceRegistry(f"sqlite:///{tmp_path / 'r.db'}")
    one.migrate()
    return one


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter; pytest's own are for their owner."""
    made = Path(tempfile.mkdtemp(prefix="oc-registry-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    made.chmod(0o700)
    shutil.rmtree(made)


def test_a_lost_registry_is_rebuilt_from_a_full_report(registry: LogSourceRegistry, tmp_path: Path) -> None:
    sources = [source(n) for n in range(3)]
    registry.sync_host("h", sources, actor="t")
    registry.close()
    for path in tmp_path.glob("r.db*"):
        path.unlink()
    with pytest.raises(RegistryUnavailable):
        LogSourceRegistry(registry.url).revision()
    fresh = LogSourceRegistry(registry.url)
    fresh.migrate()
    assert len(fresh.sync_host("h", sources, actor="t").appeared) == 3


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(RegistryUnavailable, match="move it away"):
        LogSourceRegistry(f"sqlite:///{path}").migrate()
    assert path.read_bytes() == b"not a database at all" * 100


def test_an_empty_file_says_that_it_has_to_be_migrated(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    sqlite3.connect(path).close()
    path.touch()
    with pytest.raises(RegistryNotMigrated, match="onecollector up"):
        LogSourceRegistry(f"sqlite:///{path}").revision()


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("begin immediate")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_file_that_another_process_holds_is_named_and_what_waited_comes_through(
    registry: LogSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.close()
    monkeypatch.setattr(database, "BUSY_MS", 200)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "r.db")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RegistryUnavailable, match=r"r\.db cannot be used: .*locked; another process .*fuser"):
            registry.register_source(source(1), actor="t")
        assert registry.lookup_sources() == []
        holder.communicate(timeout=60)
    finally:
        holder.kill()
        holder.wait()
    assert registry.register_source(source(1), actor="t") == 1


def test_a_missing_file_is_named_and_not_made_by_looking(tmp_path: Path) -> None:
    registry = LogSourceRegistry(f"sqlite:///{tmp_path / 'no' / 'r.db'}")
    for call in (registry.revision, registry.lookup_sources, lambda: registry.register_source(source(1), actor="t")):
        with pytest.raises(RegistryUnavailable, match=r"r\.db is not there; expected a file made by `onecollector up`"):
            call()
    assert not (tmp_path / "no").exists()
    registry.migrate()
    assert registry.register_source(source(1), actor="t") == 1


def test_a_file_that_goes_away_while_in_use_is_told_and_not_made_anew(
    registry: LogSourceRegistry, tmp_path: Path
) -> None:
    registry.register_source(source(1), actor="t")
    for path in tmp_path.glob("r.db*"):
        path.unlink()
    with pytest.raises(RegistryUnavailable, match="is not there"):
        registry.register_source(source(2), actor="t")
    assert not (tmp_path / "r.db").exists()
    registry.migrate()
    assert len(registry.sync_host("h", [source(1), source(2)], actor="t").appeared) == 2


def _use(path: Path) -> str:
    registry = LogSourceRegistry(f"sqlite:///{path}")
    try:
        registry.register_source(source(2), actor="t")
    except RegistryUnavailable as error:
        return str(error)
    return "written"


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o755), (0o444, 0o777), (0o600, 0o755), (0o600, 0o700)])
def test_a_file_without_rights_is_a_clear_error_and_left_as_it_is(
    folder: Path, file_mode: int, folder_mode: int
) -> None:
    path = folder / "r.db"
    registry = LogSourceRegistry(f"sqlite:///{path}")
    registry.migrate()
    registry.register_source(source(1), actor="t")
    registry.close()
    path.chmod(file_mode)
    folder.chmod(folder_mode)
    before = path.read_bytes()
    said = as_nobody(lambda: _use(path))
    assert "r.db cannot be" in said
    assert "give this user the right" in said
    assert path.read_bytes() == before
    assert [s.key for s in LogSourceRegistry(f"sqlite:///{path}").lookup_sources()] == [source(1).key]
