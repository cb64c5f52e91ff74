"""The services that a model is examined on: their last days as they were, and their lines with faults put in.

Quiet and busy services alike are chosen; of one that writes millions of lines a day only as much is taken as holds one
fault of each class. Nothing here knows Dagster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ml.detectors import LEAST_MINUTES
from ml.examination import JUDGED_MINUTES, Subject, subject_of
from ml.model_store import ServiceFacts
from ml.signals import HISTORY
from ml.tally_store import DAY_MINUTES, TallyStore, day_start_minute
from ml.template_store import StoredTemplates
from ml.templates import TemplateMiner
from ml.tenant_training import Learnt, TrainingPlan, learnt_services, settled
from onecollector_assets.tallying import MINUTE_NS, filled_miner, mined, mined_lines
from onecollector_resources.settings import Settings
from onecollector_resources.storage.objects import ObjectStore, as_url, open_store

if TYPE_CHECKING:
    import polars as pl

MOST_LINES = 2_000_000
"""Lines of one service that faults are put into."""
SHORT_MINUTES = 1020
"""Minutes that hold one fault of each class: what of a busy service is examined."""


def subjects_of(
    settings: Settings,
    store: ObjectStore,
    plan: TrainingPlan,
    templates: StoredTemplates,
    facts: Sequence[ServiceFacts],
) -> Iterator[Subject]:
    """Services to examine, quiet and busy ones alike; none that is learning."""
    able = sorted((one for one in facts if not one.learning), key=lambda one: one.lines)
    wanted = min(settings.models.examined_services, len(able))
    chosen = [able[n * len(able) // wanted].service for n in range(wanted)]
    border = plan.end - JUDGED_MINUTES
    before = plan.until(border)
    miner = filled_miner(settings, templates)
    for learnt in learnt_services(store, before, chosen):
        if learnt.facts.days * DAY_MINUTES < LEAST_MINUTES:
            continue
        subject = _subject(settings, store, plan, learnt, border, miner)
        # The tally of two weeks is only needed to choose what faults hit.
        yield replace(subject, learnt=replace(learnt, tally=learnt.tally.clear()))


def _subject(
    settings: Settings, store: ObjectStore, plan: TrainingPlan, learnt: Learnt, border: int, miner: TemplateMiner
) -> Subject:
    import polars as pl

    service, kept = learnt.frame.service, TallyStore(store, plan.tenant)
    near = [day for day in plan.days if day_start_minute(day.day) + DAY_MINUTES > border - HISTORY]
    parts = [table for day in near if (table := kept.tally(day, service)) is not None]
    tally = settled(pl.concat(parts), plan.merged.get(service, {})) if parts else learnt.table.clear()

    def since(minute: int) -> pl.DataFrame:
        return tally.filter(pl.col("minute").is_between(minute - HISTORY, plan.end, closed="left"))

    if since(border)["lines"].sum() > MOST_LINES:
        border = plan.end - SHORT_MINUTES
    clean = since(border)
    lines, why_not = None, ""
    if clean["lines"].sum() > MOST_LINES:
        why_not = f"too busy: {clean['lines'].sum():,} lines in {SHORT_MINUTES} minutes"
    else:
        lines = _lines(settings, plan.tenant, service, border - HISTORY, plan.end, miner)
    seed = int.from_bytes(hashlib.sha256(f"{service} {plan.end}".encode()).digest()[:8], "big")
    gaps = tuple(r for r in plan.unobserved(service) if r[1] > border - HISTORY)
    return subject_of(
        learnt,
        clean,
        lines,
        lambda table: mined(miner, service, table).to_list(),
        border,
        plan.end,
        gaps,
        np.random.default_rng(seed),
        why_not=why_not,
    )


def _lines(
    settings: Settings, tenant: str, service: str, first: int, end: int, miner: TemplateMiner
) -> pl.DataFrame | None:
    import polars as pl

    from onecollector_resources.exports.dataset import ExportDataset

    out = as_url(settings.export.out or str(settings.layout.exports))
    store = open_store(out, settings.export.s3 or settings.loki.s3, create=True)
    dataset = ExportDataset.find(
        store, tenant=tenant, service=service, start_ns=first * MINUTE_NS, end_ns=end * MINUTE_NS
    )
    parts = [
        mined_lines(miner, service, table)
        for _, table in dataset.tables(["timestamp", "line", "severity"])
        if table.num_rows
    ]
    return pl.concat(parts).sort("timestamp") if parts else None
