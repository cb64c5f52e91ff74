"""The record of a finding: what was unusual, against what, how much, which templates moved, and what did not change.

Every number is taken from the minutes that were scored: observed lines are sums of counts over a window that the record
names, expected ones what the season and the present level say. One sentence says it in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ml import calibration
from ml.detectors import VOTES, Episode, Scores, Shard, evidence_by_vote
from ml.features import Frame
from ml.moved_templates import Change, Moved, Subject, change, plain
from ml.panel import panel_of
from ml.shard_parts import part_of
from ml.signals import HISTORY

USUAL_DIGITS = 1.0
"""A signal below one decade happens more than once in ten minutes: it did not change."""


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
    subject = Subject(part_of(shard, [episode.service]).params, panel_of([frame], shard.zone), frame, labels, texts)
    shown = change(subject, told, new or {})
    moved = shown.templates
    quiet = tuple(name for name, digits in zip(VOTES, votes, strict=True) if digits < USUAL_DIGITS and name != "forest")
    errors = any(template.is_error and template.ratio > 1 for template in moved)
    severity = "error" if told in ("new_errors", "errors_up") or errors else "warning"
    return Explanation(
        episode.key(tenant),
        tenant,
        episode.service,
        episode.first,
        episode.last,
        episode.peak - shown.minutes + 1,
        episode.peak,
        signal,
        severity,
        float(10 ** -min(votes.max(), calibration.MOST_DIGITS)),
        calibration.rarity_per_day(shard.episodes[number], float(shard.days[number]), episode.weight),
        shown.observed,
        shown.expected,
        moved,
        quiet,
        sentence(episode.service, told, shown),
        moved[0].query if moved else subject.query,
    )


def sentence(service: str, signal: str, shown: Change) -> str:
    """What happened, in words."""
    span, observed, expected = _span(shown.minutes), shown.observed, shown.expected
    top = shown.templates[0] if shown.templates else None
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


def _span(minutes: int) -> str:
    if minutes < 120:
        return "one minute" if minutes == 1 else f"{minutes} minutes"
    rest = f" {minutes % 60} min" if minutes % 60 else ""
    return f"{minutes // 60} h{rest}"


def _quote(moved: Moved | None) -> str:
    return f"“{moved.text[:120]}”" if moved else "no single template"


def _lines(number: float) -> str:
    return f"{_n(number)} {'line' if _n(number) == '1' else 'lines'}"


def _n(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")
