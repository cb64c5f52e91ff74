"""The record of a finding: what was unusual, against what, how much, which templates moved, and what did not change.

Every number is taken from the minutes that were scored: observed lines are sums of counts over a window that the record
names, expected ones what the season and the present level say. Texts come out of logs and stay data: cut, escaped, never
markup.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml import calibration, signals
from ml.detectors import VOTES, Episode, Scores, Shard, evidence_by_vote
from ml.explain_hours import stretch
from ml.features import OTHER, Frame
from ml.logql import query_of
from ml.panel import ERROR, ERROR_SUM, INFO, Panel, panel_of
from ml.signals import CHANNELS, HISTORY, HORIZONS, HOURS

MOST_TEMPLATES = 5
LONGEST_TEXT = 500
USUAL_DIGITS = 1.0
"""A signal below one decade happens more than once in ten minutes: it did not change."""
RELATIVE = ("template_up", "template_down", "errors_up", "mix", "silence", "new_errors", "latency_up")
"""Signals whose templates are held against the level of the others; for totals it is the level foretold."""


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
class Explanation:
    """What is said about a finding; times are minutes since 1970, the window is [window_first, window_last].

    ``p`` is the signal's p-value in its weightiest minute, ``a_day`` how often calibration days had an episode like it.
    ``unchanged`` names signals that were as usual.
    """

    key: str
    tenant: str
    service: str
    first: int
    last: int
    window_first: int
    window_last: int
    signal: str
    severity: str
    p: float
    a_day: float
    observed: float
    expected: float
    templates: tuple[Moved, ...]
    unchanged: tuple[str, ...]
    sentence: str
    query: str

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def explain(
    shard: Shard,
    frames: Sequence[Frame],
    scores: Scores,
    episode: Episode,
    *,
    tenant: str,
    labels: Mapping[str, str],
    texts: Mapping[str, str],
    new: Mapping[str, float] | None = None,
) -> Explanation:
    """The record of one episode out of the very minutes that were scored.

    ``labels`` select the service in Loki, ``texts`` are templates by id; ``new`` are lines of error templates that the model
    has never seen, in the five minutes that end with the episode's weightiest one.
    """
    number = shard.services.index(episode.service)
    row = int(episode.peak - scores.minutes[0])
    votes = evidence_by_vote(scores, number, row)
    signal = VOTES[int(np.argmax(votes))]
    told = VOTES[int(np.argmax(votes[:-1]))] if signal == "forest" else signal
    frame = frames[number].rows(row, HISTORY + row + 1)
    described = _over_hours if told in CHANNELS[HOURS] else _templates
    horizon, moved, total = described(single(shard, number), panel_of([frame]), frame, told, labels, texts)
    if told == "new_errors":
        horizon = signals.NEW_ERROR_MINUTES
        total = (float(sum((new or {}).values())) or _sum(frame.fresh_errors, horizon), 0.0)
        moved = [
            Moved(
                name,
                plain(texts.get(name, name)),
                lines,
                0.0,
                float("inf"),
                True,
                query_of(dict(labels), texts.get(name)),
            )
            for name, lines in sorted((new or {}).items(), key=lambda pair: -pair[1])
        ]
    moved = moved[:MOST_TEMPLATES]
    quiet = tuple(name for name, digits in zip(VOTES, votes, strict=True) if digits < USUAL_DIGITS and name != "forest")
    errors = any(template.is_error and template.ratio > 1 for template in moved)
    severity = "error" if told in ("new_errors", "errors_up") or errors else "warning"
    observed, expected = total
    return Explanation(
        episode.key(tenant),
        tenant,
        episode.service,
        episode.first,
        episode.last,
        episode.peak - horizon + 1,
        episode.peak,
        signal,
        severity,
        float(10 ** -min(votes.max(), calibration.MOST_DIGITS)),
        calibration.rarity_per_day(shard.episodes[number], float(shard.days[number]), episode.weight),
        observed,
        expected,
        tuple(moved),
        quiet,
        sentence(episode.service, told, horizon, observed, expected, moved),
        moved[0].query if moved else query_of(dict(labels)),
    )


def sentence(service: str, signal: str, minutes: int, observed: float, expected: float, moved: Sequence[Moved]) -> str:
    """What happened, in words."""
    span = _span(minutes)
    top = moved[0] if moved else None
    counts = f"{_lines(top.observed)} in {span}, {_n(top.expected)} expected" if top else ""
    said = {
        "total_up": f"wrote {_lines(observed)} in {span}, {_n(expected)} expected",
        "total_down": f"wrote {_lines(observed)} in {span}, {_n(expected)} expected",
        "sustained_up": f"has written more than usual for {span}: {_lines(observed)}, {_n(expected)} expected",
        "new_errors": f"wrote {_lines(observed)} of errors in {span} that it had not written before",
        "mix": f"wrote a different mixture of lines in {span}: most of all {_quote(top)}, {counts}",
        "errors_up": f"wrote more errors than usual: {_quote(top)}, {counts}",
        "template_up": f"wrote one template more than usual: {_quote(top)}, {counts}",
        "template_down": f"wrote one template less than usual: {_quote(top)}, {counts}",
        "silence": f"stopped writing {_quote(top)}: {counts}",
        "quiet": f"has written nothing for {span}, {_n(expected)} lines expected",
        "hours_down": f"has written less than usual for {span}: {_lines(observed)}, {_n(expected)} expected",
        "hours_up": f"has written more than usual for {span}: {_lines(observed)}, {_n(expected)} expected",
        "latency_up": f"reports longer durations: {_n(observed)} ms in {_quote(top)}, {_n(expected)} ms expected",
    }[signal]
    if signal == "new_errors" and top:
        said += f": {_quote(top)}"
    return f"{plain(service)} {said}."


def single(shard: Shard, number: int) -> dict[str, NDArray]:
    """The parameters of one service of a shard."""
    first = sum(shard.columns[:number])
    columns = slice(first, first + shard.columns[number])
    took_sizes = [2 * len(v.timed) + 1 for v in shard.vocabularies]
    took = slice(sum(took_sizes[:number]), sum(took_sizes[: number + 1]))
    by_service = ("total_", "mix_", "hour_")
    out = {}
    for name, array in shard.params.items():
        if name == "level":
            out[name] = array[:, number : number + 1]
        elif name.startswith(by_service):
            out[name] = array[..., number : number + 1]
        else:
            out[name] = array[..., took if name.startswith("took_") else columns]
    return out


def plain(text: str) -> str:
    """Text out of a log, without control characters, at most 500 characters long."""
    kept = "".join(c if unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in text[:LONGEST_TEXT])
    return kept + ("…" if len(text) > LONGEST_TEXT else "")


def _templates(
    fit: dict[str, NDArray],
    panel: Panel,
    frame: Frame,
    signal: str,
    labels: Mapping[str, str],
    texts: Mapping[str, str],
) -> tuple[int, list[Moved], tuple[float, float]]:
    """The window that shows it best, its templates by how far they moved, observed and expected in all."""
    if signal == "latency_up":
        return _slowest(fit, panel, frame, labels, texts)
    rates = signals.expected_counts(fit, panel)
    follows = fit["follows"].astype(np.bool_)
    flow = signals.traffic(panel, rates, follows)
    counts, soft_rates = signals.softened(panel.counts, fit["soft"]), rates * fit["soft_share"]
    best: tuple[float, int, NDArray, NDArray, NDArray] | None = None
    for number, horizon in enumerate(HORIZONS):
        ahead = signals.level(flow, fit["level"][number], horizon)
        phi, a = fit["total_phi"][number], fit["total_a"][number]
        observed, raw = signals.template_expected(panel, panel.counts, rates, flow, ahead, follows, horizon, phi, a)
        if signal not in RELATIVE:
            season = signals.recent(rates, 1, horizon)
            raw = season * np.where(follows, ahead, 1)
        window, wanted = signals.template_expected(panel, counts, soft_rates, flow, ahead, follows, horizon, phi, a)
        z = signals.root_z(window, wanted, fit["phi"][number], fit["a"][number])[0]
        z = np.where(z > 0, z / fit["up"][number], z / fit["down"][number])
        if signal not in RELATIVE:
            z = signals.root_z(observed, raw, fit["phi"][number], fit["a"][number])[0]
        rank = _rank(signal, z, panel)
        if best is None or float(rank.max()) > best[0]:
            best = (float(rank.max()), horizon, z, observed[0], raw[0])
    assert best is not None
    _, horizon, z, observed, raw = best
    if signal == "sustained_up":
        horizon = 10
    rank = _rank(signal, z, panel)
    moved = []
    for column in np.argsort(-rank)[: MOST_TEMPLATES + 1]:
        if panel.kind[column] == ERROR_SUM or rank[column] <= 0:
            continue
        name = frame.templates[column]
        text = None if name == OTHER else texts.get(name)
        moved.append(
            Moved(
                name,
                plain(text or name),
                float(observed[column]),
                float(raw[column]),
                float(z[column]),
                bool(frame.is_error[column]),
                query_of(dict(labels), text),
            )
        )
    lines = panel.kind != ERROR_SUM
    return horizon, moved, (float(observed[lines].sum()) + _sum(panel.unknown[:, 0], horizon), float(raw[lines].sum()))


def _rank(signal: str, z: NDArray, panel: Panel) -> NDArray:
    """How much each template has to do with a signal."""
    if signal in ("total_down", "template_down", "silence"):
        return np.where(panel.kind != ERROR_SUM, -z, 0)
    if signal == "errors_up":
        return np.where(panel.kind == ERROR, z, 0)
    if signal == "template_up":
        return np.where(panel.kind == INFO, z, 0)
    return np.where(panel.kind != ERROR_SUM, np.abs(z) if signal == "mix" else z, 0)


def _slowest(
    fit: dict[str, NDArray], panel: Panel, frame: Frame, labels: Mapping[str, str], texts: Mapping[str, str]
) -> tuple[int, list[Moved], tuple[float, float]]:
    """Of a latency finding: the templates by how much longer their durations are; observed and expected milliseconds."""
    from ml.seasonal import between_hours

    base = between_hours(fit["took_base"], panel.minutes)
    horizon = max(signals.TOOK_HORIZONS)
    excess, lines = signals.took_window(panel, base, horizon)
    number = signals.TOOK_HORIZONS.index(horizon)
    z = signals.took_z(excess, lines, fit["took_v0"][number], fit["took_v1"][number])[0] / fit["took_up"][number]
    usual, observed = np.exp(base[-1]), np.exp(base[-1] + excess[0])
    timed = len(frame.timed)
    moved = []
    for column in np.argsort(-z[:timed])[:MOST_TEMPLATES]:
        name = frame.timed[column]
        text = texts.get(name)
        query = query_of(dict(labels), text)
        moved.append(
            Moved(
                name, plain(text or name), float(observed[column]), float(usual[column]), float(z[column]), False, query
            )
        )
    first = (moved[0].observed, moved[0].expected) if moved else (float(observed[-1]), float(usual[-1]))
    return horizon, moved, first


def _over_hours(
    fit: dict[str, NDArray],
    panel: Panel,
    frame: Frame,
    signal: str,
    labels: Mapping[str, str],
    texts: Mapping[str, str],
) -> tuple[int, list[Moved], tuple[float, float]]:
    """Of a finding over hours: its minutes, templates that are missing in a silence, observed and expected lines in all."""
    told = stretch(fit, panel, signal)
    moved = []
    for column, lines in told.missing[:MOST_TEMPLATES]:
        name = frame.templates[column]
        text = None if name == OTHER else texts.get(name)
        z = float(signals.root_z(np.zeros(1), np.array([lines]), np.ones(1), np.zeros(1))[0])
        query = query_of(dict(labels), text)
        moved.append(Moved(name, plain(text or name), 0.0, lines, z, bool(frame.is_error[column]), query))
    return told.minutes, moved, (told.observed, told.expected)


def _span(minutes: int) -> str:
    if minutes < 120:
        return "one minute" if minutes == 1 else f"{minutes} minutes"
    rest = f" {minutes % 60} min" if minutes % 60 else ""
    return f"{minutes // 60} h{rest}"


def _sum(values: NDArray, minutes: int) -> float:
    return float(values[-minutes:].sum())


def _quote(moved: Moved | None) -> str:
    return f"“{moved.text[:120]}”" if moved else "no single template"


def _lines(number: float) -> str:
    return f"{_n(number)} {'line' if _n(number) == '1' else 'lines'}"


def _n(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")
