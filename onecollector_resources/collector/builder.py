"""The collector's config, built from frozen inputs: byte-identical for equal input, the same for all hosts of a class.

Per tenant one receiver for each pipeline in use, one queue and one exporter: behind a shared receiver a tenant that Loki
refuses stops all others. Containers do not occur in it at all, so they never change it. Host names and addresses come
from the environment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from onecollector_resources.collector.in_force import poll_interval_of
from onecollector_resources.collector.leaving import Leaving, leaving_tenants
from onecollector_resources.collector.login import Ask, asks_of, login_of
from onecollector_resources.collector.names import ComponentNames
from onecollector_resources.collector.profiles import FRAMINGS, MAX_LINE, UNPARSED, operators
from onecollector_resources.collector.rules import check_rules
from onecollector_resources.collector.severity import severity_groups
from onecollector_resources.records import CollectorConfig, Finding, LogSource, Quarantined
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.settings import MultilineRule, Settings

AGENT_CLASS = "default"

TREES = ("${env:OC_DOCKER_LINKS}", "${env:OC_FILE_LINKS}")

POLL_CLASSES = ((300, 200), (1_000, 500), (None, 1_000))
"""Up to so many live links, poll every so many ms: the cost of idle files grows faster than their number."""

HYSTERESIS = 0.8
"""A class is left downwards only below this share of its border: a change of class is a reload."""

BATCH_BYTES = 1_500_000
"""Largest request to Loki: under its 4 MiB message limit with room for framing."""


@dataclass(frozen=True, slots=True)
class BuilderInputs:
    """All that a config depends on. ``pipelines`` are (tenant, pipeline) pairs, ``queue_mib`` is by tenant, ``asks`` is what
    Loki asks of those who push.
    """

    pipelines: tuple[tuple[str, str], ...]
    queue_mib: tuple[tuple[str, int], ...]
    multiline: tuple[tuple[str, MultilineRule], ...]
    poll_ms: int
    memory_mib: int
    horizon_s: float
    agent_class: str = AGENT_CLASS
    asks: tuple[Ask, ...] = ()


def poll_interval_ms(live: int, current: int | None = None) -> int:
    """Poll interval for so many live links, with hysteresis around the one in force."""
    wanted = next(ms for most, ms in POLL_CLASSES if most is None or live <= most)
    if current is not None and wanted < current:
        border = next((most for most, ms in POLL_CLASSES if ms == wanted and most is not None), None)
        if border is not None and live > border * HYSTERESIS:
            return current
    return wanted


def pipelines_in_use(sources: Iterable[LogSource], settings: Settings) -> tuple[tuple[str, str], ...]:
    """Docker for every tenant of the list, so that its first container reloads nothing, and what live sources need.

    A tenant that is not on the list never ships; an unknown multiline rule was dropped when the source was identified.
    """
    pairs = {(tenant, "docker") for tenant in settings.tenants}
    for source in sources:
        if source.tenant in settings.tenants and source.phase in ("waiting", "collecting", "finished"):
            profile = "docker" if source.mode == "spool" and source.profile != "cri" else source.profile
            if profile in FRAMINGS and (source.multiline is None or source.multiline in settings.multiline):
                pairs.add((source.tenant, replace(source, profile=profile).pipeline))
    for declared in settings.files:
        suffix = f"+{declared.multiline}" if declared.multiline else ""
        pairs.add((declared.tenant, f"{declared.profile}{suffix}"))
        # A plain file whose head ties is spooled, and spools are framed like Docker's.
        pairs.add((declared.tenant, f"docker{suffix}"))
    return tuple(sorted(pairs))


def share_queues(wanted: Mapping[str, int], total_mib: int) -> tuple[tuple[str, int], ...]:
    """Queue sizes in MiB under the host-wide limit: scaled down alike, at least 8 each."""
    least = 8
    asked = sum(wanted.values())
    if asked <= total_mib:
        return tuple(sorted(wanted.items()))
    # Everybody gets the least, the rest is shared in proportion to what was asked.
    rest = max(0, total_mib - least * len(wanted))
    return tuple(sorted((tenant, least + int(rest * size / asked)) for tenant, size in wanted.items()))


class OTelCollectorAgent:
    """The pieces of the rendered pipeline, one method each."""

    def __init__(self, names: ComponentNames) -> None:
        self.names = names

    def filelog_receiver(
        self,
        include_patterns: Sequence[str],
        profile: str = "docker",
        rule: MultilineRule | None = None,
        poll_ms: int = 200,
    ) -> dict[str, Any]:
        """A reader of files. ``retry_on_failure`` without end: what the queue refuses is read again, not dropped."""
        return {
            "include": list(include_patterns),
            "start_at": "beginning",
            "include_file_path": True,
            "include_file_name": False,
            "include_file_record_number": True,
            "poll_interval": f"{poll_ms}ms",
            # Docker's JSON of a line of MAX_LINE may be six times as long (\u00XX).
            "max_log_size": 2 * MAX_LINE,
            "max_concurrent_files": 1024,
            "storage": f"{self.names['file_storage']}/offsets",
            "retry_on_failure": {
                "enabled": True,
                "initial_interval": "500ms",
                "max_interval": "10s",
                "max_elapsed_time": "0s",
            },
            "operators": operators(profile, rule),
        }

    def resource_processor(self) -> list[str]:
        """Statements that set what is the same for all lines of a host."""
        return [
            'set(resource.attributes["host.name"], "${env:OC_HOST}")',
            'set(resource.attributes["deployment.environment.name"], "${env:OC_ENV}")',
            'set(resource.attributes["service.name"], "unknown") where resource.attributes["service.name"] == nil',
        ]

    def attributes_processor(self, mapping_rules: Sequence[str] = ()) -> dict[str, Any]:
        """One transform: body, time, severity, resource, and a tenant's own statements after them."""
        body_and_time = [
            'set(log.body, TrimSuffix(log.body, "\\n")) where IsString(log.body)',
            "set(log.time, log.observed_time) where log.time_unix_nano == 0",
            # Else every line carries it: storage, and a line that is read twice after a crash is two lines.
            "set(log.observed_time_unix_nano, 0)",
            'delete_key(log.attributes, "log.segment") where log.attributes["log.segment"] == ""',
        ]
        unparsed = [
            'set(log.attributes["onecollector.unparsed"], "true")',
            'delete_key(log.attributes, "log.iostream")',
        ]
        groups: list[dict[str, Any]] = [
            {"context": "resource", "statements": self.resource_processor()},
            {"context": "log", "statements": body_and_time},
            {
                "context": "log",
                "conditions": [f'log.attributes["log.iostream"] == "{UNPARSED}"'],
                "statements": unparsed,
            },
            *severity_groups(),
        ]
        if mapping_rules:
            groups.append({"context": "log", "statements": list(mapping_rules)})
        return {"error_mode": "ignore", "log_statements": groups}

    def batch_processor(self, size: int = 524_288, timeout: str = "200ms") -> dict[str, Any]:
        """Batching, rendered as the exporter's ``sending_queue.batch``.

        The processor of that name swallows errors and holds lines in memory that a kill would lose.
        """
        return {"flush_timeout": timeout, "min_size": size, "max_size": BATCH_BYTES}

    def loki_exporter(
        self, endpoint: str, tenant: str = "default", queue_mib: int = 256, asks: Sequence[Ask] = ()
    ) -> dict[str, Any]:
        """OTLP to Loki, rendered as ``otlp_http``: there is no Loki exporter any more. The queue is on disk."""
        headers, tls = login_of(asks)
        return {
            "endpoint": endpoint,
            "headers": {"X-Scope-OrgID": tenant, **headers},
            **tls,
            # The usual level costs a tenth of the collector's whole work, for a fifth fewer bytes.
            "compression": "gzip",
            "compression_params": {"level": 1},
            "retry_on_failure": {
                "enabled": True,
                "initial_interval": "500ms",
                "max_interval": "5s",
                "max_elapsed_time": "0s",
            },
            "sending_queue": {
                "storage": f"{self.names['file_storage']}/queue",
                "sizer": "bytes",
                "queue_size": queue_mib << 20,
                "block_on_overflow": True,
                # One batch at a time: two pushes to one stream that overlap can reach Loki's write-ahead log in the other
                # order, and then its replay after a kill takes the one with the lower count for known and drops it.
                "num_consumers": 1,
                "batch": self.batch_processor(),
            },
        }


