"""Bringing policies into force: write the file of limits, wait until Loki says that it took them, else put it back.

Loki refuses the whole file for one bad value, of whatever tenant, and tells it only in a metric; and it does not
start with such a file. So a file is left in place only once every tenant's limits are seen in Loki.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.config import OVERRIDES, render_overrides
from onecollector_resources.loki.querier import LokiError, LokiQuerierClient
from onecollector_resources.retention.applied import load_applied, replace_file, save_applied
from onecollector_resources.retention.keeps import keeps_of, same
from onecollector_resources.retention.policies import Policy, RetentionError
from onecollector_resources.retention.survey import TenantRetention, tenant_limits
from onecollector_resources.settings import Settings

DEADLINE_S = 30.0
"""Our own Loki looks at the file every 5 s."""

POLL_S = 0.3

RELOAD = re.compile(r"^loki_runtime_config_last_reload_successful\b.* ([01])$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Applied:
    """What is in force now. ``blocked`` tenants have a bad file and keep what they had."""

    changed: tuple[str, ...]
    blocked: tuple[str, ...]
    seconds: float


def overrides_for(settings: Settings, tenants: Sequence[TenantRetention]) -> str:
    """The file of per-tenant limits with these tenants' policies. Raises LokiConfigError."""
    return render_overrides(settings, wanted(tenants))


def wanted(tenants: Sequence[TenantRetention]) -> dict[str, Policy]:
    """The policies that are to be in force, by tenant."""
    return {one.tenant: one.policy for one in tenants if one.policy is not None}


def apply(
    settings: Settings,
    tenants: Sequence[TenantRetention],
    access_of: Callable[[str], LokiAccess],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    deadline_s: float = DEADLINE_S,
) -> Applied:
    """Bring them into force in our own Loki and remember them. Raises RetentionError; nothing has changed then."""
    if settings.loki.url is not None:
        raise RetentionError(
            f"Loki at {settings.loki.url} is not ours to configure: give its operator what "
            "`onecollector retention plan --yaml` prints, for the file that its runtime_config names"
        )
    path, began = settings.layout.loki / OVERRIDES, clock()
    before = _read(path)
    replace_file(path, overrides_for(settings, tenants))
    expected = {one.tenant: one for one in tenants if one.tenant in settings.tenants}
    missing = list(expected)
    try:
        while missing := [name for name in missing if not _taken(access_of(name), expected[name])]:
            if clock() - began > deadline_s:
                raise RetentionError(_not_taken(access_of(missing[0]), missing, deadline_s))
            sleep(POLL_S)
    except (RetentionError, LokiError, KeyboardInterrupt):
        replace_file(path, before)
        raise
    was = load_applied(settings.layout)
    save_applied(settings.layout, wanted(tenants))
    changed = tuple(one.tenant for one in tenants if one.policy != was.get(one.tenant))
    return Applied(changed, tuple(one.tenant for one in tenants if one.faults), clock() - began)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RetentionError(f"{path} cannot be read ({error.strerror}): start Loki first: onecollector up") from error


def _taken(access: LokiAccess, tenant: TenantRetention) -> bool:
    with LokiQuerierClient(access) as client:
        return same(keeps_of(tenant_limits(client)), tenant.planned)


def _not_taken(access: LokiAccess, missing: Sequence[str], deadline_s: float) -> str:
    said = ""
    try:
        with access.client(timeout_s=5) as http:
            found = RELOAD.search(http.get("/metrics").text)
        if found and found[1] == "0":
            said = " Loki refuses the file; its log says why: onecollector logs loki."
    except httpx.HTTPError:
        said = " Its metrics cannot be read."
    return (
        f"Loki at {access.url} did not take the limits of {', '.join(missing)} within {deadline_s:.0f} s; "
        f"the file from before is back and nothing has changed.{said}"
    )
