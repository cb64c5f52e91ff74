"""The agent's journal: what was written is there again, also what a full disk refused for a while."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from onecollector.agent.journal import AgentJournal


class Refusing:
    """A connection whose disk is full for writes while ``full``."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db, self.full = db, False

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        if self.full and not sql.startswith("select"):
            raise sqlite3.OperationalError("database or disk is full")
        return self.db.execute(sql, *values)  # type: ignore[arg-type]

    def close(self) -> None:
        self.db.close()


def test_values_are_kept_and_forgotten_over_a_full_disk_and_a_restart(tmp_path: Path) -> None:
    journal = AgentJournal(tmp_path / "j.db")
    journal.save_value("a", "1")
    journal.save_value("b", "1")
    disk = journal._db = Refusing(journal._db)  # type: ignore[assignment]
    disk.full = True
    journal.save_value("a", "2")
    journal.forget_value("b")
    assert (journal.load_value("a"), journal.load_value("b")) == ("2", None)
    assert "full" in journal.problem
    assert not journal.retry()
    disk.full = False
    assert journal.retry()
    assert journal.problem == ""
    journal.close()
    again = AgentJournal(tmp_path / "j.db")
    assert (again.load_value("a"), again.load_value("b")) == ("2", None)
    again.close()


def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "j.db").write_bytes(b"this is no database" * 100)
    journal = AgentJournal(tmp_path / "j.db")
    assert journal.load_links() == []
    assert [p.read_bytes()[:7] for p in tmp_path.glob("j.broken-*")] == [b"this is"]
    journal.close()
