"""Transactions on the registry, the revision that orders them, and errors that people can act on.

Every writing transaction takes the write lock first and the next revision with it, so revisions are dense and in commit
order across processes: a reader that has seen revision n has seen everything up to n. Audit rows are written in the same
transaction as the change: no record, no change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from onecollector_resources.registry import schema

BUSY_MS = 10_000
"""How long a writer waits for another process' transaction; ours last milliseconds."""

POLL_S = 0.05
"""Seconds between looks of a long poll: one cheap read each."""


class RegistryError(RuntimeError):
    """Something about the registry that its user can mend; the message says what."""


class RegistryUnavailable(RegistryError):
    """Missing, locked, read-only, full or not reachable. Nothing was changed."""


class RegistryTooNew(RegistryError):
    """Written by a newer OneCollector. Nothing was changed."""


class RegistryNotMigrated(RegistryError):
    """There, but its tables are missing or older than this code."""


def normal_url(url: str) -> str:
    """A bare ``postgresql://`` means another driver from SQLAlchemy 2.1 on: name the one that is installed."""
    for bare in ("postgresql://", "postgres://"):
        if url.startswith(bare):
            return "postgresql+psycopg2://" + url[len(bare) :]
    return url


def _sqlite_pragmas(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"pragma busy_timeout={BUSY_MS}")
    cursor.execute("pragma synchronous=normal")
    cursor.execute("pragma foreign_keys=on")
    cursor.close()
    # SQLAlchemy's own BEGIN is used instead of the driver's, which would come too late for the write lock.
    connection.isolation_level = None


class Database:
    """Connections to one registry. Opening is lazy: a wrong URL shows at the first use."""

    def __init__(self, url: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.url = normal_url(url)
        self.clock = clock
        self.is_sqlite = self.url.startswith("sqlite")
        parsed = make_url(self.url)
        self.where = parsed.render_as_string(hide_password=True)
        self.path = Path(parsed.database) if self.is_sqlite and parsed.database not in (None, "", ":memory:") else None
        self.engine: Engine = create_engine(self.url, pool_pre_ping=not self.is_sqlite)
        self._checked = False
        if self.is_sqlite:
            event.listen(self.engine, "connect", _sqlite_pragmas)

    def migrate(self) -> None:
        """Create or upgrade the tables. Raises RegistryTooNew, RegistryUnavailable."""
        from alembic import command
        from alembic.config import Config
        from alembic.util.exc import CommandError

        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise RegistryUnavailable(f"registry {self.where}: its folder cannot be made: {error}") from error
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        with self._translated(), self.engine.connect() as connection:
            self._refuse_newer(connection)
            if self.is_sqlite:
                connection.exec_driver_sql("pragma journal_mode=wal")
                connection.exec_driver_sql("begin immediate")
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise RegistryTooNew(f"registry {self.where}: {error}; use the OneCollector that wrote it") from error
            connection.commit()
        self._checked = True

    def check(self) -> None:
        """Raise RegistryUnavailable, RegistryNotMigrated or RegistryTooNew where it cannot be used."""
        if self.path is not None and not self.path.exists():
            raise RegistryUnavailable(
                f"registry {self.path} is not there; expected a file made by `onecollector up`: run it"
            )
        with self._translated(), self.engine.connect() as connection:
            if not inspect(connection).has_table("meta"):
                raise RegistryNotMigrated(f"registry {self.where} has no tables of ours; run: onecollector up")
            self._refuse_newer(connection)
        self._checked = True

    def _refuse_newer(self, connection: Connection) -> None:
        if not inspect(connection).has_table("meta"):
            return
        found = connection.scalar(select(schema.meta.c.value).where(schema.meta.c.name == "schema_version"))
        connection.rollback()
        if found is not None and found > schema.VERSION:
            raise RegistryTooNew(
                f"registry {self.where} is from a newer version: expected schema {schema.VERSION} or older, found {found}. "
                "Nothing was changed; use the newer OneCollector"
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            text = str(error.orig or error)
            fix = {
                "no such table": "run: onecollector up",
                "does not exist": "run: onecollector up",
                "locked": "another process holds it for long: see who with `fuser`",
                "readonly": "give this user the right to write it",
                "not a database": "move it away; the agents' full sets build a new one",
                "malformed": "move it away; the agents' full sets build a new one",
                "full": "make room on its disk",
                "unable to open": "make its folder, and give this user the right to write there",
            }
            advice = next((value for key, value in fix.items() if key in text), "look at the database server")
            kind = RegistryNotMigrated if "no such table" in text or "does not exist" in text else RegistryUnavailable
            self._checked = False
            raise kind(f"registry {self.where} cannot be used: {text.strip()}; {advice}") from error
        except SQLAlchemyError as error:
            raise RegistryUnavailable(f"registry {self.where} cannot be used: {error}") from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reads. Raises RegistryError."""
        if not self._checked:
            self.check()
        with self._translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start. Raises RegistryError; then nothing was written."""
        if not self._checked:
            self.check()
        with self._translated(), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("begin immediate")
            else:
                connection.execute(select(schema.meta).where(schema.meta.c.name == "revision").with_for_update())
            yield connection
            connection.commit()

    def next_revision(self, connection: Connection) -> int:
        """The next revision, inside a writing transaction."""
        table = schema.meta
        connection.execute(update(table).where(table.c.name == "revision").values(value=table.c.value + 1))
        return int(connection.scalar(select(table.c.value).where(table.c.name == "revision")) or 0)

    def note(
        self,
        connection: Connection,
        revision: int,
        kind: str,
        *,
        host: str = "",
        source_id: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Append one event to the history."""
        connection.execute(
            insert(schema.source_events).values(
                revision=revision,
                time=self.clock(),
                host=host,
                source_id=source_id,
                kind=kind,
                detail=dict(detail or {}),
            )
        )

    def record_audit(
        self, connection: Connection, actor: str, what: str, subject: str, before: Any, after: Any
    ) -> None:
        """Who changed what, from what, to what."""
        connection.execute(
            insert(schema.audit).values(
                time=self.clock(), actor=actor, what=what, subject=subject, before=before, after=after
            )
        )

    def revision(self, kinds: Collection[str] | None = None) -> int:
        """The newest revision, of all changes or of events of these kinds. Raises RegistryError."""
        with self.reading() as connection:
            return self._revision(connection, kinds)

    @staticmethod
    def _revision(connection: Connection, kinds: Collection[str] | None) -> int:
        if kinds is None:
            return int(connection.scalar(select(schema.meta.c.value).where(schema.meta.c.name == "revision")) or 0)
        events = schema.source_events
        # One index look per kind instead of a scan over all events.
        newest = [connection.scalar(select(func.max(events.c.revision)).where(events.c.kind == kind)) for kind in kinds]
        return max((int(value) for value in newest if value is not None), default=0)

    def wait_for_revision(
        self,
        after: int,
        timeout_s: float,
        kinds: Collection[str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> int:
        """Wait until the revision is beyond ``after``, at most ``timeout_s`` seconds; answers the newest.

        Holds no transaction while it waits. Raises RegistryError.
        """
        end = monotonic() + timeout_s
        while True:
            newest = self.revision(kinds)
            if newest > after or monotonic() >= end:
                return newest
            sleep(POLL_S)

    def close(self) -> None:
        """Close pooled connections."""
        self.engine.dispose()
