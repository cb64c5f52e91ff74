"""A config for 20 tenants and 1,000 sources: built and checked by rules and binary, once the binary's names are known."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bench.report import report
from onecollector.parts.locate import locate
from onecollector_resources.collector.builder import OtelConfigBuilder
from onecollector_resources.collector.names import component_names
from onecollector_resources.records import LogSource
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.runtime import Runtime, collector_environment
from onecollector_resources.settings import Settings, TenantSettings

TENANTS, SOURCES, ROUNDS = 20, 1_000, 7


def main() -> None:
    binary = locate("collector")
    if binary is None:
        raise SystemExit("the collector is missing; run: onecollector install collector")
    tenants = ["default", *(f"t{n}" for n in range(1, TENANTS))]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(state_dir=Path(folder), tenants={name: TenantSettings() for name in tenants})
        registry = LogSourceRegistry(settings.registry_url)
        registry.migrate()
        registry.sync_host(
            "h",
            [
                LogSource(
                    "h",
                    f"{n:064x}",
                    "container",
                    f"n{n}",
                    f"n{n}",
                    tenants[n % TENANTS],
                    f"s{n % 100}",
                    f"s{n % 100}",
                    "docker",
                    None,
                    "link",
                    "/x",
                    "collecting",
                )
                for n in range(SOURCES)
            ],
            actor="bench",
        )
        names = component_names(binary)
        # What `up` would give the binary, so that the check is the one of a real host.
        runtime = Runtime(
            "http://127.0.0.1:3100", 3100, 9095, 7610, 13133, 8888, 3000, 4000, "", folder, "", str(binary), "", 1
        )
        environment = collector_environment(settings.layout, runtime, host="h", environment="bench")
        built, checked = [], []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            builder = OtelConfigBuilder(settings, names)
            builder.load_registry_state(registry)
            config = builder.generate_config(binary, environment)
            middle = time.perf_counter()
            findings = builder.validate_config(config.text, binary, environment)
            assert not findings, findings
            built.append(middle - began)
            checked.append(time.perf_counter() - began)
    report(
        "config",
        [
            {
                "what": f"config for {TENANTS} tenants and {SOURCES:,} sources, built and checked, median of {ROUNDS}",
                "value": round(statistics.median(checked), 3),
                "unit": "s",
                "reach": 0.5,
                "better": "lower",
            },
            {
                "what": "of that, built",
                "value": round(statistics.median(built), 3),
                "unit": "s",
                "reach": None,
                "better": "lower",
            },
        ],
    )


if __name__ == "__main__":
    main()
