"""A tenant's model from exported days to a candidate with its evaluation, and from there into production.

What the asset does and what the command does is this; nothing here knows Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from importlib.metadata import version

from ml.budgets import budgets_of, mean_budget
from ml.detectors import Shard, fit_service, join
from ml.evaluation.harness import MODEL
from ml.examination import (
    Artefact,
    Detector,
    baseline_verdicts,
    remembered,
    replayed,
    score_cpu_s,
    verdict_of,
    worn_of,
)
from ml.gates import Evaluation, Gate, gates_of
from ml.model_manifest import Learned, ModelManifest
from ml.model_store import Model, ModelStore, ServiceFacts, unpacked
from ml.tally_store import DAY_MINUTES, TalliedDay, day_start_minute
from ml.template_store import StoredTemplates, TemplateStore
from ml.tenant_training import FittedGroup, TrainingPlan, fit_groups, learnt_services
from onecollector_assets.lost_lines import lost_minutes, without_lost
from onecollector_assets.model_subjects import subjects_of
from onecollector_assets.tallying import NothingToLearn, exported_days, keep_tallies
from onecollector_resources.discovery.links_model import PROBES
from onecollector_resources.findings.opening import finding_store
from onecollector_resources.findings.records import FINDINGS_SERVICE, Judged
from onecollector_resources.settings import Settings
from onecollector_resources.storage.objects import ObjectStore
from onecollector_resources.storage.opening import model_store

LIBRARIES = ("numpy", "polars", "pyarrow", "scikit-learn", "onecollector")

OURS = frozenset({FINDINGS_SERVICE, PROBES})
"""Services whose lines we write ourselves: nothing is usual or unusual of them."""

Tell = Callable[[str], None]


def judged_findings(settings: Settings, tenant: str, since_minute: int) -> Sequence[Judged]:
    """What people said of findings, out of the registry; nothing where no registry was made yet. Raises RegistryError."""
    store = finding_store(settings)
    if not store.database.made:
        return ()
    try:
        return store.judged(tenant, since_minute)
    finally:
        store.disconnect()


@dataclass(frozen=True, slots=True)
class Trained:
    """A candidate. ``over`` is the id of the model that it was compared with, empty where none served."""

    manifest: ModelManifest
    evaluation: Evaluation
    gates: tuple[Gate, ...]
    over: str
    tallied_lines: int
    problems: tuple[str, ...]


def models_of(settings: Settings, tenant: str, store: ObjectStore | None = None) -> ModelStore:
    """A tenant's models. Raises StoreError."""
    return ModelStore(store or model_store(settings), tenant)


def train_tenant(
    settings: Settings,
    store: ObjectStore,
    tenant: str,
    last_day: date | None = None,
    *,
    tell: Tell = lambda text: None,
) -> Trained:
    """Tally what is not tallied yet, fit, examine, keep as the candidate. Raises NothingToLearn and what reading raises."""
    last = last_day or newest_day(settings, tenant)
    days, lines = tallied_days(settings, store, tenant, last, tell)
    days = without_lost(days, lost_minutes(settings, tenant, days[0].day))
    templates = TemplateStore(store, tenant).load()
    findings = judged_findings(settings, tenant, day_start_minute(days[0].day))
    plan = plan_of(settings, tenant, days, templates, findings)
    fitted = []
    for group in fit_groups(opener_of(settings), plan, settings.models.train_workers):
        fitted.append(group)
        tell(f"fitted {sum(len(one.facts) for one in fitted)} of {len(plan.services)} services")
    unfit = [service for group in fitted for service in group.unfit]
    fitted = [group for group in fitted if group.facts]
    if not fitted:
        raise NothingToLearn(
            f"no service of {tenant} wrote a line from {days[0].day} to {days[-1].day} that can be learned from"
        )
    facts = tuple(one for group in fitted for one in group.facts)
    shards = [unpacked(group.arrays, group.names).shard for group in fitted]
    models = models_of(settings, tenant, store)
    serving = models.serving()
    # Also where it cannot be read: it is what the candidate takes the place of.
    over = models.channels.pointed_at() or (serving.model.model_id if serving.model else "")
    evaluation = evaluated(settings, store, plan, templates, shards, facts, serving.model, findings, tell)
    evaluation = replace(evaluation, artefact=artefact_of(fitted, shards[0]))
    learned = Learned(
        str(days[0].day),
        str(days[-1].day),
        sum(group.minutes for group in fitted),
        evaluation.missing_share,
        {str(day.day): day.snapshot for day in days},
        {name: version(name) for name in LIBRARIES},
    )
    manifest = models.write(
        [group.arrays for group in fitted],
        [group.names for group in fitted],
        facts,
        evaluation.plain(),
        learned,
        over,
        templates,
    )
    models.channels.point_candidate(manifest.model_id, f"trained on {days[0].day} to {days[-1].day}")
    tell(f"kept {manifest.model_id}")
    return Trained(
        manifest, evaluation, tuple(gates_of(evaluation)), over, lines, (*serving.problems, *map(_unfit, unfit))
    )


def _unfit(service: str) -> str:
    return f"{service} is left out of the model: its minutes gave figures that are no numbers; the next training tries again"


