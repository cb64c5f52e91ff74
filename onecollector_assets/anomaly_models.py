"""``anomaly_models``: a tenant's model, trained, examined and kept as the candidate; ``production_models``: it serves.

The gates are checks between the two: a candidate that fails one that blocks stays a candidate, the run says why, and the
model in production goes on serving. What passed is shadowed beside that one for a day; until then ``production_models``
is not materialised. A partition is a tenant, thousands of services in one run.
"""

import base64
import time
from importlib.util import find_spec
from math import isnan
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml.gate_limits import GATES, WARNS
from onecollector_assets.presentation import markdown_table
from onecollector_assets.tallies import minute_tallies
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.settings import SettingsError, load_settings
from onecollector_resources.storage.opening import model_store

if TYPE_CHECKING:
    from onecollector_assets.model_training import Trained


def tenants() -> list[str]:
    """The partitions. With settings that cannot be read the location still loads, and says so when it runs."""
    try:
        return sorted(load_settings().tenants)
    except SettingsError:
        return ["default"]


TENANTS = dg.StaticPartitionsDefinition(tenants())


@dg.asset(
    partitions_def=TENANTS,
    deps=[dg.AssetDep(minute_tallies, partition_mapping=dg.AllPartitionMapping())],
    group_name="models",
    description="A tenant's model: trained on two weeks of tallies, examined on the last 48 hours with injected faults, "
    "kept as the candidate. Look: onecollector models show",
    kinds={"numpy", "scikitlearn"},
    owners=["team:platform"],
    check_specs=[
        dg.AssetCheckSpec(name, asset="anomaly_models", blocking=name not in WARNS, description=expected)
        for name, expected in GATES.items()
    ],
)
def anomaly_models(context: dg.AssetExecutionContext, onecollector: OneCollectorResource):
    from onecollector_assets.model_training import train_tenant
    from onecollector_assets.tallying import NothingToLearn

    settings, tenant, began = onecollector.settings(), context.partition_key, time.monotonic()
    store = model_store(settings)
    try:
        trained = train_tenant(settings, store, tenant, tell=lambda text: context.log.info("%s", text))
    except NothingToLearn as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    for problem in trained.problems:
        context.log.warning("%s", problem)
    metadata = {**model_metadata(trained), "seconds": round(time.monotonic() - began, 1)}
    yield dg.Output(None, metadata=metadata, data_version=dg.DataVersion(trained.manifest.model_id))
    for gate in trained.gates:
        yield dg.AssetCheckResult(
            check_name=gate.name,
            passed=gate.passed,
            severity=dg.AssetCheckSeverity.ERROR if gate.blocking else dg.AssetCheckSeverity.WARN,
            description=gate.found if gate.passed else f"{gate.found}; {gate.fix}",
        )


@dg.asset(
    partitions_def=TENANTS,
    deps=[anomaly_models],
    group_name="models",
    output_required=False,
    description="The model that serves: the candidate, once it passed the gates and was shadowed beside the one before. "
    "Back: onecollector models rollback",
    owners=["team:platform"],
)
def production_models(context: dg.AssetExecutionContext, onecollector: OneCollectorResource):
    from ml.model_channels import MovedMeanwhile, NotPassed
    from ml.model_manifest import ModelRefused
    from onecollector_assets.promotion import Waiting, promote_next

    settings, tenant = onecollector.settings(), context.partition_key
    try:
        done = promote_next(settings, model_store(settings), tenant)
    except (NotPassed, MovedMeanwhile, ModelRefused) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    if isinstance(done, Waiting):
        context.log.info("%s does not serve yet: %s", done.model_id, done.why)
        return
    if done.problem:
        context.log.warning(done.problem)
    yield dg.Output(
        None,
        data_version=dg.DataVersion(done.pointer.model_id),
        metadata={
            "model": done.pointer.model_id,
            "before": done.pointer.previous or "none",
            "why": done.pointer.why,
            "shadow": done.shadow or "none: no model served",
            "removed models": len(done.removed),
            **({"problem": done.problem} if done.problem else {}),
            "back": f"onecollector models rollback --tenant {tenant}",
        },
    )


def model_metadata(trained: "Trained") -> dict[str, Any]:
    """What people look at: figures, gates, how it compares, and services, those that are learning first."""
    from ml.evaluation.report import details, figures, plot, table

    manifest, evaluation = trained.manifest, trained.evaluation
    facts = sorted(evaluation.facts, key=lambda one: (not one.learning, -one.lines))
    gates = [("✓" if g.passed else "✗", g.name, GATES[g.name], g.found) for g in trained.gates]
    out: dict[str, Any] = {
        "model": manifest.model_id,
        "services": manifest.services,
        "learning": manifest.learning,
        "days": f"{manifest.learned.first_day} to {manifest.learned.last_day}",
        "service minutes": manifest.learned.minutes,
        "missing": f"{manifest.learned.missing_share:.2%}",
        "bytes": manifest.bytes,
        "lines tallied": trained.tallied_lines,
        "gates": dg.MetadataValue.md(markdown_table(("", "gate", "expected", "found"), gates)),
        "of the services": dg.MetadataValue.md(
            markdown_table(
                ("service", "days", "lines", "kinds", "missing", "what"),
                [
                    (
                        *(one.service, f"{one.days:.1f}", f"{one.lines:,}", one.templates),
                        *(f"{one.missing_share:.1%}", "learning: only new errors count" if one.learning else ""),
                    )
                    for one in facts
                ],
            )
        ),
        "look": f"onecollector models show {manifest.model_id} --tenant {manifest.tenant}",
    }
    if evaluation.verdicts:
        out["examined"] = dg.MetadataValue.md(table(evaluation.verdicts))
        out["by class"] = dg.MetadataValue.md(details(evaluation.verdicts[0]))
        wanted = ("recall", "false_a_day", "median_delay_minutes", "service_days")
        out |= {
            name: value
            for name, value in figures(evaluation.verdicts[0]).items()
            if name in wanted and not isnan(value)
        }
        if find_spec("matplotlib"):
            picture = base64.b64encode(plot(evaluation.verdicts)).decode()
            out["picture"] = dg.MetadataValue.md(f"![recall against false findings](data:image/png;base64,{picture})")
    return out


train_models = dg.define_asset_job(
    "train_models",
    selection=dg.AssetSelection.assets(anomaly_models, production_models),
    partitions_def=TENANTS,
    executor_def=dg.in_process_executor,
    tags={"onecollector/plane": "models", "dagster/max_runtime": "21600"},
    description="A tenant's model: trained, examined, and into production where nothing has to be shadowed first.",
)

promote_models = dg.define_asset_job(
    "promote_models",
    selection=dg.AssetSelection.assets(production_models),
    partitions_def=TENANTS,
    executor_def=dg.in_process_executor,
    tags={"onecollector/plane": "models"},
    description="A candidate that was shadowed to its end, judged: it serves, or the run says why not.",
)

count_day = dg.define_asset_job(
    "count_day",
    selection=dg.AssetSelection.assets("log_templates", "minute_tallies"),
    executor_def=dg.in_process_executor,
    tags={"onecollector/plane": "models", "dagster/max_runtime": "21600"},
    description="A day's templates and minute tallies.",
)
