"""Which templates moved in a finding's window: by counts, by durations, or over hours, each held against what was expected.

A signal says that a service is unusual; here is found out which of its templates say so, over the window that shows it
best. All ways answer with the same record, a ``Change``, and make a ``Moved`` of a template in one place. Texts come out
of logs and stay data: cut, escaped, never markup.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ml import signals
from ml.explain_hours import stretch
from ml.features import OTHER, Frame
from ml.logql import query_of
from ml.panel import ERROR, ERROR_SUM, INFO, Panel
from ml.seasonal import between_hours
from ml.signals import CHANNELS, HORIZONS, HOURS

MOST_TEMPLATES = 5
LONGEST_TEXT = 500
SUSTAINED_MINUTES = 10
"""What a sustained rise is said to have lasted."""
RELATIVE = ("template_up", "template_down", "errors_up", "mix", "silence")
"""Signals of counts whose templates are held against the level of the others; for totals it is the level foretold."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A template in the record's window. ``z`` is in units of its own tail; ``text`` is escaped and at most 500 characters."""

    template: str
    text: str
    observed: float
    expected: float
    z: float
    is_error: bool
    query: str

    @property
    def ratio(self) -> float:
        """Observed over expected, one line added to both."""
        return (self.observed + 1) / (self.expected + 1)


@dataclass(frozen=True, slots=True)
class Change:
    """What a window of so many ``minutes`` shows: templates by how far they moved, observed and expected in all.

    Both are lines; of ``latency_up`` they are milliseconds.
    """

    minutes: int
    templates: tuple[Moved, ...]
    observed: float
    expected: float


@dataclass(frozen=True, slots=True)
class Subject:
    """The service that a finding is about, up to the finding's weightiest minute.

    ``fit`` are the parameters of this service alone, ``panel`` is of ``frame`` alone. ``labels`` select the service in
    Loki, ``texts`` are templates by id.
    """

    fit: dict[str, NDArray]
    panel: Panel
    frame: Frame
    labels: Mapping[str, str]
    texts: Mapping[str, str]

    @property
    def query(self) -> str:
        """All lines of the service."""
        return query_of(dict(self.labels))

    def moved(self, template: str, observed: float, expected: float, z: float, is_error: bool) -> Moved:
        """A template of the service, with its text where it has one and the query that finds it."""
        text = None if template == OTHER else self.texts.get(template)
        query = query_of(dict(self.labels), text)
        return Moved(template, plain(text or template), observed, expected, z, is_error, query)


def change(subject: Subject, signal: str, new: Mapping[str, float]) -> Change:
    """How the subject's last minutes show a signal; ``new`` are lines of error templates that were never seen before."""
    if signal in CHANNELS[HOURS]:
        return _over_hours(subject, signal)
    if signal == "new_errors":
        return _new_errors(subject, new)
    return _durations(subject) if signal == "latency_up" else _counts(subject, signal)


def plain(text: str) -> str:
    """Text out of a log, without control characters, at most 500 characters long."""
    kept = "".join(c if unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in text[:LONGEST_TEXT])
    return kept + ("…" if len(text) > LONGEST_TEXT else "")


@dataclass(frozen=True, slots=True)
class _Window:
    """Of each column: its z, how much it has to do with the signal, observed and expected lines."""

    minutes: int
    z: NDArray
    rank: NDArray
    observed: NDArray
    expected: NDArray


def _counts(subject: Subject, signal: str) -> Change:
    """Of the window that shows it best; what is so for a while is told of its own minutes."""
    panel, frame = subject.panel, subject.frame
    windows = [one for one in _windows(subject, signal) if signal != "sustained_up" or one.minutes == SUSTAINED_MINUTES]
    best = max(windows, key=lambda window: float(window.rank.max()))
    moved = tuple(
        subject.moved(
            frame.templates[column],
            float(best.observed[column]),
            float(best.expected[column]),
            float(best.z[column]),
            bool(frame.is_error[column]),
        )
        for column in np.argsort(-best.rank)[: MOST_TEMPLATES + 1]
        if panel.kind[column] != ERROR_SUM and best.rank[column] > 0
    )
    lines = panel.kind != ERROR_SUM
    observed = float(best.observed[lines].sum()) + _sum(panel.unknown[:, 0], best.minutes)
    return Change(best.minutes, moved[:MOST_TEMPLATES], observed, float(best.expected[lines].sum()))