def newest_day(settings: Settings, tenant: str, now: datetime | None = None) -> date:
    """The newest day of which lines are exported, today only where there is no other. Raises NothingToLearn."""
    today = (now or datetime.now(UTC)).date()
    days = exported_days(settings, tenant)
    if not days:
        raise NothingToLearn(
            f"no lines of {tenant} are exported; set export.out for hourly exports, or run: "
            "onecollector export '{service_name=~\".+\"}' --from … --to …"
        )
    return max((day for day in days if day < today), default=days[-1])


def tallied_days(
    settings: Settings, store: ObjectStore, tenant: str, last: date, tell: Tell
) -> tuple[list[TalliedDay], int]:
    """The days to learn from that are exported, and how many lines were counted for it. Raises NothingToLearn."""
    days, lines = [], 0
    wanted = [last - timedelta(days=back) for back in reversed(range(settings.models.train_days))]
    for day in wanted:
        found = keep_tallies(settings, store, tenant, day)
        if found is None:
            continue
        days.append(found.day)
        if found.lines is not None:
            lines += found.lines
            tell(f"{day}: {found.lines:,} lines tallied")
    if not any(set(day.services) - OURS - {""} for day in days):
        raise NothingToLearn(
            f"no lines of services of {tenant} from {wanted[0]} to {last} are exported; run: "
            f"onecollector export '{{service_name=~\".+\"}}' --from {wanted[0]} --to {last + timedelta(days=1)}"
        )
    return days, lines


def plan_of(
    settings: Settings,
    tenant: str,
    days: Sequence[TalliedDay],
    templates: StoredTemplates,
    findings: Sequence[Judged],
) -> TrainingPlan:
    """What is learned from what."""
    start = day_start_minute(days[0].day)
    end = max(day.coverage.known_until(day_start_minute(day.day)) for day in days)
    minutes: dict[str, dict[str, list[tuple[int, int]]]] = {"confirmed": {}, "dismissed": {}}
    for finding in findings:
        minutes[finding.verdict].setdefault(finding.service, []).append((finding.first, finding.last + 1))
    merged = {
        service: {old: templates.current(service, old) for old in ids} for service, ids in templates.merged_into.items()
    }
    return TrainingPlan(
        tenant,
        tuple(days),
        start,
        min(end, day_start_minute(days[-1].day) + DAY_MINUTES),
        merged,
        {service: tuple(sorted(ranges)) for service, ranges in minutes["confirmed"].items()},
        settings.models.learning_days,
        {service: tuple(sorted(ranges)) for service, ranges in minutes["dismissed"].items()},
        budgets_of(settings.models.alert_budget, settings.models.services),
        OURS,
        settings.models.time_zone,
    )


def evaluated(
    settings: Settings,
    store: ObjectStore,
    plan: TrainingPlan,
    templates: StoredTemplates,
    shards: Sequence[Shard],
    facts: Sequence[ServiceFacts],
    incumbent: Model | None,
    findings: Sequence[Judged],
    tell: Tell,
) -> Evaluation:
    """What the gates look at, but for the size of the model."""
    usual, budget = settings.models.alert_budget, plan.budget
    subjects = list(subjects_of(settings, store, plan, templates, facts))
    replay, verdicts, before, worn = None, [], None, ()
    if subjects:
        fits = [fit_service(s.learnt.frame, s.learnt.vocabulary, plan.zone) for s in subjects]
        sibling = Detector([join(fits)], budget)
        replay = replayed(sibling, subjects)
        own = verdict_of(MODEL, sibling, subjects)
        verdicts = [own, *baseline_verdicts(subjects, usual, plan.zone)] if own else []
        if incumbent is not None:
            serving = Detector([one.shard for one in incumbent.shards], budget)
            before, worn = verdict_of("in production", serving, subjects), worn_of(serving, subjects)
        tell(f"examined {len(subjects)} services")
    candidate = Detector(shards, budget)
    asked = sorted({finding.service for finding in findings} & set(plan.services))
    known = {one.frame.service: one for one in learnt_services(store, plan, asked)}
    days = sum(one.days for one in facts)
    missing = sum(one.missing_share * one.days / max(1 - one.missing_share, 0.01) for one in facts)
    return Evaluation(
        mean_budget(budget, [one.service for one in subjects]),
        tuple(facts),
        round(missing / max(days + missing, 1e-9), 4),
        replay,
        tuple(verdicts),
        incumbent.model_id if incumbent else "",
        before,
        remembered(candidate, known, findings, plan.end),
        Artefact(0, 0, 0.0),
        tuple((s.service, s.why_not) for s in subjects if s.faulty is None),
        worn,
        len(subjects),
    )


def artefact_of(fitted: Sequence[FittedGroup], shard: Shard) -> Artefact:
    """Sizes of what is kept, and what scoring with it costs."""
    sizes = [len(part) for group in fitted for part in (group.arrays, group.names)]
    return Artefact(sum(sizes), max(sizes), round(score_cpu_s(shard), 3))


def opener_of(settings: Settings) -> Callable[[], ObjectStore]:
    """Opens the model store, in this process or another."""
    return partial(model_store, settings)
