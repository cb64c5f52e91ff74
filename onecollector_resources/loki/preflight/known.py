"""What a Loki tells of itself: its config, and the tenant's limits over it. Behind a gateway it may tell nothing.

Values are kept as Loki prints them; sizes and durations are read where they are needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import yaml

SIZES = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?B?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Known:
    """``config`` is the whole of ``/config``, ``limits`` the tenant's; ``sources`` the paths that answered."""

    config: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def limit(self, *path: str) -> Any:
        """A limit, or None where it is not told."""
        return _at(self.limits, path)

    def setting(self, *path: str) -> Any:
        """A value of the config, or None where it is not told."""
        return _at(self.config, path)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def known_of(config: Any, limits: Any = None, sources: tuple[str, ...] = ()) -> Known:
    """The tenant's limits go over the config's; what they leave out is as configured."""
    whole = config if isinstance(config, Mapping) else {}
    base = whole.get("limits_config")
    mine = limits if isinstance(limits, Mapping) else {}
    return Known(whole, {**(base if isinstance(base, Mapping) else {}), **mine}, sources)


def read_known(http: httpx.Client) -> Known:
    """Ask all three paths. Raises httpx.HTTPError where Loki does not answer at all; a refusal is no error."""
    config, limits, sources = None, {}, []
    for path in ("/config", "/config/tenant/v1/limits", "/loki/api/v1/drilldown-limits"):
        answer = http.get(path)
        try:
            found = yaml.safe_load(answer.text) if answer.status_code == 200 else None
        except yaml.YAMLError:
            found = None
        if not isinstance(found, Mapping):
            continue
        if path == "/config":
            config = found
        else:
            limits = {**(found["limits"] if isinstance(found.get("limits"), Mapping) else found), **limits}
        sources.append(path)
    return known_of(config, limits, tuple(sources))


def bytes_of(value: Any) -> int | None:
    """``256KB`` in bytes, as Loki counts them (1,024); None for what is no size."""
    match = SIZE.fullmatch(str(value).strip())
    if match is None:
        return None
    unit = match[2].upper()
    return round(float(match[1]) * SIZES[unit if unit.endswith("B") or not unit else f"{unit}B"])
