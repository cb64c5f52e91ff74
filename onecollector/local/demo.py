"""`demo`: the main job before one's eyes, with the times that were measured and nothing that was not seen.

Three containers, one of which lives a tenth of a second; without an engine three processes that write log files instead.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from onecollector.local.engine import connect, import_demo_image
from onecollector.local.stack import up
from onecollector.local.supervisor import MARK
from onecollector_resources.loki.querier import LokiError, LokiQuerierClient
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.settings import Settings

ASSETS = ("log_sources", "collector_config", "collector_rollout", "loki_rules")
CHECKS = {
    "config_is_valid": "collector_config",
    "pipeline_delivers": "collector_rollout",
    "rules_are_live": "loki_rules",
}
"""Each check with its asset."""

LIVES = (
    ("web", 'i=0; while [ $i -lt 600 ]; do echo "GET /cart/$i 200 in 12 ms"; i=$((i+1)); sleep 1; done'),
    (
        "payments",
        'i=0; while [ $i -lt 600 ]; do echo "INFO charge $i ok"; [ $((i % 7)) = 6 ] && echo "ERROR card declined: $i"; i=$((i+1)); sleep 1; done',
    ),
    ("blink", "echo 'here and gone'"),
)
WAIT_LINE_S, WAIT_ASSETS_S, WAIT_CHECKS_S = 90.0, 180.0, 90.0


@dataclass
class Started:
    """A demo container: ``began`` just before it was started, ``lived`` its seconds where it has ended."""

    service: str
    name: str
    began: float
    lived: float | None = None


def run_demo(settings: Settings, command: str) -> int:
    """Run it; 0 only when every line and asset was seen."""
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    row(out, "real parts", _parts_line(settings))
    result = up(settings)
    seconds = sorted(result.seconds.items(), key=lambda pair: pair[1])
    row(
        out, "stack", "  ".join(f"{part} ✓ {taken:.1f}s" for part, taken in seconds) + f"   up in {result.total_s:.1f}s"
    )
    note = "tenant default"
    if result.runtime.docker_host:
        started = start_containers(result.runtime.docker_host, out)
    else:
        row(out, "docker", f"{result.engine}: three processes that write log files instead")
        settings, started = start_processes(settings, out)
        note = "with the rollout of a pipeline for plain files"
    ok = show_lines(settings, result.runtime.loki_url, started, note, out)
    ok = show_assets(settings, started, out) and ok
    out.print()
    row(
        out,
        "Look",
        f"Dagster  {result.runtime.dagster_url}/locations/control/asset-groups/collection     lineage, configs, checks",
    )
    row(out, "Ask", f'{command} query \'{{service_name="payments"}} |= "ERROR"\' --since 5m')
    if result.runtime.docker_host:
        row(
            out,
            "Try",
            f'eval "$({command} env)" && docker run -d --network none -l onecollector.io/service=hello onecollector-demo /bin/sh -c "echo hello; sleep 60"',
        )
    row(out, "Prove", f"{command} prove")
    row(out, "Stop", f"{command} down")
    return 0 if ok else 1


def row(out: Console, head: str, text: str) -> None:
    """One line of the demo: never folded, so that commands can be pasted."""
    out.print(Text(f"{head:<16}{text}"), soft_wrap=True)


def _parts_line(settings: Settings) -> str:
    from onecollector.parts.install import install
    from onecollector.parts.pins import system_pins

    wanted = ["collector"] if settings.loki.url else ["loki", "collector"]
    if settings.docker.enabled and settings.docker.own_engine != "never":
        wanted += ["docker", "busybox"]
    words = []
    for result in install(wanted):
        state = {
            "there": "there" if result.part in system_pins() else "cached",
            "fetched": f"fetched in {result.seconds:.0f}s",
            "built": f"built in {result.seconds:.0f}s",
            "installed": "installed",
        }
        said = f"✓ {state[result.state]}" if result.path else f"✗ {result.reason}"
        words.append(" ".join(filter(None, (result.part, result.version, said))))
    return "   ".join(words)


def start_containers(address: str, out: Console) -> list[Started]:
    """Start the three; the last one removes itself."""
    import docker
    import docker.errors

    api = connect(address)
    import_demo_image(api)
    api.close()
    client = docker.DockerClient(base_url=address)
    started = []
    for service, script in LIVES:
        name = f"{service}-{uuid.uuid4().hex[:4]}"
        began = time.time()
        container: Any = None
        with contextlib.suppress(docker.errors.NotFound):
            # --rm: it may be gone before the library asks for it, which is the point of it.
            container = client.containers.run(
                "onecollector-demo:latest",
                ["/bin/sh", "-c", script],
                detach=True,
                network_mode="none",
                name=name,
                remove=service == "blink",
                labels={"onecollector.io/service": service},
            )
        one = Started(service, name, began)
        if service == "blink":
            with contextlib.suppress(docker.errors.APIError):
                if container is not None:
                    container.wait()
            one.lived = time.time() - began
        started.append(one)
    words = [
        f"{s.name} started" + (f" and gone ({s.lived:.2f} s with start and end)" if s.lived is not None else "")
        for s in started
    ]
    row(out, "containers", "   ".join(words))
    client.close()
    return started


def start_processes(settings: Settings, out: Console) -> tuple[Settings, list[Started]]:
    """Without an engine: three processes that write files which the settings declare."""
    folder = settings.layout.root / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    declared = [f for f in settings.files if f.glob.startswith(str(folder))]
    if not declared:
        config = settings.layout.root / "demo.yaml"
        data = settings.model_dump(mode="json", exclude_defaults=True)
        data["files"] = [
            *data.get("files", []),
            {"glob": f"{folder}/*.log", "service_from": r"/(?P<service>[a-z]+)-[^/]*\.log$"},
        ]
        data["state_dir"] = str(settings.layout.root)
        config.write_text(yaml.safe_dump(data), encoding="utf-8")
        os.environ["ONECOLLECTOR_CONFIG"] = str(config)
        from onecollector_resources.settings import load_settings

        settings = load_settings(config)
        up(settings)
    started = []
    for service, script in LIVES:
        name = f"{service}-{uuid.uuid4().hex[:4]}"
        began = time.time()
        with (folder / f"{name}.log").open("ab") as file:
            # Marked as ours, so that `down` ends them too.
            environment = {**os.environ, MARK: str(settings.layout.root)}
            subprocess.Popen(
                ["/bin/sh", "-c", script], stdout=file, stderr=file, start_new_session=True, env=environment
            )
        started.append(Started(service, name, began))
    row(out, "processes", "   ".join(f"{s.name} started" for s in started))
    return settings, started


def poll(what: Callable[[], Any], deadline_s: float, every_s: float = 0.05) -> Any:
    """The first truthy answer, or None at the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        value = what()
        if value:
            return value
        time.sleep(every_s)
    return None


