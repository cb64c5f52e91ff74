"""Rule groups in Loki's ruler: read, write, delete, and what state they are in.

The ruler takes one group per call and has no transaction: callers compute the difference first
(``alerting.rules.rules_to_change``) and touch only a namespace of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import yaml

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.faults import LokiError, refusal

NAMESPACE = "onecollector"
"""The namespace that OneCollector owns; groups of others are never read as ours and never touched."""


class LokiRulerClient:
    """Rules of one tenant. Raises LokiError where the files of the access cannot be used."""

    def __init__(self, access: LokiAccess, *, transport: httpx.BaseTransport | None = None) -> None:
        self.access, self.url, self.tenant = access, access.url.rstrip("/"), access.tenant
        self._http = access.client(transport=transport)

    def __enter__(self) -> LokiRulerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, method: str, path: str, accepted: Sequence[int], **kwargs: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise LokiError(f"Loki's ruler at {self.url} does not answer: {type(error).__name__}: {error}") from error
        if answer.status_code not in accepted:
            said = answer.text.strip()[:500]
            raise refusal(f"Loki's ruler at {self.url}", f"{method} {path}", answer.status_code, said)
        return answer

    @staticmethod
    def _path(namespace: str, group: str | None = None) -> str:
        path = f"/loki/api/v1/rules/{quote(namespace, safe='')}"
        return path if group is None else f"{path}/{quote(group, safe='')}"

    def create_log_alert_rule(self, group: Mapping[str, Any], namespace: str = NAMESPACE) -> None:
        """Write one group (``name``, ``interval``, ``rules``); one of the same name is replaced. Raises LokiError."""
        body = yaml.safe_dump(dict(group), sort_keys=False)
        self._send(
            "POST", self._path(namespace), (200, 202), content=body, headers={"Content-Type": "application/yaml"}
        )

    def update_alert_rule(self, group: Mapping[str, Any], namespace: str = NAMESPACE) -> None:
        """The ruler replaces a group as a whole: the same as creating it. Raises LokiError."""
        self.create_log_alert_rule(group, namespace)

    def delete_alert_rule(self, group: str, namespace: str = NAMESPACE) -> bool:
        """Delete a group; False where there was none. Raises LokiError."""
        return self._send("DELETE", self._path(namespace, group), (200, 202, 404)).status_code != 404

    def list_alert_rules(self, namespace: str = NAMESPACE) -> dict[str, dict[str, Any]]:
        """Groups of a namespace by name; empty where there are none. Raises LokiError."""
        # "No rule groups" is a 404, and an old ruler says it with other words: the status is what counts.
        answer = self._send("GET", self._path(namespace), (200, 404))
        if answer.status_code == 404:
            return {}
        groups = (yaml.safe_load(answer.text) or {}).get(namespace) or []
        return {group["name"]: group for group in groups}

    def rule_states(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(group, rule) to what the ruler says: ``health``, ``state``, ``lastError``, ``lastEvaluation``. Raises LokiError."""
        answer = self._send("GET", "/prometheus/api/v1/rules", (200, 404))
        if answer.status_code == 404:
            return {}
        groups = answer.json().get("data", {}).get("groups", [])
        return {(group["name"], rule["name"]): rule for group in groups for rule in group.get("rules", [])}
