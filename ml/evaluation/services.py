"""What the harness's own services write: templates with fields, their rates, spreads and periods.

Ten services of 5 to 3,000 lines a minute, as busy ones and quiet ones stand side by side in a real tenant. Every word of
a template is drawn once for its service, so that two templates are never alike by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

RATES = tuple(float(rate) for rate in np.geomspace(5, 3000, 10))
"""Lines a minute, on average over a week."""

Kind = Literal["traffic", "error", "periodic", "cron", "rare", "startup", "deployed"]

_SUBJECTS = [
    "order",
    "invoice",
    "basket",
    "session",
    "token",
    "cursor",
    "shard",
    "replica",
    "bucket",
    "packet",
    "quota",
    "lease",
    "ticket",
    "voucher",
    "parcel",
    "route",
    "webhook",
    "snapshot",
    "journal",
    "manifest",
    "partition",
    "consumer",
    "producer",
    "listener",
    "dispatcher",
    "renderer",
    "resolver",
    "indexer",
    "ledger",
    "gateway",
    "balance",
    "profile",
    "catalogue",
    "shipment",
    "refund",
    "coupon",
    "review",
    "upload",
    "thumbnail",
    "digest",
    "archive",
    "mailbox",
    "channel",
    "subscription",
    "beacon",
    "tracker",
    "sampler",
    "planner",
    "broker",
    "courier",
    "depot",
    "warehouse",
    "pallet",
]
_VERBS = [
    "accepted",
    "stored",
    "fetched",
    "validated",
    "routed",
    "resolved",
    "published",
    "consumed",
    "merged",
    "compacted",
    "rotated",
    "refreshed",
    "expired",
    "scheduled",
    "dispatched",
    "reconciled",
    "rendered",
    "indexed",
    "flushed",
    "replayed",
    "acknowledged",
    "committed",
    "opened",
    "closed",
    "probed",
    "throttled",
    "migrated",
    "mirrored",
    "sealed",
    "attached",
    "detached",
    "promoted",
    "demoted",
    "balanced",
    "queued",
    "drained",
    "resized",
    "trimmed",
    "exported",
    "imported",
    "patched",
    "signed",
    "verified",
    "decoded",
    "encoded",
    "sampled",
    "scanned",
    "ranked",
    "cached",
    "warmed",
]
_ENDINGS = [
    "for tenant",
    "on node",
    "in region",
    "by worker",
    "from queue",
    "to bucket",
    "after retry",
    "under lease",
    "with digest",
    "at offset",
    "via relay",
    "within budget",
    "behind proxy",
    "across zones",
    "before deadline",
    "during sweep",
]
_COMPLAINTS = [
    "refused",
    "broken",
    "missing",
    "corrupt",
    "unreachable",
    "overloaded",
    "rejected",
    "stale",
    "truncated",
    "forbidden",
]


@dataclass(frozen=True, slots=True)
class TemplateSpec:
    """One template: ``{n}`` in ``text`` is any number, ``{ms}`` a duration in milliseconds.

    ``rate`` is lines a minute on average; ``spread`` the variance of a minute's count over its mean; ``period`` seconds
    between two lines of a periodic template, minutes between two runs of a cron template (``rate`` lines a run then).
    ``log_ms`` and ``sigma`` are those of the log-normal that its durations follow.
    """

    text: str
    kind: Kind
    rate: float
    spread: float = 1.0
    period: float = 0.0
    log_ms: float | None = None
    sigma: float = 0.0

    @property
    def is_error(self) -> bool:
        """Whether its lines are of error level."""
        return self.kind == "error" or " ERROR " in f" {self.text} "


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service: its templates and how its traffic swings.

    ``peak_to_trough`` over a day, ``weekend`` level against weekdays, ``ar`` and ``ar_sd`` of the minute-to-minute noise
    of the log rate (all traffic moves with it).
    """

    name: str
    rate: float
    templates: tuple[TemplateSpec, ...]
    peak_to_trough: float
    peak_hour: float
    weekend: float
    ar: float
    ar_sd: float


def template_id(number: int) -> str:
    """The id that a service's template has in its tally."""
    return f"t{number:03d}"


def template_number(name: str) -> int:
    """The number of a template id."""
    return int(name[1:])


