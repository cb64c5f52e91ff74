"""The trials, one after the other, against a Loki that may be anybody's: bounded, and cleaned up whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.answers import Entry
from onecollector_resources.loki.catalogue import seconds_of_duration
from onecollector_resources.loki.preflight import trials
from onecollector_resources.loki.preflight.known import Known, bytes_of, read_known
from onecollector_resources.loki.preflight.rules import ENOUGH_PER_STREAM, config_findings
from onecollector_resources.loki.preflight.scratch import Removal, Scratch
from onecollector_resources.loki.preflight.trials import SECOND_NS, Pushed, Trial
from onecollector_resources.loki.querier import LokiError
from onecollector_resources.records import Finding

PREFIX = "onecollector-preflight-"
HOT_SENDERS = 3


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was tried and found. ``findings`` are of trials and of the config, each matter once."""

    url: str
    tenant: str
    service: str
    sources: tuple[str, ...]
    trials: tuple[Trial, ...]
    findings: tuple[Finding, ...]
    removal: Removal


def try_lines(
    access: LokiAccess,
    token: str,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    transport: httpx.BaseTransport | None = None,
) -> Preflight:
    """Push, read back, judge and delete. ``token`` makes the service's name one of its own, ``clock`` is wall time.

    Raises LokiError where Loki does not answer, or takes no line at all.
    """
    url, service = access.url.rstrip("/"), PREFIX + token
    with access.client(timeout_s=30, transport=transport) as http:
        try:
            known = read_known(http)
        except httpx.HTTPError as error:
            raise LokiError(f"Loki at {url} does not answer: {type(error).__name__}: {error}", away=True) from error
    scratch = Scratch(access, service, clock=clock, sleep=sleep, transport=transport)
    # Stamps of two seconds ago: deleting goes by whole seconds and not into the future.
    now_ns = int((clock() - 2) * SECOND_NS)
    late_s = trials.behind_s(known)
    first_ns = now_ns - (max(late_s, trials.HIDDEN_AGE_S) + 60) * SECOND_NS
    try:
        try:
            done = _tried(scratch, known, now_ns, late_s, first_ns)
        finally:
            removal = scratch.delete(first_ns, known)
    finally:
        scratch.close()
    decided = {trial.rule for trial in done if trial.outcome != "not tried"}
    found = [finding for trial in done if (finding := trial.finding(url)) is not None]
    found += [finding for finding in config_findings(known, url) if finding.rule not in decided]
    found.sort(key=lambda finding: finding.level != "error")
    return Preflight(url, access.tenant, service, known.sources, tuple(done), tuple(found), removal)


def _tried(scratch: Scratch, known: Known, now_ns: int, late_s: int, first_ns: int) -> list[Trial]:
    newest, late = trials.late_pushes(now_ns, late_s)
    began = scratch.push(newest)
    if not began.took:
        raise LokiError(
            f"Loki takes no lines: a push of one plain line was answered {began.status}: {began.said.strip()[:300]}",
            began.status,
        )
    late_push = scratch.push(late)
    old = scratch.push([("old", [trials.value(now_ns - trials.HIDDEN_AGE_S * SECOND_NS, "old")])])
    for _ in range(2):
        scratch.push([("twice", [trials.value(now_ns, "twice")])])
    long = scratch.push(
        [("long", [trials.value(now_ns, "before"), trials.value(now_ns + 1, "long ".ljust(trials.LONG_BYTES, "x")), trials.value(now_ns + 2, "after")])]
    )  # fmt: skip
    many = {f"attribute_{number}": "value" for number in range(trials.MANY)}
    attributes = scratch.push([("attributes", [trials.value(now_ns, "attributes", many)])])
    future = _future(scratch, known, now_ns)
    otlp = scratch.push_otlp(trials.otlp_body(scratch.service, now_ns))
    hot = _hot(scratch, known, now_ns)
    entries: Sequence[Entry] = scratch.entries(first_ns, now_ns + 60 * SECOND_NS)
    counts = scratch.counts(now_ns + 60 * SECOND_NS) if hot else {}
    return [
        trials.judge_late(late_push, entries, late_s),
        trials.judge_hot(hot, counts, known),
        trials.judge_hidden(old, entries),
        trials.judge_twice(entries),
        trials.judge_long(long, entries),
        trials.judge_attributes(attributes, entries),
        trials.judge_future(future, known),
        trials.judge_otlp(otlp, entries),
    ]


def _future(scratch: Scratch, known: Known, now_ns: int) -> Pushed | None:
    grace = seconds_of_duration(known.limit("creation_grace_period"))
    # What is taken could not be deleted before its time has come: only what will be refused is worth a try.
    if grace is not None and grace >= trials.AHEAD_S:
        return None
    return scratch.push([("future", [trials.value(now_ns + trials.AHEAD_S * SECOND_NS, "future")])])


def _hot(scratch: Scratch, known: Known, now_ns: int) -> list[Pushed]:
    rate = bytes_of(known.limit("per_stream_rate_limit"))
    if rate is not None and rate >= ENOUGH_PER_STREAM:
        return []
    # Side by side: what comes slowly never is hot.
    with ThreadPoolExecutor(HOT_SENDERS) as senders:
        return list(senders.map(lambda number: scratch.push(trials.hot_push(now_ns, number)), range(trials.HOT_PUSHES)))
