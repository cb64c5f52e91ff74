"""A look at a Loki that changes nothing: whether it answers, its clock, what its config would lose, what it discarded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime

import httpx
import yaml

from onecollector_resources.health.monitor import parse_discarded
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.faults import MEND_LOGIN
from onecollector_resources.loki.preflight.known import known_of
from onecollector_resources.loki.preflight.rules import config_findings
from onecollector_resources.records import Finding

SKEW_S = 5.0
"""Seconds: the Date header counts whole ones, and a request takes its time."""


def preflight(
    access: LokiAccess,
    tenants: Iterable[str],
    *,
    transport: httpx.BaseTransport | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Findings about a Loki; none where it keeps everything. Never raises for a Loki that is away: that is a finding."""
    url = access.url.rstrip("/")
    with access.client(timeout_s=10, transport=transport) as http:
        try:
            answer = http.get("/ready")
            heard = clock()
            config = http.get("/config")
            refused = access.login_refused(transport=transport)
        except httpx.HTTPError as error:
            yield Finding(
                "error",
                "loki-away",
                url,
                f"Loki does not answer: {type(error).__name__}: {error}",
                "start it: onecollector up; or mend loki.url, authority or certificate",
            )
            return
        skew = _skew(answer, heard)
        if abs(skew) > SKEW_S:
            yield Finding(
                "error",
                "clock-skew",
                url,
                f"Loki's clock is {skew:+.0f} s off this host's: lines would be refused or land in the wrong hour",
                "synchronise both with NTP: timedatectl set-ntp true",
            )
        if refused:
            yield Finding("error", "login-refused", url, refused, MEND_LOGIN)
            return
        # A gateway in front of a Loki often has no /ready.
        if answer.status_code not in (200, 401, 403, 404):
            yield Finding(
                "error",
                "loki-not-ready",
                url,
                f"/ready says {answer.status_code}: {answer.text.strip()[:100]}",
                "onecollector logs loki",
            )
        known = known_of(_yaml(config)) if config.status_code == 200 else None
        if known is None or not known.config:
            yield Finding(
                "warning",
                "limits-unknown",
                url,
                f"/config says {config.status_code}: its limits cannot be read",
                "ask its operator for limits_config, or let lines be tried: onecollector doctor --loki URL",
            )
        else:
            yield from config_findings(known, url)
        yield from _discarded(http, set(tenants))


def _yaml(answer: httpx.Response) -> object:
    try:
        return yaml.safe_load(answer.text)
    except yaml.YAMLError:
        return None


def _skew(answer: httpx.Response, now: float) -> float:
    date = answer.headers.get("Date")
    return parsedate_to_datetime(date).timestamp() - now if date else 0.0


def _discarded(http: httpx.Client, tenants: set[str]) -> Iterator[Finding]:
    try:
        metrics = http.get("/metrics")
    except httpx.HTTPError:
        return
    for one in parse_discarded(metrics.text):
        if one.tenant in tenants:
            yield Finding(
                "warning",
                "discarded",
                one.tenant,
                f"Loki discarded {one.lines} lines of {one.tenant} since its start: {one.reason}",
                "onecollector prove --tenant " + one.tenant,
            )
