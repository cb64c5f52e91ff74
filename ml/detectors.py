"""Fit a shard of services, score minutes, debounce, and open one finding per episode within the alert budget.

A fitted shard is arrays over the columns of all its services, one after the other, and a little JSON: it is stored in an
npz that is read with ``allow_pickle=False``. Scoring keeps no state of its own. It is handed the last ``HISTORY`` minutes
with the minutes to score, so a minute that is scored again, because late lines came or a process restarted, gives the
same evidence and the same finding key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ml import calibration, fitting, signals
from ml.budgets import Budget, budget_for
from ml.drift import Notice, settling
from ml.features import Frame, Vocabulary
from ml.forest import Forest, fit_forest
from ml.panel import Floats, panel_of
from ml.signals import CHANNELS, HISTORY, HOURS
from ml.wear import Usual, usual_of
from ml.zones import UTC

VOTES = (*CHANNELS, "forest")
FOREST = len(CHANNELS)
ASKED = HOURS.start
"""Signals that the forest knows: it is asked about a minute, and what is so for hours would be a candidate for hours."""
CANDIDATE = 1.7
"""Decades that some signal has to reach before the forest is asked: it is the one vote that costs time."""
SETTLED_DIGITS = 1.5
"""Decades that all but errors have to be rarer by while a service settles after a deploy or a restart."""
STARTING_MINUTES = 10
"""A service that starts was silent for a moment, and windows of ten minutes remember it; only errors count."""
NEW_ERRORS = CHANNELS.index("new_errors")
ERROR_VOTES = (CHANNELS.index("errors_up"), NEW_ERRORS)
NEW_ERROR_PRIOR = 14 * 1440
"""Minutes that the shard's rate of new errors counts for beside a service's own."""
FOLDS = 4
LEAST_MINUTES = 2 * 1440
"""Calibration minutes below which a service is still learning: only new errors count then."""
LEAST_LINES_A_DAY = 50.0
"""Below this a service is too quiet for anything but errors."""
LONGEST_EPISODE = 48 * 60
AIM = 0.7
"""Of the budget: days to come have deploys, restarts and ends of incidents, which the days learnt from may not have had."""
DEFAULT_BUDGET = 0.5
"""Findings per service and day."""


@dataclass(frozen=True, slots=True)
class ServiceFit:
    """One service's part of a shard: parameters, tails [C, knots], and the decades of its own calibration minutes."""

    service: str
    vocabulary: Vocabulary
    params: fitting.Arrays
    tails: Floats
    digits: Floats
    settles: NDArray[np.int32]
    new_errors: Floats
    days: float
    lines_a_day: float
    usual: Usual
    zone: str

    @property
    def sound(self) -> bool:
        """Whether all that is kept of it are numbers: one that is not would make the whole shard be refused."""
        kept = (*self.params.values(), self.tails, self.usual.shares, self.usual.furthest)
        return not any(np.isnan(array).any() for array in kept if array.dtype.kind == "f")


@dataclass(frozen=True, slots=True)
class Shard:
    """Fitted services in order. ``params`` as ``signals.channels`` wants them, ``tails`` [S, V, knots], ``episodes`` [S, G].

    ``forest`` is shared by all services, None where there was too little to learn from. ``learning`` services have less
    than two days or fewer than 50 lines a day. ``zone`` is whose clocks the seasons go by.
    """

    services: tuple[str, ...]
    vocabularies: tuple[Vocabulary, ...]
    params: fitting.Arrays
    columns: tuple[int, ...]
    tails: Floats
    episodes: NDArray[np.int32]
    days: Floats
    learning: NDArray[np.bool_]
    usual: Usual
    forest: Forest | None
    zone: str = UTC


@dataclass(frozen=True, slots=True)
class Scores:
    """Evidence for minutes [T'] of services [S], in decades: of each vote [T', S, V], and debounced [T', S]."""

    minutes: NDArray[np.int64]
    digits: Floats
    weight: Floats
    settles: NDArray[np.int32]
    notices: tuple[tuple[Notice, ...], ...]


@dataclass(frozen=True, slots=True)
class Episode:
    """Minutes of one service at or above its threshold, merged: first and last minute since 1970, and the weightiest one.

    ``vote`` is the signal that was rarest in the first minute. ``cut`` says that the episode went on after 48 hours.
    """

    service: str
    first: int
    last: int
    peak: int
    weight: float
    vote: str
    cut: bool = False

    def key(self, tenant: str) -> str:
        """The identity of the finding: the same minute found again is the same finding, whichever model found it."""
        text = f"{tenant}\0{self.service}\0{self.first}"
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def vote_digits(params: fitting.Arrays, tails: Floats, frames: Sequence[Frame], zone: str) -> Floats:
    """Decades of each signal [T', S, C]."""
    return calibration.digits(signals.channels(params, panel_of(frames, zone)), tails)


