"""Findings as lines in Loki, of a service of their own in the finding's tenant, beside the lines that they are about.

A line stands at the end of the finding's first minute (of its last one when it closes), a few nanoseconds on by its key:
sent twice it is the same line at the same time, which Loki keeps once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import httpx
import orjson

from onecollector_resources.findings.delivery import Arrived, Later, Outcome, Refused
from onecollector_resources.findings.records import FINDINGS_SERVICE, Channel, Delivery
from onecollector_resources.findings.webhook import after_s, outcome_of
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.settings import SettingsError

PUSH = "/loki/api/v1/push"
TIMEOUT_S = 5.0
MINUTE_NS = 60 * 10**9
SPREAD_NS = 10**6
"""Lines of one minute are apart by their keys, within a millisecond."""
TOLD = ("service", "signal", "severity", "first", "last", "p", "observed", "expected", "unchanged", "query", "key")
NEVER_TAKEN = (400, 413)
"""Too old, too long: the others are about the login or the server, which somebody will mend."""


class LokiSender:
    """Pushes to the Loki that ``access`` gives for a tenant; what that raises is a reason to try again later."""

    channel: Channel = "loki"

    def __init__(self, access: Callable[[str], LokiAccess]) -> None:
        self._access = access
        self._clients: dict[str, httpx.Client] = {}

    def send(self, delivery: Delivery) -> Outcome:
        """204: arrived; 400 and 413: Loki will never take this line; anything else: later."""
        try:
            answer = self._client(delivery.tenant).post(PUSH, json={"streams": [stream(delivery.payload)]})
        except (httpx.HTTPError, LokiError, SettingsError, OSError) as error:
            return Later(f"no answer: {str(error) or type(error).__name__}", away=True)
        if answer.is_success:
            return Arrived()
        outcome = outcome_of(answer.status_code, answer.content[:200], 0.0)
        if isinstance(outcome, Refused) and answer.status_code in NEVER_TAKEN:
            return outcome
        waits = after_s(answer.headers.get("Retry-After"), datetime.now().astimezone())
        return Later(outcome.reason, waits, away=True)

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _client(self, tenant: str) -> httpx.Client:
        if tenant not in self._clients:
            self._clients[tenant] = self._access(tenant).client(timeout_s=TIMEOUT_S)
        return self._clients[tenant]


def stream(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A stream of the push API with one line: JSON that opens with the sentence, and metadata to look it up by."""
    told = {
        "message": payload["sentence"],
        "kind": payload["kind"],
        "finding": payload["number"],
        **{name: payload[name] for name in TOLD},
        "templates": [
            {name: template[name] for name in ("text", "observed", "expected")} for template in payload["templates"]
        ],
    }
    metadata = {
        "finding": str(payload["number"]),
        "finding_kind": payload["kind"],
        "service": payload["service"],
        "signal": payload["signal"],
        "severity": payload["severity"],
    }
    line = orjson.dumps(told).decode()
    return {"stream": {"service_name": FINDINGS_SERVICE}, "values": [[str(stamp_ns(payload)), line, metadata]]}


def stamp_ns(payload: Mapping[str, Any]) -> int:
    """When the line stands, in nanoseconds since the epoch."""
    minute = datetime.fromisoformat(payload["last" if payload["kind"] == "closed" else "first"])
    spread = int.from_bytes(hashlib.sha256(payload["key"].encode()).digest()[:4], "big") % SPREAD_NS
    return int(minute.timestamp()) * 10**9 + MINUTE_NS + spread
