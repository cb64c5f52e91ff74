"""What retention removes: dry run of a change, and the daily account of what is held, due and overdue.

Loki removes whole chunks (two hours of a stream or less) after their last line is past its date, looking every
compaction interval, and the copies of its index that queries use follow some minutes later. So what is asked here, by
the line, is what will be gone once it caught up.
"""

from __future__ import annotations

from dataclasses import dataclass

from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.retention.boxes import selectors_by_group
from onecollector_resources.retention.keeps import FOREVER, Keeps
from onecollector_resources.retention.measure import COUNT_BELOW, DAY_NS, Held, measure, slice_s, streams_in
from onecollector_resources.retention.survey import TenantRetention, tenant_limits

LOOK_BACK_S = 400 * 86_400
"""Seconds before now in which lines are looked for."""

GRACE_S = 6 * 3600
"""Seconds past its date after which a line that is still there is overdue: a chunk, a sweep, a copy of the index."""

REST = "everything else"


@dataclass(frozen=True, slots=True)
class Going:
    """Of one tenant and selector: what the next sweep removes once the plan is in force.

    ``anyway`` is past its date by what is in force, too; ``newly`` goes because of the change. ``now_s`` and ``then_s``
    are seconds; 0: for ever.
    """

    tenant: str
    selector: str
    now_s: int
    then_s: int
    anyway: Held
    newly: Held
    why: str = ""

    @property
    def held(self) -> Held:
        """Both."""
        return self.anyway + self.newly


@dataclass(frozen=True, slots=True)
class Holding:
    """Of one tenant and selector: all that is there, what the next day takes, and what should be gone."""

    tenant: str
    selector: str
    keep_s: int
    held: Held
    next_day: Held
    overdue: Held
    why: str = ""


def going(
    client: LokiQuerierClient,
    tenant: TenantRetention,
    now_ns: int,
    *,
    look_back_s: int = LOOK_BACK_S,
    count_below: int = COUNT_BELOW,
) -> list[Going]:
    """The dry run for one tenant. Where it is not known what is in force, all counts as newly. Raises LokiError."""
    before, after = tenant.in_force or Keeps(FOREVER), tenant.planned
    now_ns -= now_ns % 10**9
    start_ns, length_s = now_ns - look_back_s * 10**9, slice_s(tenant_limits(client))
    groups = selectors_by_group(
        streams_in(client, start_ns, now_ns, length_s),
        before.names() | after.names(),
        lambda stream: (before.winner(stream), after.winner(stream)),
    )
    out = []
    for (was, will), selectors in sorted(groups.items(), key=lambda item: [_place(n) for n in item[0]][::-1]):
        now_s, then_s = before.keep_of(was), after.keep_of(will)

        def held(begin_ns: int, end_ns: int, selectors: tuple[str, ...] = selectors) -> Held:
            return measure(client, selectors, begin_ns, end_ns, length_s=length_s, count_below=count_below)

        anyway = newly = Held()
        if then_s != FOREVER:
            border_ns = start_ns if now_s == FOREVER else now_ns - max(now_s, then_s) * 10**9
            anyway = held(start_ns, border_ns)
            newly = held(max(start_ns, border_ns), now_ns - then_s * 10**9)
        name = REST if will is None else after.rules[will].selector
        out.append(Going(tenant.tenant, name, now_s, then_s, anyway, newly, tenant.why(will)))
    return out


def holdings(
    client: LokiQuerierClient,
    tenant: TenantRetention,
    now_ns: int,
    *,
    look_back_s: int = LOOK_BACK_S,
    count_below: int = COUNT_BELOW,
) -> list[Holding]:
    """The account of one tenant, by what is in force. Raises LokiError."""
    keeps = tenant.in_force or tenant.planned
    now_ns -= now_ns % 10**9
    start_ns, length_s = now_ns - look_back_s * 10**9, slice_s(tenant_limits(client))
    groups = selectors_by_group(streams_in(client, start_ns, now_ns, length_s), keeps.names(), keeps.winner)
    out = []
    for winner, selectors in sorted(groups.items(), key=lambda item: _place(item[0])):
        keep_s = keeps.keep_of(winner)

        def held(begin_ns: int, end_ns: int, selectors: tuple[str, ...] = selectors) -> Held:
            return measure(client, selectors, begin_ns, end_ns, length_s=length_s, count_below=count_below)

        next_day = overdue = Held()
        if keep_s != FOREVER:
            cut_ns = now_ns - keep_s * 10**9
            next_day = held(max(start_ns, cut_ns), cut_ns + DAY_NS)
            overdue = held(start_ns, cut_ns - GRACE_S * 10**9)
        name = REST if winner is None else keeps.rules[winner].selector
        out.append(
            Holding(tenant.tenant, name, keep_s, held(start_ns, now_ns), next_day, overdue, _why(tenant, keeps, winner))
        )
    return out


def _why(tenant: TenantRetention, keeps: Keeps, winner: int | None) -> str:
    if winner is None or tenant.policy is None:
        return ""
    matchers = keeps.rules[winner].matchers
    return next((tenant.why(n) for n, rule in enumerate(tenant.planned.rules) if rule.matchers == matchers), "")


def _place(winner: int | None) -> int:
    return 1_000_000 if winner is None else winner
