"""What the policy files want, what was applied last, and what Loki says is in force: side by side for each tenant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from onecollector_resources.loki.calls import API, Call, json_of
from onecollector_resources.loki.querier import LokiError, LokiQuerierClient
from onecollector_resources.retention.applied import load_applied
from onecollector_resources.retention.keeps import Keeps, keeps_of, same
from onecollector_resources.retention.policies import Fault, Policy, policies_folder, read_policies
from onecollector_resources.retention.render import planned_keeps
from onecollector_resources.settings import Settings

State = Literal["in force", "waiting", "bad file", "unknown"]
"""``waiting``: files say something else than Loki does. ``bad file``: what was applied last stays."""


@dataclass(frozen=True, slots=True)
class TenantRetention:
    """One tenant. ``policy`` is what is to be in force: of its file, or what was applied last where that is bad."""

    tenant: str
    state: State
    policy: Policy | None
    planned: Keeps
    in_force: Keeps | None
    """None where Loki does not tell."""
    file: Path | None = None
    faults: tuple[Fault, ...] = ()
    note: str = ""
    """Why Loki does not tell."""

    def why(self, winner: int | None) -> str:
        """The reason that the file gives for a rule."""
        return self.policy.rules[winner].why if self.policy and winner is not None and self.policy.rules else ""


def survey(
    settings: Settings, config: Path | None, client_of: Callable[[str], LokiQuerierClient]
) -> list[TenantRetention]:
    """All tenants, also those with a file that are on no list. Raises RetentionError; a Loki that is away is a note."""
    folder = policies_folder(settings, config)
    clients = {tenant: client_of(tenant) for tenant in settings.tenants}
    try:
        files = read_policies(folder, settings, lambda tenant, text: _judged(clients.get(tenant), text))
        applied = load_applied(settings.layout)
        out = []
        for tenant in sorted({*settings.tenants, *files, *applied}):
            read = files.get(tenant)
            bad = read is not None and read.policy is None
            policy = applied.get(tenant) if bad or (read is None and folder is None) else read.policy if read else None
            in_force, note = _in_force(clients.get(tenant))
            planned = planned_keeps(settings, tenant, policy, in_force)
            state: State = "bad file" if bad else "unknown" if in_force is None else "waiting"
            if state == "waiting" and in_force is not None and same(planned, in_force):
                state = "in force"
            out.append(
                TenantRetention(
                    tenant,
                    state,
                    policy,
                    planned,
                    in_force,
                    read.file if read else None,
                    read.faults if read else (),
                    note,
                )
            )
        return out
    finally:
        for client in clients.values():
            client.close()


def tenant_limits(client: LokiQuerierClient) -> dict[str, Any]:
    """The tenant's published limits, retention among them. Raises LokiError where Loki tells them on neither path."""
    try:
        return client.ask(Call("/config/tenant/v1/limits", lambda body: dict(yaml.safe_load(body) or {})))
    except LokiError as error:
        if error.away:
            raise
    return client.ask(Call(f"{API}/drilldown-limits", json_of(lambda answer: dict(answer["limits"]))))


def _in_force(client: LokiQuerierClient | None) -> tuple[Keeps | None, str]:
    if client is None:
        return None, "not on the list of tenants"
    try:
        return keeps_of(tenant_limits(client)), ""
    except LokiError as error:
        return None, str(error)
    except ValueError as error:
        return None, f"what is in force cannot be read here: {error}"


def _judged(client: LokiQuerierClient | None, selector: str) -> str:
    """Loki's own complaint about a selector; none where it cannot be asked."""
    if client is None:
        return ""
    try:
        client.format_query(selector)
    except LokiError as error:
        return str(error) if error.status == 400 else ""
    return ""
