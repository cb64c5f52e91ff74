"""What a config that is in force says of itself: read back from its text, since that is what hosts really run."""

from __future__ import annotations

import functools
import re

import yaml

INCLUDE = re.compile(r"/(?P<tenant>[^/{}]+)/(?P<pipeline>[^/{}]+)/\*/\*\.log$")


@functools.lru_cache(maxsize=4)
def live_pipelines(text: str) -> frozenset[tuple[str, str]]:
    """(tenant, pipeline) pairs that a config collects, read from its include globs. Empty for what is no config."""
    try:
        data = yaml.safe_load(text)
        used = {name for pipeline in data["service"]["pipelines"].values() for name in pipeline["receivers"]}
        globs = [
            glob for name, receiver in data["receivers"].items() if name in used for glob in receiver.get("include", [])
        ]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return frozenset()
    matches = (INCLUDE.search(glob) for glob in globs)
    return frozenset((match["tenant"], match["pipeline"]) for match in matches if match)


def queue_sizes(text: str) -> dict[str, int]:
    """MiB of each tenant's queue, by the exporters that are named ``type/tenant``. Empty for what is no config."""
    try:
        return {
            name.partition("/")[2]: int(body["sending_queue"]["queue_size"]) >> 20
            for name, body in yaml.safe_load(text)["exporters"].items()
            if "/" in name
        }
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def poll_interval_of(text: str) -> int | None:
    """Poll interval in milliseconds; None where it names none."""
    match = re.search(r"poll_interval: (\d+)ms", text)
    return int(match[1]) if match else None
