"""What goes wrong with a registry, in words that its user can act on: a database's own message, and what to do about it.

sqlite tells by its message, PostgreSQL by its SQLSTATE (its messages are translated on some servers) and, where no
connection came about, by the driver's message.
"""

from __future__ import annotations

from sqlalchemy.exc import DatabaseError, SQLAlchemyError


class RegistryError(RuntimeError):
    """Something about the registry that its user can mend; the message says what."""


class RegistryUnavailable(RegistryError):
    """Missing, locked, read-only, full or not reachable. Nothing was changed."""


class RegistryTooNew(RegistryError):
    """Written by a newer OneCollector. Nothing was changed."""


class RegistryNotMigrated(RegistryError):
    """There, but its tables are missing or older than this code."""


NO_TABLES = ("no such table", "42P01")

ADVICE = (
    ("no such table", "run: onecollector up"),
    ("locked", "another process holds it for long: see who with `fuser`"),
    ("readonly", "give this user the right to write it"),
    ("not a database", "move it away; the agents' full sets build a new one"),
    ("malformed", "move it away; the agents' full sets build a new one"),
    ("is full", "make room on its disk"),
    ("disk I/O error", "look at its disk: dmesg"),
    ("unable to open", "make its folder, and give this user the right to write there"),
    # https://www.postgresql.org/docs/current/errcodes-appendix.html
    ("42P01", "run: onecollector up"),
    ("3D000", "create the database (createdb NAME), or mend registry.url"),
    ("28P01", "mend user and password in registry.url"),
    ("28000", "mend user and password in registry.url, or let them in with pg_hba.conf"),
    ("42501", "grant this user its rights: alter database NAME owner to USER"),
    ("25006", "this server takes no writes (a standby?): name the primary in registry.url"),
    ("55P03", "another transaction holds it for long: see pg_stat_activity, and end it with pg_terminate_backend"),
    ("53300", "raise max_connections, or put a pooler in front"),
    ("53100", "make room on the server's disk"),
    ("does not exist", "create user and database, or mend registry.url"),
    ("authentication failed", "mend user and password in registry.url"),
    ("no password supplied", "put the password into registry.url or ~/.pgpass"),
)

SERVER = "start the database server, or mend registry.url"


def explained(error: SQLAlchemyError, where: str) -> RegistryError:
    """The error to raise for what the database said. ``where`` names the registry, without its password."""
    if not isinstance(error, DatabaseError):
        return RegistryUnavailable(f"registry {where} cannot be used: {error}; {SERVER}")
    # psycopg2's name for it, and psycopg's.
    code = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlstate", None) or ""
    text = str(error.orig or error).strip()
    advice = next((advice for sign, advice in ADVICE if sign == code or sign in text), SERVER)
    kind = RegistryNotMigrated if code in NO_TABLES or NO_TABLES[0] in text else RegistryUnavailable
    return kind(f"registry {where} cannot be used: {' '.join(text.split())}; {advice}")
