"""How a Loki is reached: address, tenant, who asks, and what is trusted. One record from which every client is made."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from onecollector_resources.loki.faults import LOGIN, LokiError


@dataclass(frozen=True, slots=True)
class LokiAccess:
    """Access to one Loki as one tenant.

    ``bearer`` or ``username`` with ``password`` is sent with every request; ``certificate`` with ``key`` is the client's
    side of mutual TLS, ``authority`` the file of the certificates to trust instead of the system's. ``timeout_s`` is how
    long to wait for any answer, in seconds.
    """

    url: str
    tenant: str
    bearer: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout_s: float = 30

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        headers = {"X-Scope-OrgID": self.tenant}
        if self.bearer:
            headers["Authorization"] = f"Bearer {self.bearer}"
        elif self.username:
            secret = b64encode(f"{self.username}:{self.password or ''}".encode()).decode()
            headers["Authorization"] = f"Basic {secret}"
        return headers

    def of_tenant(self, tenant: str) -> LokiAccess:
        """The same Loki for another tenant."""
        return replace(self, tenant=tenant)

    def trust(self) -> ssl.SSLContext | bool:
        """What to check a server's certificate against, with our own certificate in it. Raises LokiError."""
        if self.authority is None and self.certificate is None:
            return True
        try:
            context = ssl.create_default_context(cafile=str(self.authority) if self.authority else None)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            files = ", ".join(str(file) for file in (self.authority, self.certificate, self.key) if file)
            raise LokiError(
                f"expected certificates and a key as PEM for Loki at {self.url} in {files}: {error}"
            ) from error
        return context

    def client(self, *, timeout_s: float | None = None, transport: httpx.BaseTransport | None = None) -> httpx.Client:
        """A client whose requests go to this Loki as this tenant; the caller closes it."""
        return httpx.Client(
            base_url=self.url.rstrip("/"),
            headers=self.headers(),
            verify=self.trust(),
            timeout=self.timeout_s if timeout_s is None else timeout_s,
            transport=transport,
        )

    def async_client(
        self, *, timeout_s: float | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> httpx.AsyncClient:
        """The same for asyncio."""
        return httpx.AsyncClient(
            base_url=self.url.rstrip("/"),
            headers=self.headers(),
            verify=self.trust(),
            timeout=self.timeout_s if timeout_s is None else timeout_s,
            transport=transport,
        )

    def login_refused(self, *, timeout_s: float = 5, transport: httpx.BaseTransport | None = None) -> str:
        """What Loki says where it refuses this login; empty where it does not. Raises LokiError, httpx.HTTPError.

        A path of the API is asked for: a gateway lets many see ``/ready``, or nobody.
        """
        with self.client(timeout_s=timeout_s, transport=transport) as http:
            answer = http.get("/loki/api/v1/labels", params={"since": "1m"})
        if answer.status_code not in LOGIN:
            return ""
        said = " ".join(answer.text.split())[:100]
        return f"Loki at {self.url} refuses the login ({answer.status_code}): {said}"

    def websocket(self, path: str, params: Mapping[str, Any]) -> str:
        """The URL of a WebSocket of this Loki."""
        return f"ws{self.url.rstrip('/').removeprefix('http')}{path}?{urlencode(params)}"

    def websocket_trust(self) -> ssl.SSLContext | None:
        """``trust`` for a WebSocket; None for one without TLS, and for the system's certificates."""
        trusted = self.trust()
        return trusted if self.url.startswith("https") and isinstance(trusted, ssl.SSLContext) else None
