"""How the collector logs in at a Loki that is protected: what its exporter says, and the variables that this refers to.

A config is stored, shown and compared, so it names variables alone. Those that are no secret are part of the collector's
environment; the secret one lies in a file for its owner's eyes and is taken in by the process that becomes the collector.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from onecollector_resources.settings import LokiSettings

Ask = Literal["authorization", "authority", "certificate"]

RELOAD = "5m"
"""How often a certificate is read again: those of a private authority often live for a day."""

FILES = {"authority": "OC_LOKI_AUTHORITY", "certificate": "OC_LOKI_CERTIFICATE", "key": "OC_LOKI_KEY"}
"""Setting to the variable with its path."""


def asks_of(loki: LokiSettings) -> tuple[Ask, ...]:
    """What this Loki asks of those who push, by the settings; none for an open one."""
    asked: Mapping[Ask, object] = {
        "authorization": loki.bearer_env or loki.username,
        "authority": loki.authority,
        "certificate": loki.certificate,
    }
    return tuple(ask for ask, value in asked.items() if value)


def login_of(asks: Collection[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and members of the exporter that log in; both empty for an open Loki."""
    headers = {"Authorization": "${env:OC_LOKI_AUTHORIZATION}"} if "authorization" in asks else {}
    tls = {"ca_file": "${env:OC_LOKI_AUTHORITY}"} if "authority" in asks else {}
    if "certificate" in asks:
        tls |= {
            "cert_file": "${env:OC_LOKI_CERTIFICATE}",
            "key_file": "${env:OC_LOKI_KEY}",
            "reload_interval": RELOAD,
        }
    return headers, {"tls": tls} if tls else {}


def login_environment(loki: LokiSettings) -> dict[str, str]:
    """Variables of the exporter that are no secrets: the paths of its files."""
    paths = {variable: getattr(loki, name) for name, variable in FILES.items()}
    return {variable: _as_it_stands(str(path)) for variable, path in paths.items() if path is not None}


def login_secrets(loki: LokiSettings) -> dict[str, str]:
    """Variables of the exporter that are secrets. Raises SettingsError where a variable of the settings is not set."""
    authorization = loki.access("", "").headers().get("Authorization")
    return {"OC_LOKI_AUTHORIZATION": _as_it_stands(authorization)} if authorization else {}


def _as_it_stands(value: str) -> str:
    # The collector expands what it takes from a variable once more.
    return value.replace("$", "$$")