def fit_service(frame: Frame, vocabulary: Vocabulary, zone: str = UTC) -> ServiceFit:
    """Season, spreads and tails of one service. Too few minutes are no error: the service then is *learning*."""
    if len(frame.counts) <= HISTORY + 1:
        frame = _padded(frame, HISTORY + 2 - len(frame.counts))
    panel = panel_of([frame], zone)
    params, values = fitting.fit_panel(panel)
    known = frame.observed[HISTORY:]
    tails = _tails(values[known, 0])
    settles, _ = settling(frame.fresh_kinds, frame.fresh_infos)
    days = float(known.sum()) / 1440
    minutes = panel.minutes[HISTORY:]
    digits = _digits_by_other_days(values[:, 0], known, minutes)
    return ServiceFit(
        frame.service,
        vocabulary,
        params,
        tails,
        digits.astype(np.float16),
        settles[HISTORY:],
        values[:, 0, NEW_ERRORS].astype(np.float16),
        days,
        float(frame.counts.sum()) / max(days, 1e-3),
        usual_of(digits, known & (settles[HISTORY:] == 0), minutes),
        zone,
    )


def join(fits: Sequence[ServiceFit], *, with_forest: bool = True, seed: int = 0) -> Shard:
    """Services together: one forest, the table from which thresholds are read for any budget."""
    params = {name: np.concatenate([fit.params[name] for fit in fits], axis=_axis(name)) for name in fits[0].params}
    forest = fit_forest([fit.digits[:, :ASKED] for fit in fits], seed) if with_forest else None
    tails = np.zeros((len(fits), len(VOTES), len(calibration.SHARES)), np.float32)
    tails[:, FOREST] = calibration.fit_tail(np.zeros(0))
    episodes = []
    # New errors are too rare for a service to know their rate by itself.
    common = np.concatenate([fit.new_errors for fit in fits])
    share = float((common > 0).mean()) if len(common) else 0.0
    for number, fit in enumerate(fits):
        tails[number, :FOREST] = fit.tails
        tails[number, NEW_ERRORS] = calibration.fit_tail(fit.new_errors, share, NEW_ERROR_PRIOR)
        digits = fit.digits[:, None].astype(np.float32)
        digits[:, :, NEW_ERRORS] = calibration.digits(
            fit.new_errors.astype(np.float32)[:, None, None], tails[number : number + 1, NEW_ERRORS : NEW_ERRORS + 1]
        )[:, :, 0]
        votes = np.zeros(len(digits))
        if forest is not None:
            votes = _forest_values(forest, digits)[:, 0]
            tails[number, FOREST] = calibration.fit_tail(votes)
        digits = _with_forest(digits, votes[:, None], tails[number : number + 1, FOREST])
        weight = calibration.debounce(_evidence(digits, fit.settles[:, None]))
        episodes.append(calibration.episode_table(weight[:, 0]))
    days = np.array([fit.days for fit in fits], np.float32)
    quiet = np.array([fit.lines_a_day < LEAST_LINES_A_DAY for fit in fits])
    return Shard(
        tuple(fit.service for fit in fits),
        tuple(fit.vocabulary for fit in fits),
        params,
        tuple(fit.params["rates"].shape[1] for fit in fits),
        tails,
        np.stack(episodes),
        days,
        quiet | (days * 1440 < LEAST_MINUTES - HISTORY),
        Usual(np.concatenate([fit.usual.shares for fit in fits]), np.concatenate([fit.usual.furthest for fit in fits])),
        forest,
        fits[0].zone,
    )


def fit_shard(frames: Sequence[Frame], vocabularies: Sequence[Vocabulary], *, with_forest: bool = True) -> Shard:
    """All services of a shard in this process."""
    pairs = zip(frames, vocabularies, strict=True)
    return join([fit_service(frame, vocabulary) for frame, vocabulary in pairs], with_forest=with_forest)


def score(shard: Shard, frames: Sequence[Frame]) -> Scores:
    """Evidence for the minutes after the first ``HISTORY`` of ``frames``: one frame per service of the shard, in its order.

    Raises ValueError where they are not those services or have too few minutes.
    """
    if tuple(frame.service for frame in frames) != shard.services:
        raise ValueError(f"frames of the services {shard.services} are expected, in this order")
    if len(frames[0].counts) <= HISTORY:
        raise ValueError(
            f"{HISTORY} minutes of history and at least one to score are needed, got {len(frames[0].counts)}"
        )
    digits = vote_digits(shard.params, shard.tails[:, :FOREST], frames, shard.zone)
    votes = np.zeros(digits.shape[:2]) if shard.forest is None else _forest_values(shard.forest, digits)
    digits = _with_forest(digits, votes, shard.tails[:, FOREST])
    digits[:, shard.learning] *= np.isin(np.arange(len(VOTES)), NEW_ERRORS)
    for number, frame in enumerate(frames):
        digits[~frame.observed[HISTORY:], number] = 0
    parts = [settling(frame.fresh_kinds, frame.fresh_infos) for frame in frames]
    settles = np.stack([part[0][HISTORY:] for part in parts], axis=1)
    notices = tuple(
        tuple(replace(n, first=n.first - HISTORY, last=n.last - HISTORY) for n in part[1] if n.first >= HISTORY)
        for part in parts
    )
    weight = calibration.debounce(_evidence(digits, settles))
    return Scores(frames[0].minutes[HISTORY:], digits, weight, settles, notices)


