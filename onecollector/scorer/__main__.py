"""``python -m onecollector.scorer``: looks at every minute of every service while models are enabled."""

from __future__ import annotations

import signal
import sys

import structlog

from ml.budgets import budgets_of
from ml.model_store import ModelStore
from ml.redaction import redacted
from ml.templates import tuned_miner
from onecollector.scorer.reader import LokiLines
from onecollector.scorer.service import ScorerService
from onecollector.scorer.sight import RegistrySight
from onecollector.scorer.state import ScorerState
from onecollector.scorer.tenant import TenantScorer
from onecollector.scorer.tenant_status import Options
from onecollector_resources.findings.opening import finding_store, senders_of
from onecollector_resources.program_log import log_to_stderr
from onecollector_resources.registry.store import LogSourceRegistry, RegistryError
from onecollector_resources.runtime import RuntimeMissing, load_runtime
from onecollector_resources.settings import Settings, SettingsError, load_settings
from onecollector_resources.storage.objects import StoreError
from onecollector_resources.storage.opening import model_store


def service_of(settings: Settings, loki_url: str) -> ScorerService:
    """Everything as the settings have it. Raises SettingsError, StoreError, RegistryError."""
    models, layout = settings.models, settings.layout
    registry = LogSourceRegistry(settings.registry_url)
    registry.migrate()
    objects = model_store(settings)
    ledger = finding_store(settings)
    budgets = budgets_of(models.alert_budget, models.services)
    options = Options(models.grace_s, budgets, models.findings_per_hour, round(models.shadow_hours * 60))
    scorers = [
        TenantScorer(
            tenant,
            LokiLines(settings.loki.access(loki_url, tenant), ours=settings.loki.url is None),
            ModelStore(objects, tenant),
            ledger,
            RegistrySight(registry),
            ScorerState(layout.scorer / "tenants" / tenant),
            options,
            lambda: tuned_miner(models.services),
            redacted,
        )
        for tenant in settings.tenants
    ]
    return ScorerService(layout, scorers, ledger, senders_of(settings, loki_url))


def main() -> int:
    """Exit code 2 where there is nothing to run with."""
    log_to_stderr()
    try:
        settings = load_settings()
        runtime = load_runtime(settings.layout)
        service = service_of(settings, runtime.loki_url)
    except (SettingsError, RuntimeMissing, StoreError, RegistryError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    structlog.get_logger().info("scorer.ready", tenants=list(settings.tenants))
    service.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