def _windows(subject: Subject, signal: str) -> Iterator[_Window]:
    fit, panel = subject.fit, subject.panel
    rates = signals.expected_counts(fit, panel)
    follows = fit["follows"].astype(np.bool_)
    flow = signals.traffic(panel, rates, follows)
    counts, soft_rates = signals.softened(panel.counts, fit["soft"]), rates * fit["soft_share"]
    for number, horizon in enumerate(HORIZONS):
        ahead = signals.level(flow, fit["level"][number], horizon)
        phi, a = fit["total_phi"][number], fit["total_a"][number]
        observed, raw = signals.template_expected(panel, panel.counts, rates, flow, ahead, follows, horizon, phi, a)
        if signal in RELATIVE:
            window, wanted = signals.template_expected(panel, counts, soft_rates, flow, ahead, follows, horizon, phi, a)
            z = signals.root_z(window, wanted, fit["phi"][number], fit["a"][number])[0]
            z = np.where(z > 0, z / fit["up"][number], z / fit["down"][number])
        else:
            raw = signals.recent(rates, 1, horizon) * np.where(follows, ahead, 1)
            z = signals.root_z(observed, raw, fit["phi"][number], fit["a"][number])[0]
        yield _Window(horizon, z, _rank(signal, z, panel), observed[0], raw[0])


def _rank(signal: str, z: NDArray, panel: Panel) -> NDArray:
    """How much each template has to do with a signal."""
    if signal in ("total_down", "template_down", "silence"):
        return np.where(panel.kind != ERROR_SUM, -z, 0)
    if signal == "errors_up":
        return np.where(panel.kind == ERROR, z, 0)
    if signal == "template_up":
        return np.where(panel.kind == INFO, z, 0)
    return np.where(panel.kind != ERROR_SUM, np.abs(z) if signal == "mix" else z, 0)


def _new_errors(subject: Subject, new: Mapping[str, float]) -> Change:
    """Of error templates that the model has never seen: the most lines first."""
    # An empty line has an empty text, and is quoted as one.
    moved = [
        replace(subject.moved(name, lines, 0.0, float("inf"), True), text=plain(subject.texts.get(name, name)))
        for name, lines in sorted(new.items(), key=lambda pair: -pair[1])
    ]
    minutes = signals.NEW_ERROR_MINUTES
    observed = float(sum(new.values())) or _sum(subject.frame.fresh_errors, minutes)
    return Change(minutes, tuple(moved[:MOST_TEMPLATES]), observed, 0.0)


def _durations(subject: Subject) -> Change:
    """Templates by how much longer their durations are; observed and expected milliseconds of the first one."""
    fit, panel, timed = subject.fit, subject.panel, subject.frame.timed
    base = between_hours(fit["took_base"], panel.on_the_wall)
    horizon = max(signals.TOOK_HORIZONS)
    excess, lines = signals.took_window(panel, base, horizon)
    number = signals.TOOK_HORIZONS.index(horizon)
    z = signals.took_z(excess, lines, fit["took_v0"][number], fit["took_v1"][number])[0] / fit["took_up"][number]
    usual, observed = np.exp(base[-1]), np.exp(base[-1] + excess[0])
    moved = tuple(
        subject.moved(timed[column], float(observed[column]), float(usual[column]), float(z[column]), False)
        for column in np.argsort(-z[: len(timed)])[:MOST_TEMPLATES]
    )
    first = (moved[0].observed, moved[0].expected) if moved else (float(observed[-1]), float(usual[-1]))
    return Change(horizon, moved, *first)


def _over_hours(subject: Subject, signal: str) -> Change:
    """Of the stretch of hours; its templates are those that are missing in a silence."""
    told, frame = stretch(subject.fit, subject.panel, signal), subject.frame
    moved = []
    for column, lines in told.missing[:MOST_TEMPLATES]:
        z = float(signals.root_z(np.zeros(1), np.array([lines]), np.ones(1), np.zeros(1))[0])
        moved.append(subject.moved(frame.templates[column], 0.0, lines, z, bool(frame.is_error[column])))
    return Change(told.minutes, tuple(moved), told.observed, told.expected)


def _sum(values: NDArray, minutes: int) -> float:
    return float(values[-minutes:].sum())
