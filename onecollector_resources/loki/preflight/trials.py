"""Each trial: the lines that are pushed, and what the lines that come back mean. Pure.

What a Loki does to lines is not always what its config says, and behind a gateway nothing is said. So each way to lose,
double or hide a line is tried with a few lines under a service of its own. A push's answer proves little: a 204 may
stand over a loss and a 400 over lines that were stored. Only what a query gives back counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onecollector_resources.loki.answers import Entry
from onecollector_resources.loki.catalogue import seconds_of_duration
from onecollector_resources.loki.preflight.known import Known
from onecollector_resources.loki.preflight.rules import LOOK_BACK, METADATA, RATES, SHARDING
from onecollector_resources.records import Finding

Outcome = Literal["kept", "lost", "doubled", "hidden", "cut", "refused", "labels", "not tried"]
Level = Literal["ok", "warning", "error"]

SECOND_NS = 10**9

HIDDEN_AGE_S = 6 * 3600
"""Seconds: older than Loki asks its ingesters for by default (3 h), younger than it refuses."""

AHEAD_S = 15 * 60
"""Seconds: more than a stock Loki takes (10 m)."""

LONG_BYTES = 300_000
"""Over a stock Loki's 256 KiB, and what Docker's logs do hold."""

MANY = 100
"""Attributes of one line: a stock Loki takes 128."""

HOT_LINE, HOT_LINES, HOT_PUSHES = 64_000, 32, 12
"""24 MB: well over the 15 MB burst of a stock Loki's stream, in pushes that pass its 4 MiB messages."""

LONG_CURE = "limits_config: {max_line_size: 1MB, max_line_size_truncate: true}"
ATTRIBUTES_CURE = "limits_config: {max_structured_metadata_entries_count: 256, max_structured_metadata_size: 128KB}"
FUTURE_CURE = "limits_config: {creation_grace_period: 2h}"
HIDDEN_CURE = f"{LOOK_BACK}  # one process, disk store; several processes: querier: {{query_ingesters_within: 0}}"
TWICE_CURE = "limits_config: {increment_duplicate_timestamp: false}"
LABELS_CURE = """limits_config:
  discover_service_name: []
  discover_log_levels: false
  otlp_config:
    resource_attributes:
      ignore_defaults: true
      attributes_config:
        - {action: index_label, attributes: [service.name, service.namespace, deployment.environment.name, host.name]}"""

PER_CONTAINER = ("container_name", "k8s_pod_name", "service_instance_id", "k8s_container_name")
"""Labels that make a stream of every container, and of every restart of it."""

RESOURCE = {
    "service.namespace": "preflight",
    "service.instance.id": "instance-1",
    "deployment.environment.name": "preflight",
    "host.name": "preflight-host",
    "container.name": "preflight-container",
    "k8s.pod.name": "preflight-pod",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial's result. ``rule`` is the finding that it decides, ``cure`` the YAML that mends it."""

    name: str
    rule: str
    outcome: Outcome
    level: Level
    found: str
    cure: str = ""

    def finding(self, where: str) -> Finding | None:
        """The finding, if there is one."""
        return None if self.level == "ok" else Finding(self.level, self.rule, where, self.found, self.cure)


@dataclass(frozen=True, slots=True)
class Pushed:
    """How a push was answered."""

    status: int
    said: str = ""

    @property
    def took(self) -> bool:
        """A 2xx."""
        return 200 <= self.status < 300


Values = list[list[Any]]
Push = list[tuple[str, Values]]
"""Streams of one push, in order: (name of the trial, values)."""


def behind_s(known: Known) -> int:
    """Seconds behind its stream's newest that a late line is: past half a chunk's age, and young enough to be seen."""
    age = seconds_of_duration(known.setting("ingester", "max_chunk_age")) or 7_200
    return max(7_200, round(age / 2) + 1_800)


def value(time_ns: int, line: str, metadata: Mapping[str, str] | None = None) -> list[Any]:
    """One line of a JSON push."""
    return [str(time_ns), line, dict(metadata)] if metadata else [str(time_ns), line]


def late_pushes(now_ns: int, late_s: int) -> tuple[Push, Push]:
    """A stream's newest line; then a late one of it with a good one of another stream behind it."""
    return [("late", [value(now_ns, "newest")])], [
        ("late", [value(now_ns - late_s * SECOND_NS, "late")]),
        ("beside", [value(now_ns, "beside")]),
    ]


def hot_push(now_ns: int, number: int) -> Push:
    """One of HOT_PUSHES: many long lines of a hot stream, and last a line of a quiet one."""
    first = now_ns + number * HOT_LINES
    filler = "x" * HOT_LINE
    hot = [value(first + n, f"hot {number} {n} {filler}") for n in range(HOT_LINES)]
    return [("hot", hot), ("quiet", [value(now_ns + number, f"quiet {number}")])]


def otlp_body(service: str, now_ns: int) -> dict[str, Any]:
    """An OTLP push of one line whose resource has attributes that Loki makes labels of by default."""
    attributes = [
        {"key": name, "value": {"stringValue": text}} for name, text in {"service.name": service, **RESOURCE}.items()
    ]
    record = {"timeUnixNano": str(now_ns), "body": {"stringValue": "otlp"}}
    return {"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords": [record]}]}]}


