"""What a candidate would have found while another model served: kept minute by minute, told to nobody.

Both models are counted by the same rule on the same minutes: unusual minutes of a service that are at most ten minutes
apart are one alarm. A day of that shows what no examination can: how the model gets on with lines that neither it nor
its injected faults ever saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from ml.calibration import MERGE_MINUTES

MOST_ALARMS = 20_000
"""Alarms of each side that are kept; beyond, a model is too noisy whatever else is true."""

MOST_FAILURES, LEAST_FAILURES = 0.01, 3
"""Share and number of minutes that a candidate may be unable to score."""
SERVED = "served"
OVERTAKEN = "overtaken: a newer model serves"
"""What may become of one, beside failing."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Unusual minutes of a service, since 1970, both inclusive."""

    service: str
    first: int
    last: int

    def near(self, first: int, last: int) -> bool:
        """Whether so many minutes are the same alarm."""
        return self.first - MERGE_MINUTES <= last and first <= self.last + MERGE_MINUTES


@dataclass(frozen=True, slots=True)
class Shadow:
    """A candidate beside the model that serves. ``began`` and ``through`` are minutes since 1970, the last that was counted.

    ``minutes`` were scored, in them ``service_minutes`` of services could be seen, and ``failures`` minutes could not be
    scored. ``own`` are the candidate's alarms, ``others`` those of the model ``beside`` it. ``ended`` is empty while it goes on
    and once it is whole; then it says what became of it.
    """

    model_id: str
    beside: str
    began: int
    through: int = 0
    minutes: int = 0
    service_minutes: int = 0
    failures: int = 0
    own: tuple[Alarm, ...] = ()
    others: tuple[Alarm, ...] = ()
    ended: str = ""

    def __post_init__(self) -> None:
        if not self.through:
            object.__setattr__(self, "through", self.began - 1)

    def after(self, minute: int, seen: int, own: Set[str], others: Set[str]) -> Shadow:
        """With one more minute, in which ``seen`` services could be seen and these were unusual to either model."""
        if minute <= self.through:
            return self
        return replace(
            self,
            through=minute,
            minutes=self.minutes + 1,
            service_minutes=self.service_minutes + seen,
            own=_followed(self.own, own, minute),
            others=_followed(self.others, others, minute),
        )

    def failed(self, minute: int) -> Shadow:
        """With one more minute, which the candidate could not score."""
        if minute <= self.through:
            return self
        return replace(self, through=minute, minutes=self.minutes + 1, failures=self.failures + 1)

    def whole(self, wanted_minutes: int) -> bool:
        """Whether it has seen enough."""
        return self.minutes >= wanted_minutes

    @property
    def days(self) -> float:
        """Service-days that could be seen."""
        return self.service_minutes / 1440

    @property
    def alone(self) -> tuple[Alarm, ...]:
        """Alarms of the candidate with none of the other model's near them."""
        return tuple(one for one in self.own if not found_by(self.others, one.service, one.first, one.last))


def too_many_failures(minutes: int) -> int:
    """So many of the ``minutes`` may not be scored; a candidate that fails in more of them is given up at once."""
    return max(LEAST_FAILURES, int(MOST_FAILURES * minutes))


def found_by(alarms: Iterable[Alarm], service: str, first: int, last: int) -> bool:
    """Whether one of the alarms is of these minutes of the service."""
    return any(one.service == service and one.near(first, last) for one in alarms)


def _followed(alarms: tuple[Alarm, ...], services: Set[str], minute: int) -> tuple[Alarm, ...]:
    """Alarms that go on are longer by a minute, others begin."""
    if not services:
        return alarms
    going = {
        one.service: n for n, one in enumerate(alarms) if one.service in services and minute - one.last <= MERGE_MINUTES
    }
    out = list(alarms)
    for number in going.values():
        out[number] = replace(out[number], last=minute)
    fresh = sorted(services - going.keys())
    out += [Alarm(service, minute, minute) for service in fresh[: max(0, MOST_ALARMS - len(out))]]
    return tuple(out)
