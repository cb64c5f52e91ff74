"""Findings as a scorer writes them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from onecollector_resources.findings.records import Finding, MovedTemplate

AT = datetime(2026, 11, 3, 14, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

REFUSED = MovedTemplate(
    "a1b2c3",
    "connection to <V> refused",
    412,
    0,
    True,
    '{service_name="payments"} |> "connection to <_> refused"',
    AT,
    AT + 5 * MINUTE,
    ("connection to 10.0.3.7:5432 refused", "connection to [b]x[/b] refused"),
)
CHARGED = MovedTemplate("d4e5f6", "charge <V> ok", 3100, 9800, False, '{service_name="payments"} |> "charge <_> ok"')


def finding(service: str = "payments", first: datetime = AT, minutes: int = 7, **changes: Any) -> Finding:
    """One of ``payments``, from 14:02 to 14:09."""
    key = hashlib.sha256(f"default {service} {first}".encode()).hexdigest()[:20]
    last = first + minutes * MINUTE
    made = Finding(
        key=key,
        tenant="default",
        service=service,
        model_id="m-1",
        incident=key,
        first=first,
        last=last,
        peak=first + MINUTE,
        window_first=first - 4 * MINUTE,
        window_last=first + MINUTE,
        signal="new_errors",
        severity="error",
        p=0.0003,
        a_day=0.02,
        weight=4.6,
        budget=0.5,
        observed=412.0,
        expected=0.0,
        sentence="412 lines of a new error, expected 0",
        query=f'{{service_name="{service}"}}',
        templates=(REFUSED, CHARGED),
        unchanged=("total_up", "silence"),
    )
    return replace(made, **changes)