def judge_late(push: Pushed, entries: Sequence[Entry], late_s: int) -> Trial:
    """The late line, and whether the answer told."""
    name, rule, hours = "late line", "loses-late-lines", f"{late_s / 3600:g} h"
    seen = _lines(entries)
    if seen["late"]:
        return Trial(name, rule, "kept", "ok", f"a line {hours} behind its stream's newest is kept")
    if not seen["beside"]:
        return Trial(
            name, rule, "lost", "error", f"neither a line {hours} late nor the good one beside it came back ({_answer(push)})", SHARDING
        )  # fmt: skip
    told = f"lost, and the push was answered {push.status}" if push.took else f"refused ({_answer(push)})"
    return Trial(
        name, rule, "lost", "error", f"a line {hours} behind its stream's newest is {told}; after an outage that is most of a backlog", SHARDING
    )  # fmt: skip


def judge_hidden(push: Pushed, entries: Sequence[Entry]) -> Trial:
    """A line that is old and alone in its stream."""
    name, rule, hours = "old line", "hides-late-lines", f"{HIDDEN_AGE_S // 3600} h"
    if _lines(entries)["old"]:
        return Trial(name, rule, "kept", "ok", f"a line that is {hours} old is found at once")
    if push.took:
        return Trial(
            name, rule, "hidden", "warning", f"a line that is {hours} old is taken and not found: queries see it once its chunk is flushed, in up to two hours", HIDDEN_CURE
        )  # fmt: skip
    return Trial(
        name, rule, "lost", "error", f"a line that is {hours} old is refused ({_answer(push)})",
        "limits_config: {reject_old_samples_max_age: 744h}",
    )  # fmt: skip


def judge_twice(entries: Sequence[Entry]) -> Trial:
    """The same line in two pushes."""
    name, rule, count = "same line twice", "doubles-equal-lines", _lines(entries)["twice"]
    if count == 1:
        return Trial(name, rule, "kept", "ok", "a line that is sent again is there once")
    if count == 0:
        return Trial(name, rule, "lost", "error", "a plain line that was sent twice did not come back", RATES)
    return Trial(name, rule, "doubled", "warning", f"a line that is sent again is there {count} times", TWICE_CURE)


def judge_long(push: Pushed, entries: Sequence[Entry]) -> Trial:
    """A long line between two short ones."""
    name, rule, size = "long line", "loses-long-lines", f"{LONG_BYTES // 1000} kB"
    seen = _lines(entries)
    longest = max((len(e.line) for e in entries if e.line.startswith("long ")), default=0)
    beside = "" if seen["before"] and seen["after"] else "; its neighbours in the push are gone with it"
    if longest >= LONG_BYTES and not beside:
        return Trial(name, rule, "kept", "ok", f"a line of {size} is kept whole")
    if longest and not beside:
        return Trial(
            name, rule, "cut", "warning", f"of a line of {size} the first {longest / 1000:.0f} kB are kept", LONG_CURE
        )
    return Trial(
        name, rule, "lost", "error", f"a line of {size} is lost ({_answer(push)}){beside}", LONG_CURE
    )  # fmt: skip


