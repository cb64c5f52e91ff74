"""Thin Dagster resources that hand out the clients of this package; the only module here that knows Dagster."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import Field

from onecollector_resources.collector.builder import OtelConfigBuilder
from onecollector_resources.collector.manager import AgentManager
from onecollector_resources.collector.names import component_names
from onecollector_resources.collector.transports.local_http import LocalHttpTransport
from onecollector_resources.findings.opening import finding_store
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.health.monitor import HealthMonitor
from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.loki.ruler import LokiRulerClient
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.runtime import Runtime, collector_environment, load_runtime
from onecollector_resources.settings import Settings, load_settings


class OneCollectorResource(dg.ConfigurableResource):
    """All clients of one state folder. They are made when asked for, so a location loads where nothing runs."""

    config_file: str | None = Field(
        default=None, description="Settings file; empty: $ONECOLLECTOR_CONFIG and the usual places."
    )

    def settings(self) -> Settings:
        """Raises SettingsError."""
        return load_settings(Path(self.config_file) if self.config_file else None)

    def runtime(self) -> Runtime:
        """Raises RuntimeMissing where `onecollector up` never ran."""
        return load_runtime(self.settings().layout)

    def registry(self) -> LogSourceRegistry:
        """Raises SettingsError."""
        return LogSourceRegistry(self.settings().registry_url)

    def findings(self) -> FindingStore:
        """Raises SettingsError."""
        return finding_store(self.settings())

    def builder(self) -> OtelConfigBuilder:
        """A builder with the names of the deployed binary. Raises RuntimeMissing, CollectorBinaryError."""
        return OtelConfigBuilder(self.settings(), component_names(Path(self.runtime().collector_binary)))

    def collector_environment(self) -> dict[str, str]:
        """The environment that the collector runs with, without secrets: nothing here sends lines."""
        settings = self.settings()
        return collector_environment(
            settings.layout,
            self.runtime(),
            host=settings.agent.host_name,
            environment=settings.environment,
            loki=settings.loki,
        )

    def transport(self) -> LocalHttpTransport:
        """The agent. Raises TransportError."""
        return LocalHttpTransport.of(self.settings().layout, self.runtime())

    def loki(self, tenant: str) -> LokiQuerierClient:
        """A tenant's view of Loki."""
        return LokiQuerierClient(self.settings().loki.access(self.runtime().loki_url, tenant))

    def ruler(self, tenant: str) -> LokiRulerClient:
        """A tenant's rules."""
        return LokiRulerClient(self.settings().loki.access(self.runtime().loki_url, tenant))

    def manager(self) -> AgentManager:
        """Raises TransportError."""
        return AgentManager(self.transport(), self.loki, confirm_within_s=self.settings().agent.confirm_within_s)

    def monitor(self) -> HealthMonitor:
        """Raises TransportError."""
        return HealthMonitor(self.settings().loki.access(self.runtime().loki_url, "default"), self.manager())
