"""From an unusual minute to the finding that people read: what fired, what moved, lines that show it, a query that finds it.

Example lines are asked of Loki by the very query that the finding gives, and looked at again with the miner: so a query
that finds other lines, or none, is not given. Whatever comes out of a log is redacted here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ml.budgets import Budget, budget_for
from ml.detectors import Episode, Scores, Shard
from ml.drift import FRESH_MINUTES, Sightings
from ml.explain import Explanation, explain
from ml.features import Frame
from ml.following import Going
from ml.live_window import LiveWindow
from ml.logql import query_of
from ml.moved_templates import Moved
from ml.signals import HISTORY, NEW_ERROR_MINUTES
from ml.template_query import query_matching
from onecollector.scorer.live_templates import LiveTemplates
from onecollector.scorer.reader import LineReader, ReadTrouble
from onecollector_resources.findings.records import Finding, MovedTemplate
from onecollector_resources.loki.logql import LogqlError, parse

EXAMPLES = 3
SAMPLED = 5_000
"""Lines of a service that are looked through where the query finds none."""
LONGEST_AGO = 400 * 1440
"""Minutes; what appeared longer ago was there when anybody first looked."""

Redact = Callable[[str], str]
Context = tuple[Shard, Sequence[Frame], Scores]


@dataclass(frozen=True, slots=True)
class Explainer:
    """Makes findings of one tenant and model."""

    tenant: str
    model_id: str
    budget: Budget
    window: LiveWindow
    templates: LiveTemplates
    reader: LineReader
    redact: Redact

    def finding(self, going: Going, context: Context, incident: str = "", *, examples: bool = True) -> Finding:
        """The finding in its weightiest minute, which has to be one of the context's scored minutes."""
        told = self._explained(going, context)
        seen = self.window.frames[going.service].sightings
        moved = tuple(self._moved(one, told, seen, examples) for one in told.templates)
        labels = {"service_name": going.service}
        return Finding(
            key=told.key,
            tenant=self.tenant,
            service=going.service,
            model_id=self.model_id,
            incident=incident or told.key,
            first=at(going.first),
            last=at(going.last),
            peak=at(going.peak),
            window_first=at(told.window_first),
            window_last=at(told.window_last),
            signal=told.signal,
            severity="error" if told.severity == "error" else "warning",
            p=told.p,
            a_day=told.a_day,
            weight=going.weight,
            budget=budget_for(self.budget, going.service),
            observed=told.observed,
            expected=told.expected,
            sentence=self.redact(told.sentence),
            query=moved[0].query if moved else query_of(labels),
            templates=moved,
            unchanged=told.unchanged,
        )

    def _explained(self, going: Going, context: Context) -> Explanation:
        shard, frames, scores = context
        episode = Episode(going.service, going.first, going.last, going.peak, going.weight, "")
        return explain(
            shard,
            frames,
            scores,
            episode,
            tenant=self.tenant,
            labels={"service_name": going.service},
            texts=self.templates.texts(going.service),
            new=new_error_lines(self.window, going.service, going.peak),
        )

    def _moved(self, one: Moved, told: Explanation, seen: Sightings, examples: bool) -> MovedTemplate:
        labels = {"service_name": told.service}
        text = self.templates.texts(told.service).get(one.template)
        lines = self._examples(one, told, text) if examples else []
        query = one.query
        if lines and text is not None:
            query = query_matching(text, told.service, lines)
        if not _valid(query) or self.redact(query) != query:
            query = query_of(labels)
        appeared, last = seen.appeared.get(one.template), seen.last.get(one.template)
        return MovedTemplate(
            one.template,
            self.redact(one.text),
            one.observed,
            one.expected,
            one.is_error,
            query,
            at(appeared) if appeared is not None and appeared > told.window_last - LONGEST_AGO else None,
            at(last) if last is not None else None,
            tuple(map(self.redact, lines)),
        )

    def _examples(self, one: Moved, told: Explanation, text: str | None) -> list[str]:
        """Newest lines of the template: of the window, or the last before it where it stopped."""
        if text is None:
            return []
        first = told.window_first if one.observed > 0 else told.window_first - HISTORY
        end = told.window_last + 1
        try:
            found: list[str] = []
            if _valid(one.query):
                lines = self.reader.examples(one.query, first, end, 4 * EXAMPLES)
                found = self._of(told.service, one.template, lines)
            if not found and one.observed > 0:
                every = query_of({"service_name": told.service})
                lines = self.reader.examples(every, told.window_last, end, SAMPLED)
                found = self._of(told.service, one.template, lines)
        except ReadTrouble:
            # A finding without lines is told now; one that waits for them is not.
            return []
        return found

    def _of(self, service: str, template: str, lines: Sequence[str]) -> list[str]:
        """Different ones of the lines that have this very template."""
        distinct = list(dict.fromkeys(lines))
        ids = self.templates.ids_of(service, distinct)
        return [line for line, identity in zip(distinct, ids, strict=True) if identity == template][:EXAMPLES]


def new_error_lines(window: LiveWindow, service: str, peak: int) -> dict[str, float]:
    """Error lines of templates that had appeared lately, by template, in the minutes that ``new_errors`` looks at."""
    import polars as pl

    appeared: Mapping[str, int] = window.frames[service].sightings.appeared
    out: dict[str, float] = {}
    for minute in range(peak - NEW_ERROR_MINUTES + 1, peak + 1):
        kept = window.at(minute)
        if kept is None:
            continue
        table = kept.tally.table
        rows = table.filter((pl.col("service") == service) & (pl.col("errors") * 2 >= pl.col("lines")))
        for template, lines in zip(rows["template"].to_list(), rows["lines"].to_list(), strict=True):
            if 0 <= minute - appeared.get(template, 0) < FRESH_MINUTES:
                out[template] = out.get(template, 0.0) + lines
    return out


def later(finding: Finding, going: Going) -> Finding:
    """The finding a minute on, where that one was not the weightiest."""
    return replace(finding, last=at(going.last))


def at(minute: int) -> datetime:
    """A minute since 1970 as a time."""
    return datetime.fromtimestamp(minute * 60, UTC)


def minute_of(time: datetime) -> int:
    """A time as a minute since 1970."""
    return int(time.timestamp() // 60)


def _valid(query: str) -> bool:
    try:
        parse(query)
    except LogqlError:
        return False
    return True