def show_lines(settings: Settings, loki_url: str, started: list[Started], note: str, out: Console) -> bool:
    """Wait until a line of each is queryable; says after how many seconds."""
    waiting = {one.name: one for one in started}
    seen: dict[str, float] = {}

    with LokiQuerierClient(settings.loki.access(loki_url, "default")) as loki:

        def look() -> bool:
            for name, one in list(waiting.items()):
                query = f'{{service_name="{one.service}"}}'
                since = int((one.began - 2) * 1e9)
                try:
                    entries = loki.entries(query, since, time.time_ns() + 5 * 10**9, 1000)
                except LokiError:
                    continue
                if any(name in (e.metadata.get("container_name") or "") for e in entries):
                    seen[name] = time.time() - one.began
                    del waiting[name]
            return not waiting

        poll(look, WAIT_LINE_S)
    words = [
        f"{one.service} {seen[one.name]:.2f}s" if one.name in seen else f"{one.service} NOT SEEN" for one in started
    ]
    row(out, "in Loki", "   ".join(words) + f"      (from start to queryable; {note})")
    return not waiting


def show_assets(settings: Settings, started: list[Started], out: Console) -> bool:
    """Wait until a reconcile has taken in all three, and say what it did."""
    os.environ["DAGSTER_HOME"] = str(settings.layout.dagster_home)
    import logging

    logging.getLogger("dagster").setLevel(logging.ERROR)
    import dagster as dg

    last = max(one.began for one in started)
    with dg.DagsterInstance.get() as instance:

        def event(asset: str) -> Any:
            found = instance.get_latest_materialization_event(dg.AssetKey(asset))
            return found if found is not None and found.timestamp > last else None

        def taken_in() -> bool:
            registry = LogSourceRegistry(settings.registry_url)
            known = {
                source.name.rsplit("/", 1)[-1].removesuffix(".log"): source.service
                for source in registry.lookup_sources()
            }
            for one in started:
                service = known.get(one.name)
                if service is None:
                    return False
                records = instance.fetch_materializations(
                    dg.AssetRecordsFilter(asset_key=dg.AssetKey("log_sources"), asset_partitions=[str(service)]),
                    limit=1,
                ).records
                if not records or records[0].timestamp < one.began:
                    return False
            return all(event(asset) for asset in ASSETS)

        done = poll(taken_in, WAIT_ASSETS_S, 0.2)
        took = time.time() - last
        words = []
        for asset in ASSETS:
            found = event(asset)
            if found is None:
                words.append(f"{asset} NOT SEEN")
                continue
            values = {key: value.value for key, value in found.asset_materialization.metadata.items()}
            said = {
                "log_sources": f"{values.get('sources', '?')} sources",
                "collector_config": f"{values.get('state', '?')} {str(values.get('hash', '?'))[:4]}",
                "collector_rollout": str(values.get("state", "?")),
                "loki_rules": f"{values.get('groups', '?')} groups",
            }[asset]
            words.append(f"{asset} ✓ {said}")
        row(out, "in Dagster", "  ".join(words) + (f"   {took:.1f}s" if done else ""))
        checked = poll(lambda: all(_evaluation(instance, check, last) for check in CHECKS), WAIT_CHECKS_S, 0.2)
        row(out, "checks", "   ".join(_check_word(check, _evaluation(instance, check, last)) for check in CHECKS))
    return bool(done and checked)


def _evaluation(instance: Any, check: str, since: float) -> Any:
    """What a check said last, if that was after ``since`` (epoch seconds); else None."""
    import dagster as dg

    key = dg.AssetCheckKey(dg.AssetKey(CHECKS[check]), check)
    found = instance.event_log_storage.get_asset_check_execution_history(check_key=key, limit=10)
    # The newest may be of a run that has planned it and not come to it yet.
    events = [record.event for record in found if record.event is not None and record.event.timestamp > since]
    data = [event.dagster_event.event_specific_data for event in events]
    return next((one for one in data if hasattr(one, "passed")), None)


def _check_word(check: str, evaluation: Any) -> str:
    if evaluation is None:
        return f"{check} NOT SEEN"
    return f"{check} {'✓' if evaluation.passed else '✗'} {evaluation.description or ''}".strip()
