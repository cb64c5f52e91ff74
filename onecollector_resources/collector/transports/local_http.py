"""The agent of this machine over its loopback API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import stamina

from onecollector_resources.collector.probe import Probe
from onecollector_resources.collector.transports import TransportError
from onecollector_resources.layout import StateLayout
from onecollector_resources.records import SegmentRecords
from onecollector_resources.runtime import Runtime

PUSH_S = 120.0


class LocalHttpTransport:
    """A Transport. Reads are tried three times, writes once: a push that may have happened is asked about instead."""

    def __init__(self, url: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30, transport=transport
        )

    @classmethod
    def of(cls, layout: StateLayout, runtime: Runtime) -> LocalHttpTransport:
        """The agent of a state folder. Raises TransportError where it never ran."""
        try:
            token = layout.agent_token.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise TransportError(
                f"no agent token at {layout.agent_token}: {error.strerror}; run: onecollector up"
            ) from error
        return cls(runtime.agent_url, token)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, method: str, path: str, accepted: Sequence[int] = (200,), **kwargs: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise TransportError(f"agent at {self.url} does not answer: {type(error).__name__}: {error}") from error
        if answer.status_code not in accepted:
            raise TransportError(
                f"agent at {self.url} refused {method} {path} ({answer.status_code}): {answer.text[:500]}"
            )
        return answer

    @stamina.retry(on=TransportError, attempts=3, wait_initial=0.1, wait_max=1, timeout=10)
    def _get(self, path: str) -> Any:
        return self._send("GET", path).json()

    def push(self, text: str, config_hash: str, confirm_within_s: float) -> dict[str, Any]:
        body = {"text": text, "hash": config_hash, "confirm_within_s": confirm_within_s}
        answer = self._send("PUT", "/v1/config", (200, 409, 422), json=body, timeout=PUSH_S)
        data = answer.json()
        if answer.status_code != 200:
            return {
                "state": data.get("verdict", "undecided"),
                "reasons": data.get("reasons") or [data["error"]],
                "probes": [],
            }
        data["probes"] = [Probe(**probe) for probe in data["probes"]]
        return data

    def confirm(self, config_hash: str) -> bool:
        return self._send("POST", "/v1/config/confirm", (200, 409), json={"hash": config_hash}).status_code == 200

    def roll_back(self, config_hash: str, verdict: str, reason: str) -> None:
        body = {"hash": config_hash, "verdict": verdict, "reason": reason}
        self._send("POST", "/v1/config/rollback", json=body, timeout=PUSH_S)

    def reload(self) -> int:
        return int(self._send("POST", "/v1/reload", timeout=PUSH_S).json()["pid"])

    def config(self) -> dict[str, Any]:
        return self._get("/v1/config")

    def status(self) -> dict[str, Any]:
        return self._get("/v1/status")

    def sources(self) -> list[dict[str, Any]]:
        """Every source with the bytes that the collector is behind."""
        return self._get("/v1/sources")["sources"]

    def probe(self) -> list[Probe]:
        return [Probe(**probe) for probe in self._send("POST", "/v1/probe", json={}).json()["probes"]]

    def records(self) -> list[SegmentRecords]:
        rows = self._get("/v1/records")["records"]
        return [SegmentRecords(**{**row, "first_seen": datetime.fromtimestamp(row["first_seen"], UTC)}) for row in rows]

    def delivered(self, items: Sequence[tuple[str, int, int]]) -> int:
        body = {"items": [{"source_id": s, "segment": n, "records": r} for s, n, r in items]}
        return int(self._send("POST", "/v1/delivered", json=body).json()["done"])

    def forgive(self, config_hash: str) -> bool:
        return bool(self._send("DELETE", f"/v1/rejected/{config_hash}").json()["forgiven"])
