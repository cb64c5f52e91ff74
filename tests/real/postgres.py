"""A PostgreSQL cluster of the tests' own: made, started, stopped and removed here, under a user that is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.stack import wait_until
from onecollector.local.ports import any_free_port

USER, PASSWORD = "oc", "s3cret"


def programs() -> Path | None:
    """The newest server's folder: Debian keeps several versions and none of them on PATH. None where there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    return next((folder for folder in folders if all((folder / n).exists() for n in ("initdb", "postgres"))), None)


def _user() -> str | None:
    """Whom the server runs as; None is ourselves. initdb and postgres refuse root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Cluster:
    """One server on loopback. Databases are made with ``new_database``; nothing of one test meets another's."""

    def __init__(self, folder: Path, bin_dir: Path) -> None:
        self.folder, self.bin_dir, self.user = folder, bin_dir, _user()
        self.port, self.log = any_free_port(set()), folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        (folder / "password").write_text(PASSWORD)
        if self.user is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, self.user)
        self._run(
            "initdb", "-D", f"{folder}/data", "-U", USER, "--pwfile", f"{folder}/password", "-A", "scram-sha-256",
            "--no-sync", "--locale=C", "-E", "UTF8",
        )  # fmt: skip

    def _run(self, name: str, *args: str) -> None:
        command = [str(self.bin_dir / name), *args]
        done = subprocess.run(command, text=True, capture_output=True, cwd="/", **self._identity())
        if done.returncode != 0:
            raise RuntimeError(f"{name}: exit {done.returncode}: {done.stderr.strip()[-500:]}")

    def _identity(self) -> dict[str, Any]:
        if self.user is None:
            return {}
        return {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}

    def url(self, database: str, password: str = PASSWORD) -> str:
        """A bare URL, as people write it."""
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> Any:
        """A psycopg2 connection that commits each statement."""
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database, connect_timeout=30
        )
        connection.autocommit = True
        return connection

    def new_database(self) -> str:
        """An empty database; answers its URL."""
        self._made += 1
        name = f"t{self._made}"
        connection = self.connect()
        connection.cursor().execute(f"create database {name}")
        connection.close()
        return self.url(name)

    def start(self) -> None:
        """Start and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self.bin_dir / "postgres"), "-D", f"{self.folder}/data", "-h", "127.0.0.1", "-p", str(self.port),
                    "-k", str(self.folder), "-F", "-c", "max_connections=50",
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", **self._identity(),
            )  # fmt: skip
        wait_until("PostgreSQL answers", self._answers, 120)

    def _answers(self) -> bool:
        import psycopg2

        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"postgres ended with {self._process.returncode}: {self.log.read_text()[-500:]}")
        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop at once, also with clients connected (SIGINT: PostgreSQL's fast shutdown)."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


@contextmanager
def cluster(bin_dir: Path) -> Iterator[Cluster]:
    """A running cluster; stopped and removed at the end, also when the body fails."""
    # Not pytest's own folder: only its owner may enter that one.
    folder = Path(tempfile.mkdtemp(prefix="oc-pg-", dir="/tmp"))
    try:
        made = Cluster(folder, bin_dir)
        try:
            made.start()
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)
