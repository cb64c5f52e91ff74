"""The few HTTP calls that discovery makes to an engine, straight over its socket.

A listing of 1,000 containers costs half of what it costs through the ``docker`` library, the agent saves that library's
memory, an engine that is away is an answer instead of a client that cannot be made, and a stream can be closed by
somebody else than its reader.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson

NEWEST_API = (1, 47)
"""Engines answer as of this version or their own, whichever is older: later ones may leave out what is read here."""


class EngineAway(RuntimeError):
    """The engine did not answer. What was known stays known: a failed listing is not an empty one."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket that is made by ``dial``."""

    def __init__(self, link: EngineHttp, timeout_s: float | None) -> None:
        super().__init__("docker")
        self._link, self._timeout_s = link, timeout_s

    def connect(self) -> None:
        self.sock = self._link.dial(self._timeout_s)


class EngineHttp:
    """Calls to one engine at ``unix://PATH`` or ``tcp://HOST:PORT``; TLS as $DOCKER_TLS_VERIFY and $DOCKER_CERT_PATH say.

    Thread-safe: each thread has a connection of its own.
    """

    def __init__(self, address: str, timeout_s: float, environ: Mapping[str, str] | None = None) -> None:
        self.address, self._timeout_s = address, timeout_s
        self._environ = os.environ if environ is None else environ
        self._local = threading.local()
        self._prefix = ""
        self.api: tuple[int, int] = (0, 0)
        """The engine's own API version; (0, 0) until it answered."""

    def dial(self, timeout_s: float | None) -> socket.socket:
        """A connected socket. Raises OSError, or EngineAway for an address that cannot be used."""
        parts = urlsplit(self.address)
        if parts.scheme == "unix":
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(timeout_s)
                sock.connect(self.address.removeprefix("unix://"))
            except OSError:
                sock.close()
                raise
            return sock
        if parts.scheme not in ("tcp", "http", "https") or not parts.hostname:
            raise EngineAway(
                f"engine address {self.address!r}: expected unix:///path or tcp://host:port; set docker.host"
            )
        verify = bool(self._environ.get("DOCKER_TLS_VERIFY"))
        sock = socket.create_connection((parts.hostname, parts.port or (2376 if verify else 2375)), timeout_s)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not verify and parts.scheme != "https":
            return sock
        folder = Path(self._environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        authority = folder / "ca.pem"
        context = ssl.create_default_context(cafile=str(authority) if authority.exists() else None)
        if (folder / "cert.pem").exists():
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        return context.wrap_socket(sock, server_hostname=parts.hostname)

    def get(self, path: str, params: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """(status, body) of one call. Raises EngineAway."""
        prefix = self._version_prefix()
        # An idle connection may have been closed by an engine that was restarted: a second one tells.
        try:
            return self._call(prefix + path, params)
        except (ConnectionError, http.client.HTTPException):
            self._drop()
        except OSError as error:
            raise self._away(error) from error
        try:
            return self._call(prefix + path, params)
        except (OSError, http.client.HTTPException) as error:
            raise self._away(error) from error

    def get_json(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The answer; None for a 404. Raises EngineAway for any other refusal, with the engine's own words."""
        status, body = self.get(path, params)
        if status == 404:
            return None
        if status != 200:
            raise EngineAway(f"the engine at {self.address} answered {status} to {path}: {_message(body)}")
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise EngineAway(f"the engine at {self.address} answered {path} with what is not JSON: {error}") from error

    def open(self, path: str, params: Mapping[str, str]) -> EngineStream:
        """An answer that goes on for as long as the engine likes. Raises EngineAway."""
        prefix = self._version_prefix()
        connection = _Connection(self, self._timeout_s)
        try:
            connection.request("GET", f"{prefix}{path}?{urlencode(params)}")
            response = connection.getresponse()
            if response.status != 200:
                body = response.read()
                connection.close()
                raise EngineAway(f"the engine at {self.address} answered {response.status}: {_message(body)}")
            assert connection.sock is not None
            # From here on silence is normal.
            connection.sock.settimeout(None)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._away(error) from error
        return EngineStream(self.address, connection, response)

    def forget(self) -> None:
        """Ask for the engine's version anew with the next call: another one may answer now."""
        self._prefix = ""
        self._drop()

    def _version_prefix(self) -> str:
        if not self._prefix:
            try:
                status, body = self._call("/version", None)
                facts = orjson.loads(body) if status == 200 else {}
                own, oldest = _version(facts.get("ApiVersion")), _version(facts.get("MinAPIVersion"))
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._drop()
                raise self._away(error) from error
            if status != 200:
                raise EngineAway(f"the engine at {self.address} answered {status} to /version: {_message(body)}")
            self.api = own
            major, minor = max(oldest, min(own, NEWEST_API))
            self._prefix = f"/v{major}.{minor}"
        return self._prefix

    def _call(self, path: str, params: Mapping[str, str] | None) -> tuple[int, bytes]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _Connection(self, self._timeout_s)
        try:
            connection.request("GET", f"{path}?{urlencode(params)}" if params else path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._drop()
            raise

    def _drop(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _away(self, error: Exception) -> EngineAway:
        if isinstance(error, PermissionError):
            return EngineAway(f"no right to use the engine's socket {self.address}: join its group or run as root")
        if isinstance(error, TimeoutError):
            return EngineAway(f"the engine at {self.address} did not answer within {self._timeout_s:g} s")
        return EngineAway(f"no engine answers at {self.address}: {error}; start it, or set docker.host")


class EngineStream:
    """An open answer. ``close`` may be called by any thread and ends the reader's iteration."""

    def __init__(
        self, address: str, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        self._address, self._connection, self._response = address, connection, response
        # The response takes the connection's socket over when it says that it is the last one.
        self._socket = connection.sock
        self._closed = False

    def lines(self) -> Iterator[bytes]:
        """Lines until the engine ends the stream. Raises EngineAway when it breaks."""
        rest = b""
        for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole

    def chunks(self) -> Iterator[bytes]:
        """Bytes as they come. Raises EngineAway when the stream breaks."""
        try:
            while not self._closed and (chunk := self._response.read1(65_536)):
                yield chunk
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # ValueError and AttributeError: closed by another thread while being read.
            if not self._closed:
                raise EngineAway(f"the stream from {self._address} broke: {error}") from error
        finally:
            self._connection.close()

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        try:
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            # It has ended already.
            return


def _version(text: Any) -> tuple[int, int]:
    try:
        major, minor = str(text or "1.24").split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        return (1, 24)


def _message(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
