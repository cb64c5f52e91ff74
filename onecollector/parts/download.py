"""Downloads of one install run: a host that does not answer costs a few seconds once, whatever is asked of it later.

Most machines that install this have either a fast way to a release or none at all, and building always works. So a host
gets a short time to answer its first request, and a download that is slower than a build is given up.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import stamina

from onecollector.parts.releases import Archive

CONNECT_S = 2.0
# Name look-up, connection, TLS and redirects together. Name look-ups know no time-out of their own.
ANSWER_S = 2.5
READ_S = 10.0


class NotFetched(RuntimeError):
    """A release archive cannot be had or used; the message names the address, what was expected and what was found."""


def transient(error: Exception) -> bool:
    """Whether the same request may well succeed a moment later."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    # A host that takes no connection is not asked again: that is the usual case of a machine without internet.
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


def said(error: Exception) -> str:
    """An error of httpx in a few words."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"expected HTTP 200, found {error.response.status_code}"
    return f"{type(error).__name__}: {str(error) or 'no more is known'}"


@contextmanager
def untold() -> Iterator[None]:
    """No line for a retry: stamina's would go to stdout, into ``--json``. What failed in the end is said anyway."""
    hooks = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks(())
    try:
        yield
    finally:
        stamina.instrumentation.set_on_retry_hooks(hooks)


class Downloads:
    """What one install run fetches, and which hosts it found silent."""

    def __init__(self, answer_s: float = ANSWER_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._answer_s, self._clock = answer_s, clock
        self._hosts: dict[str, str] = {}
        self._client = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            # The bytes of the archive, as they are summed and counted.
            headers={"Accept-Encoding": "identity"},
        )

    def silent(self, url: str) -> str:
        """Why the host of an address cannot be asked; empty where it answers. Asked once per host."""
        host = httpx.URL(url).netloc.decode()
        if host not in self._hosts:
            self._hosts[host] = self._ask(url)
        return self._hosts[host] and f"{host} cannot be reached ({self._hosts[host]})"

    def known_silent(self, url: str) -> bool:
        """Whether the host of an address was found silent before."""
        return bool(self._hosts.get(httpx.URL(url).netloc.decode()))

    def _ask(self, url: str) -> str:
        answers: list[str] = []

        def head() -> None:
            try:
                self._client.head(url, timeout=httpx.Timeout(self._answer_s, connect=CONNECT_S))
                answers.append("")
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                answers.append(said(error))

        thread = threading.Thread(target=head, daemon=True)
        thread.start()
        thread.join(self._answer_s)
        return answers[0] if answers else f"no answer within {self._answer_s:g} s"

    def checksum(self, archive: Archive) -> str:
        """The SHA-256 that an archive must have. Raises NotFetched."""
        if archive.sha256:
            return archive.sha256
        try:
            with untold():
                text = self._text(archive.checksums)
        except httpx.HTTPError as error:
            raise NotFetched(f"{archive.checksums}: {said(error)}") from error
        for line in text.splitlines():
            digest, _, name = line.strip().partition(" ")
            if name.strip().lstrip("*") == archive.name and len(digest) == 64:
                return digest.lower()
        raise NotFetched(f"{archive.checksums}: expected a line for {archive.name}, found none")

    def download(self, url: str, file: Path, within_s: float) -> str:
        """Write an address's bytes to a file; answers their SHA-256. Raises NotFetched."""
        try:
            with untold():
                return self._write(url, file, self._clock() + within_s, within_s)
        except httpx.HTTPError as error:
            raise NotFetched(f"{url}: {said(error)}") from error

    @stamina.retry(on=transient, attempts=3, wait_initial=0.2, wait_max=1, timeout=None)
    def _text(self, url: str) -> str:
        answer = self._client.get(url)
        answer.raise_for_status()
        return answer.text

    @stamina.retry(on=transient, attempts=3, wait_initial=0.2, wait_max=1, timeout=None)
    def _write(self, url: str, file: Path, until: float, within_s: float) -> str:
        digest = hashlib.sha256()
        with self._client.stream("GET", url) as answer, file.open("wb") as out:
            answer.raise_for_status()
            if url.startswith("https:") and answer.url.scheme != "https":
                raise NotFetched(f"{url}: expected a secure address, was led to {answer.url}")
            for piece in answer.iter_raw(1 << 16):
                digest.update(piece)
                out.write(piece)
                if self._clock() > until:
                    raise NotFetched(f"{url}: expected it within {within_s:.0f} s, found {out.tell()} bytes by then")
            out.flush()
            os.fsync(out.fileno())
        return digest.hexdigest()
