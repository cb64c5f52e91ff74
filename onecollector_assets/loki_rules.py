"""``loki_rules``: default alert rules for every service of every tenant, written to the ruler as a difference."""

import time

import dagster as dg

from onecollector_assets.presentation import markdown_table
from onecollector_assets.rollout import collector_rollout
from onecollector_assets.sources import MARK
from onecollector_resources.alerting.rules import AlertGenerator, rules_to_change
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.loki.querier import LokiError
from onecollector_resources.registry.store import CONCERNS


def services_by_tenant(onecollector: OneCollectorResource) -> dict[str, set[str]]:
    """Services that are or were collected lately, by tenant; every tenant of the list is there."""
    found: dict[str, set[str]] = {tenant: set() for tenant in onecollector.settings().tenants}
    for source in onecollector.registry().lookup_sources():
        if source.tenant in found and source.phase not in ("waiting", "uncollectable"):
            found[source.tenant].add(source.service)
    return found


@dg.asset(
    deps=[collector_rollout],
    group_name="collection",
    description="Alert rules that every service has for free: error burst, gone silent. In Loki's ruler, namespace onecollector.",
    kinds={"loki"},
    owners=["team:platform"],
)
def loki_rules(context: dg.AssetExecutionContext, onecollector: OneCollectorResource) -> dg.MaterializeResult:
    began = time.monotonic()
    settings, registry = onecollector.settings(), onecollector.registry()
    revision = registry.revision(CONCERNS)
    generator = AlertGenerator(settings.rules)
    counts = {"create": 0, "update": 0, "delete": 0, "same": 0}
    changed, refused = [], []
    for tenant, services in sorted(services_by_tenant(onecollector).items()):
        wanted = generator.generate_alert_thresholds(services) if settings.rules.enabled else {}
        with onecollector.ruler(tenant) as ruler:
            changes = rules_to_change(wanted, ruler.list_alert_rules())
            counts["same"] += len(changes.same)
            for name in (*changes.create, *changes.update):
                try:
                    ruler.create_log_alert_rule(wanted[name])
                except LokiError as error:
                    if error.status is None or error.status >= 500:
                        raise
                    # One service's impossible rule must not keep the others from theirs.
                    refused.append((tenant, name, str(error)))
                    continue
                word = "create" if name in changes.create else "update"
                counts[word] += 1
                changed.append((tenant, name, f"{word}d"))
            for name in changes.delete:
                ruler.delete_alert_rule(name)
                counts["delete"] += 1
                changed.append((tenant, name, "deleted"))
    # The last asset of the reconcile: everything up to the revision at the run's start is taken in.
    if revision > registry.get_mark(MARK):
        registry.set_mark(MARK, min(revision, _run_revision(context, revision)))
    context.log.info("rules: %s", counts)
    return dg.MaterializeResult(
        metadata={
            **counts,
            "groups": counts["create"] + counts["update"] + counts["same"],
            "changed": dg.MetadataValue.md(markdown_table(("tenant", "group", "what"), changed)),
            "refused": dg.MetadataValue.md(markdown_table(("tenant", "group", "why"), refused)),
            "look": "lokitool rules list, or Grafana → Alerting",
            "seconds": round(time.monotonic() - began, 3),
        }
    )


def _run_revision(context: dg.AssetExecutionContext, newest: int) -> int:
    """The revision that this run's log_sources read: what came later is for the next run."""
    event = context.instance.get_latest_materialization_event(dg.AssetKey("log_sources"))
    if event is None or event.run_id != context.run.run_id or event.asset_materialization is None:
        return newest
    value = event.asset_materialization.metadata.get("revision")
    return int(value.value) if value is not None else newest  # pyright: ignore[reportArgumentType]


@dg.asset_check(
    asset=loki_rules,
    blocking=False,
    description="The ruler holds the rules and evaluates them without an error. It evaluates on its own clock: new ones wait.",
)
def rules_are_live(onecollector: OneCollectorResource) -> dg.AssetCheckResult:
    waiting, broken, live = [], [], 0
    for tenant, services in sorted(services_by_tenant(onecollector).items()):
        if not services:
            continue
        with onecollector.ruler(tenant) as ruler:
            states = ruler.rule_states()
            held = set(ruler.list_alert_rules())
        for service in sorted(services):
            if service not in held:
                broken.append((tenant, service, "not in the ruler"))
            for name in ("ErrorBurst", "GoneSilent"):
                state = states.get((service, name))
                if state is None or state.get("health") == "unknown":
                    waiting.append((tenant, service, name))
                elif state.get("health") == "err":
                    broken.append((tenant, service, f"{name}: {state.get('lastError', '')}"))
                else:
                    live += 1
    return dg.AssetCheckResult(
        passed=not broken,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{live} rules are live, {len(waiting)} wait for their first evaluation, {len(broken)} are broken",
        metadata={
            "broken": dg.MetadataValue.md(markdown_table(("tenant", "service", "why"), broken)),
            "live": live,
            "waiting": len(waiting),
        },
    )