def judge_attributes(push: Pushed, entries: Sequence[Entry]) -> Trial:
    """A line with many attributes."""
    name, rule = "many attributes", "loses-attributes"
    found = next((e for e in entries if e.line == "attributes"), None)
    if found is None:
        cure = METADATA if "structured metadata" in push.said and "allow" in push.said else ATTRIBUTES_CURE
        return Trial(name, rule, "lost", "error", f"a line with {MANY} attributes is lost ({_answer(push)})", cure)
    kept = sum(1 for key in found.metadata if key.startswith("attribute_"))
    if kept < MANY:
        return Trial(name, rule, "cut", "error", f"of {MANY} attributes of a line {kept} are kept", ATTRIBUTES_CURE)
    return Trial(name, rule, "kept", "ok", f"{MANY} attributes of one line are kept")


def judge_future(push: Pushed | None, known: Known) -> Trial:
    """A line of a host whose clock is ahead; None: not pushed, for the limits say that it would be taken."""
    name, rule, ahead = "line from the future", "refuses-fast-clocks", f"{AHEAD_S // 60} m"
    if push is None:
        return Trial(
            name, rule, "not tried", "ok", f"lines up to {known.limit('creation_grace_period')} ahead are taken, so says the limit"
        )  # fmt: skip
    if push.took:
        return Trial(name, rule, "kept", "ok", f"a line {ahead} ahead is taken")
    return Trial(
        name, rule, "refused", "warning", f"a line {ahead} ahead is refused ({_answer(push)}): a host whose clock is fast loses its lines", FUTURE_CURE
    )  # fmt: skip


def judge_hot(pushes: Sequence[Pushed], counts: Mapping[str, int], known: Known) -> Trial:
    """The hot stream beside the quiet one. No pushes: the limits say that nothing that may be tried reaches them."""
    name, rule = "hot beside quiet", "loses-hot-lines"
    if not pushes:
        limit = known.limit("per_stream_rate_limit")
        return Trial(name, rule, "not tried", "ok", f"a stream may write {limit} a second, so says the limit")
    took = sum(1 for push in pushes if push.took)
    lost, quiet = took * HOT_LINES - counts.get("hot", 0), took - counts.get("quiet", 0)
    if lost > 0 or quiet > 0:
        return Trial(
            name, rule, "lost", "error",
            f"{max(lost, 0):,} of {took * HOT_LINES:,} lines of a hot stream and {max(quiet, 0)} of {took} of a quiet one are lost in pushes that were answered with a 204",
            SHARDING,
        )  # fmt: skip
    refused = [push for push in pushes if not push.took]
    if refused:
        return Trial(
            name, rule, "refused", "warning",
            f"{len(refused)} of {len(pushes)} pushes are refused ({_answer(refused[0])}): while one service is hot, the quiet ones wait with it",
            RATES,
        )  # fmt: skip
    size = took * HOT_LINES * HOT_LINE / 1e6
    return Trial(name, rule, "kept", "ok", f"{size:.0f} MB of a hot stream and the quiet one beside it are kept")


def judge_otlp(push: Pushed, entries: Sequence[Entry]) -> Trial:
    """What becomes of a resource's attributes."""
    name, rule = "OTLP attributes", "labels-from-attributes"
    found = next((e for e in entries if e.line == "otlp"), None)
    if found is None:
        return Trial(
            name, rule, "lost", "error", f"a line by OTLP, at /otlp/v1/logs, did not come back ({_answer(push)})",
            f"{METADATA}  # and let /otlp/v1/logs through the gateway",
        )  # fmt: skip
    many = sorted(set(found.labels) & set(PER_CONTAINER))
    added = sorted({"detected_level"} & set(found.metadata))
    said = []
    if many:
        said.append(f"{', '.join(many)} become labels: every container makes streams of its own")
    if added:
        said.append(f"{', '.join(added)} is added to every line: what is read is not what was written")
    if said:
        return Trial(name, rule, "labels", "warning", "; ".join(said), LABELS_CURE)
    return Trial(
        name, rule, "kept", "ok", f"labels are {', '.join(sorted(found.labels))}; the rest stays with the line"
    )


def _lines(entries: Sequence[Entry]) -> Counter[str]:
    return Counter(entry.line for entry in entries)


def _answer(push: Pushed) -> str:
    said = re.sub(r" for stream '\{.*?\}'", "", push.said.strip())
    return f"{push.status}: {said[:110]}{'…' if len(said) > 110 else ''}" if said else str(push.status)