def build_mapping(inputs: BuilderInputs, names: ComponentNames) -> dict[str, Any]:
    """The config as data."""
    agent = OTelCollectorAgent(names)
    storage, limiter, transform = names["file_storage"], names["memory_limiter"], names["transform"]
    rules, queues = dict(inputs.multiline), dict(inputs.queue_mib)
    receivers: dict[str, Any] = {}
    by_tenant: dict[str, list[str]] = {tenant: [] for tenant in queues}
    for tenant, pipeline in inputs.pipelines:
        profile, _, rule = pipeline.partition("+")
        name = f"{names['file_log']}/{pipeline.replace('+', '_')}.{tenant}"
        include = [f"{tree}/{tenant}/{pipeline}/*/*.log" for tree in TREES]
        receivers[name] = agent.filelog_receiver(include, profile, rules[rule] if rule else None, inputs.poll_ms)
        by_tenant[tenant].append(name)
    processors: dict[str, Any] = {
        limiter: {"check_interval": "1s", "limit_mib": inputs.memory_mib, "spike_limit_mib": inputs.memory_mib // 5},
        f"{transform}/lines": agent.attributes_processor(),
    }
    chain = [limiter]
    if inputs.horizon_s > 0:
        # What was written long before the host joined; the agent records it as a gap.
        processors[f"{names['filter']}/horizon"] = {
            "error_mode": "ignore",
            "logs": {
                "log_record": ["log.time_unix_nano > 0 and log.time_unix_nano < ${env:OC_BACKFILL_FROM_NS}"],
            },
        }
        chain.append(f"{names['filter']}/horizon")
    chain.append(f"{transform}/lines")
    exporters = {
        f"{names['otlp_http']}/{tenant}": agent.loki_exporter("${env:OC_LOKI_URL}/otlp", tenant, mib, inputs.asks)
        for tenant, mib in queues.items()
    }
    stores = [f"{storage}/offsets", f"{storage}/queue"]
    extensions: dict[str, Any] = {
        store: {
            "directory": f"${{env:OC_STATE}}/{store.split('/')[1]}",
            "create_directory": True,
            "timeout": "5s",
            "recreate": True,
        }
        for store in stores
    }
    extensions[names["health_check"]] = {"endpoint": "${env:OC_HEALTH_ENDPOINT}"}
    reader = {
        "pull": {"exporter": {"prometheus": {"host": "${env:OC_METRICS_HOST}", "port": "${env:OC_METRICS_PORT}"}}}
    }
    return {
        "extensions": extensions,
        "receivers": receivers,
        "processors": processors,
        "exporters": exporters,
        "service": {
            "extensions": [names["health_check"], *stores],
            "telemetry": {
                "logs": {"level": "info", "encoding": "json"},
                "metrics": {"level": "normal", "readers": [reader]},
            },
            "pipelines": {
                f"logs/{tenant}": {
                    "receivers": by_tenant[tenant],
                    "processors": chain,
                    "exporters": [f"{names['otlp_http']}/{tenant}"],
                }
                for tenant in queues
                if by_tenant[tenant]
            },
        },
    }


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def render_yaml(config: Mapping[str, Any]) -> str:
    """YAML with sorted keys and without anchors."""
    return yaml.dump(dict(config), Dumper=_Plain, sort_keys=True, width=1_000_000, allow_unicode=True)


def config_hash(text: str) -> str:
    """16 hex digits of the text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build_config(
    inputs: BuilderInputs, names: ComponentNames, quarantined: Sequence[Quarantined] = ()
) -> CollectorConfig:
    """The whole config. Pure."""
    text = render_yaml(build_mapping(inputs, names))
    rules = [(name, rule.model_dump()) for name, rule in inputs.multiline]
    sizes = (inputs.poll_ms, inputs.memory_mib, inputs.horizon_s)
    described = [inputs.pipelines, inputs.queue_mib, rules, *sizes, names.chosen, *inputs.asks]
    depends = config_hash(json.dumps(described, sort_keys=True))
    return CollectorConfig(config_hash(text), text, inputs.agent_class, depends, inputs.pipelines, tuple(quarantined))


class OtelConfigBuilder:
    """Builds the config of a class of hosts from settings and the registry's state."""

    def __init__(self, settings: Settings, names: ComponentNames | None = None) -> None:
        self.settings = settings
        self.names = names or ComponentNames()
        self._sources: tuple[LogSource, ...] = ()
        self._current_poll: int | None = None
        self.leaving: tuple[Leaving, ...] = ()
        """Tenants off the list whose pipelines stay until their queues are empty."""

    def load_registry_state(self, registry: LogSourceRegistry) -> int:
        """Read the sources, and the poll class in force; answers how many sources count. Raises RegistryError."""
        self._sources = tuple(s for s in registry.lookup_sources() if s.phase not in ("gone", "uncollectable"))
        live = registry.live_config(AGENT_CLASS)
        self._current_poll = poll_interval_of(live.config.text) if live is not None else None
        self.leaving = leaving_tenants(registry, self.settings.tenants, AGENT_CLASS)
        return len(self._sources)

    def inputs(self) -> BuilderInputs:
        """What the config depends on, now."""
        live = sum(1 for source in self._sources if source.phase in ("collecting", "finished"))
        settings = self.settings
        staying = {(one.tenant, pipeline) for one in self.leaving for pipeline in one.pipelines}
        # A rule that went with its tenant cannot be rendered any more; the queue needs any one pipeline.
        kept = {(t, p if p.partition("+")[2] in {"", *settings.multiline} else p.partition("+")[0]) for t, p in staying}
        pipelines = tuple(sorted({*pipelines_in_use(self._sources, settings), *kept}))
        used = {pipeline.partition("+")[2] for _, pipeline in pipelines} - {""}
        return BuilderInputs(
            pipelines=pipelines,
            queue_mib=share_queues(
                {t: s.queue_mib for t, s in settings.tenants.items()} | {o.tenant: o.queue_mib for o in self.leaving},
                settings.collector.queue_total_mib,
            ),
            multiline=tuple(sorted((name, settings.multiline[name]) for name in used)),
            poll_ms=settings.collector.poll_interval_ms or poll_interval_ms(live, self._current_poll),
            memory_mib=settings.collector.memory_limit_mib,
            horizon_s=settings.agent.backfill_horizon_s,
            asks=asks_of(settings.loki),
        )

    def generate_log_pipeline(self, tenant: str, pipeline: str = "docker") -> dict[str, Any]:
        """The fragment of one tenant and pipeline: a whole small config, so that it can be checked alone."""
        rule = pipeline.partition("+")[2]
        whole = self.inputs()
        alone = replace(
            whole,
            pipelines=((tenant, pipeline),),
            queue_mib=((tenant, dict(whole.queue_mib).get(tenant, 8)),),
            multiline=((rule, self.settings.multiline[rule]),) if rule else (),
        )
        return build_mapping(alone, self.names)

    def generate_config(
        self, binary: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> CollectorConfig:
        """The whole config. With a binary, fragments with rules of the user's are checked alone; a bad one is left out."""
        inputs = self.inputs()
        if binary is None:
            return build_config(inputs, self.names)
        bad: dict[str, str] = {}
        for rule, _ in inputs.multiline:
            pair = next(pair for pair in inputs.pipelines if pair[1].partition("+")[2] == rule)
            text = render_yaml(self.generate_log_pipeline(*pair))
            errors = [f for f in self.validate_config(text, binary, environment) if f.level == "error"]
            if errors:
                bad[rule] = f"multiline.{rule}: {errors[0].message}"
        kept = tuple(pair for pair in inputs.pipelines if pair[1].partition("+")[2] not in bad)
        left_out = [
            Quarantined(tenant, pipeline, bad[pipeline.partition("+")[2]])
            for tenant, pipeline in inputs.pipelines
            if (tenant, pipeline) not in kept
        ]
        rules = tuple(pair for pair in inputs.multiline if pair[0] not in bad)
        return build_config(replace(inputs, pipelines=kept, multiline=rules), self.names, left_out)

    @staticmethod
    def render_yaml(config: Mapping[str, Any]) -> str:
        """YAML with sorted keys and without anchors."""
        return render_yaml(config)

    def validate_config(
        self, text: str, binary: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> tuple[Finding, ...]:
        """Our rules, then, where they find no error, the binary itself. Raises CollectorBinaryError."""
        from onecollector_resources.collector.validate import validate_with_binary

        found = check_rules(text)
        if binary is None or any(finding.level == "error" for finding in found):
            return found
        return (*found, *validate_with_binary(text, binary, environment))
