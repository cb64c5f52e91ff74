"""An S3 server of the tests' own: real (versitygw), on loopback, with users that have rights and one that has none."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.stack import wait_until
from onecollector.local.ports import any_free_port
from onecollector_resources.settings import S3Settings
from onecollector_resources.storage.s3_store import S3Store, s3_client

ENVIRONMENT = {
    "OC_S3_KEY": "tests",
    "OC_S3_SECRET": "tests-s3cret",
    "OC_NOBODY_KEY": "nobody",
    "OC_NOBODY_SECRET": "nobody-s3cret",
}


@dataclass
class S3Server:
    """``root`` holds a folder for each bucket, ``nobody`` are the settings of a user without any right."""

    binary: Path
    root: Path
    log: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def access(self) -> S3Settings:
        return S3Settings(endpoint=self.url)

    @property
    def nobody(self) -> S3Settings:
        return S3Settings(endpoint=self.url, access_key_env="OC_NOBODY_KEY", secret_key_env="OC_NOBODY_SECRET")

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **ENVIRONMENT}

    @property
    def client(self) -> Any:
        """boto3, with all rights."""
        return s3_client(self.access, ENVIRONMENT)

    def bucket(self, name: str, **more: Any) -> S3Store:
        """A new bucket."""
        self.client.create_bucket(Bucket=name)
        return self.store(name, **more)

    def store(self, name: str, prefix: str = "", access: S3Settings | None = None, **more: Any) -> S3Store:
        """A store on a bucket that may not be there."""
        return S3Store(name, prefix, access or self.access, environment=ENVIRONMENT, **more)

    def add_nobody(self) -> None:
        """Make the user without rights."""
        keys = ["--access", "nobody", "--secret", "nobody-s3cret", "--role", "user"]
        root = ["--access", "tests", "--secret", "tests-s3cret", "--endpoint-url", self.url]
        subprocess.run([str(self.binary), "admin", *root, "create-user", *keys], check=True, capture_output=True)

    def start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        users = self.log.with_name("s3-users")
        users.mkdir(exist_ok=True)
        command = [str(self.binary), "--port", f"127.0.0.1:{self.port}", "--iam-dir", str(users), "--quiet"]
        keys = {"ROOT_ACCESS_KEY": "tests", "ROOT_SECRET_KEY": "tests-s3cret"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "posix", str(self.root)], env={**os.environ, **keys}, stdout=log, stderr=log
            )
        wait_until("the S3 server listens", self._listens, 60)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def s3_server(binary: Path, folder: Path) -> Iterator[S3Server]:
    """Started; stopped at the end. ``folder`` needs a file system with extended attributes."""
    server = S3Server(binary, folder / "s3", folder / "s3.log", any_free_port(set()))
    try:
        server.start()
        yield server
    finally:
        server.stop()
