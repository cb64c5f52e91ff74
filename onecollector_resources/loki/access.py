"""How a Loki is reached: address, tenant, who asks, and what is trusted. One record from which every client is made."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import httpx


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
        return headers

    def trust(self) -> ssl.SSLContext | bool:
        """What to check a server's certificate against, with our own certificate in it. Raises OSError, ssl.SSLError."""
        if self.authority is None and self.certificate is None:
            return True
        context = ssl.create_default_context(cafile=str(self.authority) if self.authority else None)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def client(self, *, timeout_s: float | None = None, transport: httpx.BaseTransport | None = None) -> httpx.Client:
        """A client whose requests go to this Loki as this tenant; the caller closes it."""
        return httpx.Client(
            base_url=self.url.rstrip("/"),
            headers=self.headers(),
            auth=(self.username, self.password or "") if self.username else None,
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
            auth=(self.username, self.password or "") if self.username else None,
            verify=self.trust(),
            timeout=self.timeout_s if timeout_s is None else timeout_s,
            transport=transport,
        )
