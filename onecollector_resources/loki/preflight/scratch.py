"""Lines under a service of their own in somebody's Loki: pushed, read back, and deleted again."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import orjson

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.answers import Entry
from onecollector_resources.loki.catalogue import seconds_of_duration
from onecollector_resources.loki.preflight.known import Known
from onecollector_resources.loki.preflight.trials import SECOND_NS, Push, Pushed
from onecollector_resources.loki.querier import LokiError, LokiQuerierClient

SETTLE_S = 0.5
"""Seconds between looks; two that agree end the wait."""

DEADLINE_S = 20.0

IN_STORE_S = 2.25 * 3600
"""Seconds until a line is in the store and its index: Loki's default age of a chunk, and a quarter of an hour.

A delete request that is carried out earlier finds nothing, and the chunk that is written later stays.
"""


@dataclass(frozen=True, slots=True)
class Removal:
    """What becomes of the scratch lines. ``deleted``: Loki took the request to delete them."""

    deleted: bool
    said: str


class Scratch:
    """Lines of ``service`` in the Loki of ``access``, between ``first_ns`` and ``last_ns``."""

    def __init__(
        self,
        access: LokiAccess,
        service: str,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.service, self._clock, self._sleep = service, clock, sleep
        self._http = access.client(timeout_s=60, transport=transport)
        self._client = LokiQuerierClient(access, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._client.close()

    @property
    def selector(self) -> str:
        """All of it."""
        return f'{{service_name="{self.service}"}}'

    def push(self, streams: Push) -> Pushed:
        """One push, compressed. Raises LokiError where Loki does not answer."""
        body = {
            "streams": [
                {"stream": {"service_name": self.service, "trial": trial}, "values": values}
                for trial, values in streams
            ]
        }
        return self._post("/loki/api/v1/push", body)

    def push_otlp(self, body: object) -> Pushed:
        """One push by OTLP. Raises LokiError."""
        return self._post("/otlp/v1/logs", body)

    def _post(self, path: str, body: object) -> Pushed:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        try:
            answer = self._http.post(path, content=gzip.compress(orjson.dumps(body), 1), headers=headers)
        except httpx.HTTPError as error:
            raise LokiError(
                f"Loki does not answer a push to {path}: {type(error).__name__}: {error}", away=True
            ) from error
        return Pushed(answer.status_code, answer.text[:500])

    def entries(self, first_ns: int, last_ns: int) -> tuple[Entry, ...]:
        """All lines but those of the hot trial, once they do not change any more. Raises LokiError."""
        query = f'{{service_name="{self.service}", trial!~"hot|quiet"}}'
        began = self._clock()
        before: tuple[Entry, ...] | None = None
        while True:
            found = self._client.entries(query, first_ns, last_ns, 200, "forward")
            settled = before is not None and len(before) == len(found) and len(found) > 0
            if settled or self._clock() - began > DEADLINE_S:
                return found
            before = found
            self._sleep(SETTLE_S)

    def counts(self, now_ns: int) -> dict[str, int]:
        """Lines of the hot trial by stream, in the last hour. Raises LokiError."""
        query = f'sum by (trial) (count_over_time({{service_name="{self.service}", trial=~"hot|quiet"}} [1h]))'
        return {sample.labels["trial"]: int(sample.value) for sample in self._client.samples(query, now_ns)}

    def delete(self, first_ns: int, known: Known) -> Removal:
        """Ask Loki to delete all of it up to now. A Loki that cannot is no error: then it says how long they stay."""
        # Loki deletes by whole seconds and refuses those to come; the lines were stamped two seconds back for that.
        end_ns = int(self._clock()) * SECOND_NS
        try:
            request = self._client.delete_lines(self.selector, first_ns, end_ns)
        except LokiError as error:
            why = "it has no delete API" if error.status == 404 else str(error).splitlines()[0]
            return Removal(False, f"lines of {self.selector} cannot be deleted ({why}); they stay {_stay(known)}")
        said = f"delete request {request.id} for {self.selector}: hidden from queries within five minutes, "
        wait = known.setting("compactor", "delete_request_cancel_period")
        seconds = seconds_of_duration(wait)
        if seconds is not None and seconds < IN_STORE_S:
            return Removal(
                True,
                f"{said}and hidden in the store {_stay(known)}: its cancel period ({wait}) ends before chunks are written",
            )
        return Removal(True, f"{said}deleted after Loki's cancel period ({wait or '24h, where nothing else is set'})")


def _stay(known: Known) -> str:
    if known.setting("compactor", "retention_enabled") is False:
        return "for ever: its retention is off"
    kept = known.limit("retention_period")
    if kept is None:
        return "as long as it keeps lines"
    return "for ever" if str(kept) in ("0", "0s") else f"for {kept}"
