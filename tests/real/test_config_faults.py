"""No bad config stays live: refused by the binary, unable to start, delivering nothing; and the world is not the config."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.stack import Stack, private_stack, unique, wait_until
from onecollector_resources.collector.builder import config_hash, render_yaml
from onecollector_resources.collector.manager import AgentManager, PushResult
from onecollector_resources.collector.transports import TransportError
from onecollector_resources.collector.transports.local_http import LocalHttpTransport
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.records import CollectorConfig
from onecollector_resources.runtime import collector_environment

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def stack(parts: Any) -> Iterator[Stack]:
    with private_stack() as running:
        # Dagster would put the config of the settings back in between: that is its job, and not what is tested here.
        conf = str(running.layout.supervisor / "supervisord.conf")
        stop = [sys.executable, "-m", "supervisor.supervisorctl", "-c", conf, "stop", "daemon", "control"]
        subprocess.run(stop, check=True, capture_output=True)
        yield running


def manager_of(stack: Stack, confirm_within_s: float) -> AgentManager:
    transport = LocalHttpTransport.of(stack.layout, stack.runtime)
    reader = lambda tenant: LokiQuerierClient(LokiAccess(stack.runtime.loki_url, tenant))  # noqa: E731
    return AgentManager(transport, reader, confirm_within_s=confirm_within_s)


@pytest.fixture
def manager(stack: Stack) -> AgentManager:
    """One that soon takes back what does not deliver."""
    return manager_of(stack, 8)


@pytest.fixture
def patient(stack: Stack) -> AgentManager:
    """One that waits for as long as a busy machine may take."""
    return manager_of(stack, 60)


def active(stack: Stack) -> str:
    return stack.layout.active_config.read_text(encoding="utf-8")


def config_of(text: str) -> CollectorConfig:
    return CollectorConfig(config_hash(text), text, "default", "i", (("default", "docker"),))


def changed(stack: Stack, **values: Any) -> CollectorConfig:
    """The active config with top-level values merged in."""
    data = yaml.safe_load(active(stack))
    for path, value in values.items():
        node = data
        *parents, last = path.split("__")
        for key in parents:
            node = node[key]
        node[last] = value
    return config_of(render_yaml(data))


def delivers(stack: Stack) -> bool:
    service = unique("after")
    stack.run("echo still here", service=service)
    return bool(wait_until("a line", lambda: stack.first_line(f'{{service_name="{service}"}}', 300), 90))


def push_and_expect_the_old_one(stack: Stack, manager: AgentManager, config: CollectorConfig) -> PushResult:
    before = active(stack)
    result = manager.push_config_to_collector(config)
    assert result.state != "live", result
    wait_until("the old config", lambda: active(stack) == before, 60)
    assert delivers(stack)
    return result


def test_a_good_config_goes_live_and_pushing_it_again_restarts_nothing(stack: Stack, patient: AgentManager) -> None:
    config = changed(stack, processors__memory_limiter__limit_mib=390)
    result = patient.push_config_to_collector(config)
    assert result.state == "live", result
    assert delivers(stack)
    pid = patient.verify_reload_result()["pid"]
    assert patient.push_config_to_collector(config).state == "unchanged"
    assert patient.verify_reload_result()["pid"] == pid


def test_a_config_that_the_binary_refuses_is_rejected_with_the_line_and_remembered(
    stack: Stack, manager: AgentManager
) -> None:
    config = changed(stack, processors__memory_limiter__limit_mib="lots")
    result = push_and_expect_the_old_one(stack, manager, config)
    assert result.state == "rejected"
    line = 1 + next(n for n, text in enumerate(config.text.splitlines()) if "limit_mib: lots" in text)
    assert "limit_mib" in " ".join(result.reasons)
    assert f"line {line}:" in result.reasons[0] or f"line {line - 1}:" in result.reasons[0], result.reasons
    again = manager.push_config_to_collector(config)
    assert "rejected before" in " ".join(again.reasons)


def test_a_config_that_passes_the_check_and_cannot_start_is_rejected_and_the_old_one_goes_on(
    stack: Stack, manager: AgentManager
) -> None:
    storage = {"directory": "/proc/nowhere/at/all", "create_directory": True, "timeout": "5s", "recreate": True}
    data = yaml.safe_load(active(stack))
    data["extensions"]["file_storage/offsets"] = storage
    result = push_and_expect_the_old_one(stack, manager, config_of(render_yaml(data)))
    assert result.state == "rejected", result


def test_a_config_that_starts_and_delivers_nothing_is_taken_back_and_rejected(
    stack: Stack, manager: AgentManager
) -> None:
    data = yaml.safe_load(active(stack))
    name = next(name for name in data["processors"] if name.startswith("filter/"))
    data["processors"][name]["logs"]["log_record"] = ["true"]
    result = push_and_expect_the_old_one(stack, manager, config_of(render_yaml(data)))
    assert result.state == "rejected", result
    assert "did not come out of Loki" in " ".join(result.reasons)
    # Given up in time, and the old one is there as soon as it has started.
    assert result.seconds["probe"] < 8 + 10
    assert result.seconds["take back"] < 30


def test_a_port_that_is_taken_on_the_host_is_undecided(stack: Stack, manager: AgentManager) -> None:
    data = yaml.safe_load(active(stack))
    data["extensions"]["health_check/second"] = {"endpoint": f"127.0.0.1:{stack.runtime.loki_port}"}
    data["service"]["extensions"].append("health_check/second")
    result = push_and_expect_the_old_one(stack, manager, config_of(render_yaml(data)))
    assert result.state == "undecided", result


def test_loki_away_is_undecided_and_the_config_goes_live_later(
    stack: Stack, manager: AgentManager, patient: AgentManager
) -> None:
    config = changed(stack, processors__memory_limiter__limit_mib=380)
    control = [
        sys.executable,
        "-m",
        "supervisor.supervisorctl",
        "-c",
        str(stack.layout.supervisor / "supervisord.conf"),
    ]
    subprocess.run([*control, "stop", "loki"], check=True, capture_output=True)
    try:
        result = manager.push_config_to_collector(config)
    finally:
        subprocess.run([*control, "start", "loki"], check=True, capture_output=True)
    assert result.state == "undecided", result
    wait_until("Loki", lambda: stack.http.get(f"{stack.runtime.loki_url}/ready").status_code == 200, 120, 0.5)
    again = patient.push_config_to_collector(config)
    assert again.state == "live", again


def test_an_agent_killed_while_a_config_waits_for_its_confirmation_takes_it_back(
    stack: Stack, manager: AgentManager
) -> None:
    before = active(stack)
    config = changed(stack, processors__memory_limiter__limit_mib=370)
    answer = manager.transport.push(config.text, config.hash, 3.0)
    assert answer["state"] == "unconfirmed"
    os.kill(stack.pid("agent"), signal.SIGKILL)
    wait_until("the old config", lambda: active(stack) == before, 90, 0.2)
    wait_until("the agent", lambda: _answers(manager), 90, 0.5)
    assert delivers(stack)


def _answers(manager: AgentManager) -> bool:
    with contextlib.suppress(TransportError):
        return bool(manager.transport.status()["collector"]["healthy"])
    return False


def test_a_fragment_that_the_binary_refuses_is_left_out_and_the_rest_ships(stack: Stack) -> None:
    from onecollector_resources.collector.builder import OtelConfigBuilder
    from onecollector_resources.collector.names import component_names
    from onecollector_resources.settings import FileSource, MultilineRule, Settings

    binary = Path(stack.runtime.collector_binary)
    environment = collector_environment(stack.layout, stack.runtime, host="h", environment="test")
    settings = Settings(
        multiline={"bad": MultilineRule(first_line="(?<=x)y")},
        files=(FileSource(glob="/x/*.log", service="x", multiline="bad"),),
    )
    config = OtelConfigBuilder(settings, component_names(binary)).generate_config(binary, environment)
    assert config.pipelines == (("default", "docker"),)
    assert {q.fragment for q in config.quarantined} == {"plain+bad", "docker+bad"}
    assert "(?<=x)y" in config.quarantined[0].reason