def make_service(number: int, rate: float, chance: np.random.Generator) -> ServiceSpec:
    """A service of about ``rate`` lines a minute."""
    words = _Words(chance)
    spread = chance.uniform(2, 10)

    def own_spread() -> float:
        return float(np.clip(spread * chance.uniform(0.7, 1.3), 2, 10))

    templates: list[TemplateSpec] = []
    left = 0.4 * rate
    for _ in range(int(chance.integers(2, 5))):
        every_minute = min(float(np.exp(chance.uniform(0, np.log(30)))), left)
        if every_minute >= 1:
            left -= every_minute
            templates.append(
                TemplateSpec(words.info(), "periodic", every_minute, chance.uniform(0.05, 0.3), 60 / every_minute)
            )
    errors = [
        max(0.05, rate * float(np.exp(chance.uniform(np.log(0.001), np.log(0.02)))))
        for _ in range(chance.integers(3, 6))
    ]
    templates += [TemplateSpec(words.error(), "error", each, own_spread()) for each in errors]
    traffic = max(0.3 * rate, rate - sum(template.rate for template in templates))
    shares = 1 / np.arange(1, int(chance.integers(8, 40)) + 1) ** chance.uniform(0.8, 1.4)
    for share in shares / shares.sum():
        timed = chance.random() < 0.4
        templates.append(
            TemplateSpec(
                words.info(timed),
                "traffic",
                float(traffic * share),
                own_spread(),
                log_ms=float(chance.uniform(1, 6)) if timed else None,
                sigma=float(chance.uniform(0.3, 0.9)) if timed else 0.0,
            )
        )
    for period in chance.choice((5, 10, 15, 30, 60, 1440), 3, replace=False):
        templates.append(TemplateSpec(words.info(), "cron", float(chance.uniform(1, 12)), 1.0, float(period)))
    templates += [
        TemplateSpec(text, "rare", float(chance.uniform(0.2, 1)) / 1440) for text in (words.info(), words.error())
    ]
    templates += [TemplateSpec(words.info(), "startup", 1.0) for _ in range(chance.integers(4, 7))]
    templates += [
        TemplateSpec(words.info(), "deployed", float(traffic * chance.uniform(0.002, 0.03)), own_spread())
        for _ in range(chance.integers(3, 9))
    ]
    return ServiceSpec(
        f"service-{number}",
        rate,
        tuple(templates),
        float(chance.uniform(2, 6)),
        float(chance.uniform(9, 21)),
        float(chance.uniform(0.4, 0.9)),
        float(chance.uniform(0.6, 0.9)),
        float(chance.uniform(0.08, 0.2)),
    )


def make_sparse(number: int, lines_a_day: float, chance: np.random.Generator, *, nightly: bool = False) -> ServiceSpec:
    """A service of about so many lines a day, none of them by the clock; ``nightly`` ones are silent by night.

    Lines come in clumps, and how busy it is wanders for hours, not for minutes.
    """
    words = _Words(chance)
    rate = lines_a_day / 1440
    shares = 1 / np.arange(1, int(chance.integers(5, 16)) + 1) ** chance.uniform(0.6, 1.4)
    errors = chance.uniform(0.005, 0.04, int(chance.integers(1, 4)))
    traffic = rate * (1 - errors.sum()) * shares / shares.sum()
    templates = [TemplateSpec(words.info(), "traffic", float(r), float(chance.uniform(1, 3))) for r in traffic]
    templates += [TemplateSpec(words.error(), "error", float(rate * e), float(chance.uniform(1, 3))) for e in errors]
    return ServiceSpec(
        f"service-{number}",
        rate,
        tuple(templates),
        float(chance.uniform(100, 1000) if nightly else chance.uniform(2, 6)),
        float(chance.uniform(9, 21)),
        float(chance.uniform(0.4, 0.9)),
        float(chance.uniform(0.98, 0.997)),
        float(chance.uniform(0.1, 0.25)),
    )


class _Words:
    """Hands out texts that share few words."""

    def __init__(self, chance: np.random.Generator) -> None:
        self._chance = chance
        self._subjects = list(chance.permutation(_SUBJECTS))
        self._verbs = list(chance.permutation(_VERBS))
        self._used = 0

    def _pair(self) -> tuple[str, str]:
        self._used += 1
        subject = self._subjects[self._used % len(self._subjects)]
        verb = self._verbs[(self._used + self._used // len(self._subjects) * 7) % len(self._verbs)]
        return subject, verb

    def info(self, timed: bool = False) -> str:
        """A line that only informs; with a duration where ``timed``."""
        subject, verb = self._pair()
        ending = _ENDINGS[int(self._chance.integers(len(_ENDINGS)))]
        return f"INFO {subject} {verb} {ending} {{n}}" + (" took {ms}ms" if timed else "")

    def error(self) -> str:
        """A line of error level."""
        subject, verb = self._pair()
        complaint = _COMPLAINTS[int(self._chance.integers(len(_COMPLAINTS)))]
        return f"ERROR {subject} not {verb}: {complaint} {{n}}"
