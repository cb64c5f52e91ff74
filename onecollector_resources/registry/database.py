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
from sqlalchemy.exc import SQLAlchemyError

from onecollector_resources.registry import schema
from onecollector_resources.registry.faults import (
    RegistryNotMigrated,
    RegistryTooNew,
    RegistryUnavailable,
    explained,
)

BUSY_MS = 10_000
"""How long a writer waits for another process' transaction; ours last milliseconds."""

POLL_S = 0.05
"""Seconds between looks of a long poll: one cheap read each, on sqlite as on a server."""

CONNECT_S = 10
"""How long a database server may take to answer; without it an agent would wait for a lost one for minutes."""

MIGRATING = 0x6F6E6563
"""Key of the advisory lock: two that create the same tables at once would break each other."""


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


def _postgres_limits(connection: Any, _: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"set lock_timeout = {BUSY_MS}")
    # Else the pool's rollback, when the connection comes back, would take it back.
    connection.commit()


class Database:
    """Connections to one registry. Opening is lazy: a wrong URL shows at the first use."""

    def __init__(self, url: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.url = normal_url(url)
        self.clock = clock
        self._checked = False
        self._file: tuple[int, int] | None = None
        try:
            parsed = make_url(self.url)
            self.where = parsed.render_as_string(hide_password=True)
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            self.is_postgres = parsed.get_backend_name() == "postgresql"
            limits = (
                {"connect_timeout": CONNECT_S} if self.is_postgres and "connect_timeout" not in parsed.query else {}
            )
            self.engine: Engine = create_engine(self.url, pool_pre_ping=not self.is_sqlite, connect_args=limits)
        except (SQLAlchemyError, ImportError) as error:
            raise RegistryUnavailable(
                f"registry.url cannot be used: {error}; expected a SQLAlchemy URL such as "
                "postgresql://user:password@host/name, and its driver installed (pip install 'onecollector[postgres]')"
            ) from error
        self.path = Path(parsed.database) if self.is_sqlite and parsed.database not in (None, "", ":memory:") else None
        if self.is_sqlite:
            event.listen(self.engine, "connect", _sqlite_pragmas)
        elif self.is_postgres:
            event.listen(self.engine, "connect", _postgres_limits)

    @property
    def made(self) -> bool:
        """False where it is a file that nobody made yet; of a server only asking it would tell."""
        return self.path is None or self.path.exists()

    def migrate(self, revision: str = "head") -> None:
        """Create or upgrade the tables, up to a revision. Raises RegistryTooNew, RegistryUnavailable."""
        from alembic import command
        from alembic.config import Config
        from alembic.util.exc import CommandError

        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise RegistryUnavailable(f"registry {self.where}: its folder cannot be made: {error}") from error
            if self._file_now(self.path) != self._file:
                self.engine.dispose()
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        with self._translated(), self.engine.connect() as connection:
            self._refuse_newer(connection)
            if self.is_sqlite:
                connection.exec_driver_sql("pragma journal_mode=wal")
                connection.exec_driver_sql("begin immediate")
            elif self.is_postgres:
                connection.execute(select(func.pg_advisory_xact_lock(MIGRATING)))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, revision)
            except CommandError as error:
                raise RegistryTooNew(f"registry {self.where}: {error}; use the OneCollector that wrote it") from error
            connection.commit()
        if self.path is not None:
            self._file = self._file_now(self.path)
        self._checked = True

    def check(self) -> None:
        """Raise RegistryUnavailable, RegistryNotMigrated or RegistryTooNew where it cannot be used."""
        if self.path is not None:
            self._file = self._file_now(self.path)
            if self._file is None:
                raise RegistryUnavailable(
                    f"registry {self.path} is not there; expected a file made by `onecollector up`: run it"
                )
        with self._translated(), self.engine.connect() as connection:
            if not inspect(connection).has_table("meta"):
                raise RegistryNotMigrated(f"registry {self.where} has no tables of ours; run: onecollector up")
            self._refuse_newer(connection)
        self._checked = True

    @staticmethod
    def _file_now(path: Path) -> tuple[int, int] | None:
        """Which file lies there; None: none."""
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RegistryUnavailable(
                f"registry {path} cannot be looked at: {error.strerror}; run as its owner, or give this user the right "
                "to read its folder"
            ) from error
        return (found.st_dev, found.st_ino)

    def _ready(self) -> None:
        # A file that was removed or replaced lives on for those who hold it open: they would write where nobody reads.
        if self.path is not None and self._checked and self._file_now(self.path) != self._file:
            self.engine.dispose()
            self._checked = False
        if not self._checked:
            self.check()

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
        except SQLAlchemyError as error:
            self._checked = False
            raise explained(error, self.where) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reads. Raises RegistryError."""
        self._ready()
        with self._translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start. Raises RegistryError; then nothing was written."""
        self._ready()
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
