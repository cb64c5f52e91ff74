"""The webhook: one POST of JSON a message, signed where a secret is set, with a key by which a repeat is told."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import orjson

from onecollector_resources.findings.delivery import Arrived, Later, Outcome, Refused
from onecollector_resources.findings.records import Channel, Delivery

TIMEOUT_S = 5.0
SIGNATURE = "X-OneCollector-Signature"
MOST_WAIT_S = 24 * 3600.0
AWAY = (429, 503)
"""Answers that are about the receiver, not about the message."""


class WebhookSender:
    """Posts to ``url``. ``secret_env`` names the variable that holds the secret; it is read at each message."""

    channel: Channel = "webhook"

    def __init__(
        self,
        url: str,
        secret_env: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._url, self._secret_env = url, secret_env
        self._environ = os.environ if environ is None else environ
        self._clock = clock
        self._http = httpx.Client(timeout=timeout_s)

    def send(self, delivery: Delivery) -> Outcome:
        """2xx: arrived; 408, 429, 5xx and no answer: later; any other answer: refused, it would be the same again."""
        body = orjson.dumps(delivery.payload)
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"{delivery.key}:{delivery.kind}"}
        if self._secret_env:
            secret = self._environ.get(self._secret_env)
            if not secret:
                return Later(
                    f"models.webhook_secret_env: expected a value in the variable {self._secret_env}; it is not set: export it",
                    away=True,
                )
            headers[SIGNATURE] = signature(secret, body)
        try:
            # Of an answer only its beginning is read: who answers without end holds nobody up.
            with self._http.stream("POST", self._url, content=body, headers=headers) as answer:
                if answer.is_success:
                    return Arrived()
                said = next(answer.iter_bytes(), b"")[:200]
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Later(f"no answer: {str(error) or type(error).__name__}", away=True)
        return outcome_of(answer.status_code, said, after_s(answer.headers.get("Retry-After"), self._clock()))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def signature(secret: str, body: bytes) -> str:
    """``sha256=`` and the HMAC of the body, in hex."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def outcome_of(status: int, said: bytes, wait_s: float) -> Refused | Later:
    """What an answer other than 2xx means."""
    words = " ".join("".join(c if c.isprintable() else " " for c in said.decode(errors="replace")).split())
    reason = f"answered {status}" + (f": {words}" if words else "")
    if status in (408, 429) or status >= 500:
        return Later(reason, wait_s, away=status in AWAY)
    return Refused(reason)


def after_s(value: str | None, now: datetime) -> float:
    """Seconds that a Retry-After asks to wait, as a number or a date; 0 for none and for what is neither."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return min(float(value), MOST_WAIT_S)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - now).total_seconds()), MOST_WAIT_S)