def thresholds(shard: Shard, budget: Budget = DEFAULT_BUDGET) -> Floats:
    """Each service's threshold in decades for so many findings a day."""
    wanted = np.array([AIM * budget_for(budget, service) for service in shard.services])
    return calibration.thresholds(shard.episodes, shard.days, wanted)


def episodes(shard: Shard, scores: Scores, limits: Floats) -> list[Episode]:
    """Findings in scored minutes, by service and time."""
    found = []
    for number, service in enumerate(shard.services):
        rows = np.flatnonzero(scores.weight[:, number] >= limits[number])
        if len(rows) == 0:
            continue
        for part in np.split(rows, np.flatnonzero(np.diff(rows) > calibration.MERGE_MINUTES) + 1):
            first, last = int(part[0]), int(part[-1])
            cut = last - first > LONGEST_EPISODE
            last = min(last, first + LONGEST_EPISODE)
            peak = first + int(np.argmax(scores.weight[first : last + 1, number]))
            vote = VOTES[int(np.argmax(evidence_by_vote(scores, number, first)))]
            minute = scores.minutes
            found.append(
                Episode(
                    service,
                    int(minute[first]),
                    int(minute[last]),
                    int(minute[peak]),
                    float(scores.weight[peak, number]),
                    vote,
                    cut,
                )
            )
    return found


def evidence_by_vote(scores: Scores, service: int, row: int) -> Floats:
    """Decades of each vote in a row or the two before it, a settling service's allowance taken off."""
    rows = slice(max(0, row - 2), row + 1)
    digits = scores.digits[rows, service].copy()
    return (digits - _allowance(scores.settles[rows, service])).max(0)


def _tails(values: Floats) -> Floats:
    """Tails [C, knots] of every signal from calibration minutes [N, C]."""
    laws = _laws()
    return np.stack(
        [
            calibration.lawful_tail(values[:, number], laws[name])
            if name in laws
            else calibration.fit_tail(values[:, number])
            for number, name in enumerate(CHANNELS)
        ]
    )


@cache
def _laws() -> Mapping[str, NDArray[np.float64]]:
    return dict.fromkeys(CHANNELS[HOURS], calibration.exponential_law())


def _digits_by_other_days(values: Floats, known: NDArray[np.bool_], minutes: NDArray[np.int64]) -> Floats:
    """Decades of calibration minutes [T', C] by the tails of other days: a tail that was fitted to a minute excuses it."""
    fold = minutes // 1440 % FOLDS
    out = np.zeros(values.shape, np.float32)
    for number in np.unique(fold):
        others = known & (fold != number) if (fold != number).any() else known
        tails = _tails(values[others])
        rows = fold == number
        out[rows] = calibration.digits(values[rows][:, None], tails[None])[:, 0]
    return out


def _evidence(digits: Floats, settles: NDArray[np.int32]) -> Floats:
    """The rarest vote of each minute [T, S]."""
    return (digits - _allowance(settles)).max(2) if settles.any() else digits.max(2)


def _allowance(settles: NDArray[np.int32]) -> Floats:
    """Decades to take off each vote in the n-th minute of settling, n [..] from 1, nought for a settled service."""
    less = np.where(settles == 0, 0, np.where(settles <= STARTING_MINUTES, calibration.MOST_DIGITS, SETTLED_DIGITS))
    return (less[..., None] * ~np.isin(np.arange(len(VOTES)), ERROR_VOTES)).astype(np.float32)


def _forest_values(forest: Forest, digits: Floats) -> Floats:
    """The forest's opinion of the minutes that are candidates [T, S]; nought for all others."""
    rows = digits[..., :ASKED].max(2) >= CANDIDATE
    out = np.zeros(digits.shape[:2], np.float32)
    if rows.any():
        out[rows] = forest.isolation(digits[rows][:, :ASKED])
    return out


def _with_forest(digits: Floats, votes: Floats, tails: Floats) -> Floats:
    return np.concatenate([digits, calibration.digits(votes[..., None], tails[:, None])], axis=2)


def _axis(name: str) -> int:
    """Parameters that are foretold from [.., S, 4] are joined on the axis before the last, all others on the last."""
    return 1 if name == "level" else -1


def _padded(frame: Frame, rows: int) -> Frame:
    """Minutes before the first that nobody observed."""
    tables = {}
    for name in Frame.__dataclass_fields__:
        value = getattr(frame, name)
        if isinstance(value, np.ndarray) and name != "is_error":
            width = ((rows, 0),) + ((0, 0),) * (value.ndim - 1)
            tables[name] = np.pad(value, width)
    return replace(frame, start=frame.start - rows, **tables)
