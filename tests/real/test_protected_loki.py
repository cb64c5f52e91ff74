"""A Loki behind TLS, a client's certificate and a password: the whole product logs in, and a wrong password loses nothing."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from bench.stack import Stack, private_stack, wait_until
from onecollector_assets.rollout import pipeline_delivers
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.settings import Settings
from tests.real.gateway import Porter, gateway_beside
from tests.real.lokis import lines_of, new_loki

pytestmark = [pytest.mark.real]

USER, PASSWORD, NEW = "shipper", "s3cret '$$HOME' \"#;", "n3w secret"


@dataclass(frozen=True)
class Place:
    """A stack that logs in, the Loki behind the gateway, and who stands at its door. ``logs`` are collected as ``web``."""

    stack: Stack
    loki: LokiLifecycle
    porter: Porter
    logs: Path


@pytest.fixture(scope="module")
def place(parts: Any, part: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, porter = tmp_path_factory.mktemp("protected"), Porter(USER, PASSWORD)
    for name in ("tls", "logs"):
        (folder / name).mkdir()
    loki = new_loki(part("loki"), folder / "loki", Settings(state_dir=folder / "loki"))
    loki.start()
    try:
        with (
            pytest.MonkeyPatch.context() as shell,
            gateway_beside(loki.url, folder / "tls", porter) as (url, files),
        ):
            shell.setenv("LOKI_PASSWORD", PASSWORD)
            settings = {
                "docker": {"enabled": False},
                "loki": {
                    "url": url,
                    "username": USER,
                    "password_env": "LOKI_PASSWORD",
                    **{name: str(path) for name, path in files.items()},
                },
                "files": [{"glob": f"{folder}/logs/*.log", "service": "web"}],
            }
            with private_stack(settings) as running:
                yield Place(running, loki, porter, folder / "logs")
    finally:
        loki.kill()


def write(folder: Path, *lines: str) -> None:
    with (folder / "web.log").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_everything_logs_in_and_a_wrong_password_is_told_and_loses_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, loki, porter = place.stack, place.loki, place.porter
    write(place.logs, *(f"first {number}" for number in range(100)))
    wait_until("the lines", lambda: len(lines_of(loki, "web")) == 100, 120, 0.5)
    wait_until("the proof", lambda: proved(stack, 100), 120, 1)
    wait_until("the rules", lambda: "web" in json.dumps(live_rules(stack)), 240, 1)
    assert not errors(stack)
    assert "-probe" in stack.cli("query", '{service_name=~".+-probe"}', "--since", "10m").stdout

    # The password changes behind our back.
    porter.password = NEW
    write(place.logs, *(f"second {number}" for number in range(100)))
    wait_until("refused pushes", lambda: porter.refused["/otlp/v1/logs"] > 3, 90, 0.2)
    (told,) = [one for one in errors(stack) if one["rule"] == "login-refused"]
    assert "refuses the login (401): who are you?" in told["message"]
    assert "onecollector up" in told["fix"]
    assert "refuses the login (401)" in stack.cli("status", check=False).stdout.replace("\n", " ")
    with monkeypatch.context() as shell:
        shell.setenv("ONECOLLECTOR_CONFIG", stack.env["ONECOLLECTOR_CONFIG"])
        answer = pipeline_delivers(dg.build_asset_check_context(), OneCollectorResource())
    assert isinstance(answer, dg.AssetCheckResult)
    assert not answer.passed
    assert "(401): who are you?; it refuses the login: see loki.username" in str(answer.description)
    again = stack.cli("up", check=False)
    assert again.returncode == 2
    assert "refuses the login (401)" in again.stderr

    stack.env["LOKI_PASSWORD"] = NEW
    write(place.logs, *(f"third {number}" for number in range(100)))
    stack.cli("up")
    wait_until("all lines", lambda: len(set(lines_of(loki, "web"))) == 300, 120, 0.5)
    wait_until("the proof", lambda: proved(stack, 300), 120, 1)
    assert not errors(stack)

    holders = [path for path in files_below(stack.state.parent) if holds_a_secret(path)]
    assert holders == [stack.layout.secrets]
    assert stack.layout.secrets.stat().st_mode & 0o777 == 0o600
    for command in (("env",), ("env", "--collector"), ("status", "--json"), ("config", "show")):
        shown = stack.cli(*command, check=False)
        assert not any(secret in (shown.stdout + shown.stderr).encode() for secret in SECRETS), command


def test_a_shell_without_the_password_is_told_so_and_the_parts_have_theirs(place: Place) -> None:
    stack, loki = place.stack, place.loki
    before = stack.pid("collector")
    environment = stack.env.pop("LOKI_PASSWORD")
    said = stack.cli("up", check=False)
    assert said.returncode == 2
    assert "expected a value in the variable LOKI_PASSWORD; it is not set: export it" in said.stderr
    assert {one["rule"] for one in errors(stack)} >= {"login-missing"}
    assert stack.cli("env", "--collector").returncode == 0
    os.kill(before, 9)
    stack.env["LOKI_PASSWORD"] = environment
    wait_until("another collector", lambda: stack.pid("collector") not in (0, before), 120, 0.5)
    write(place.logs, "after the kill")
    wait_until("the line", lambda: "after the kill" in lines_of(loki, "web"), 120, 0.5)


SECRETS = [
    form
    for password in (PASSWORD, NEW)
    for form in (password.encode(), base64.b64encode(f"{USER}:{password}".encode()))
]


def holds_a_secret(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        # A part that runs took it away since it was listed.
        return False
    return any(secret in content for secret in SECRETS)


def files_below(folder: Path) -> Iterator[Path]:
    """Not rglob: it fails at a folder that is taken away while it is looked at."""
    paths = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return (path for path in paths if path.is_file() and not path.is_symlink())


def errors(stack: Stack) -> list[dict[str, Any]]:
    found = json.loads(stack.cli("doctor", "--json", check=False).stdout)["findings"]
    return [one for one in found if one["level"] == "error"]


def proved(stack: Stack, lines: int) -> bool:
    done = stack.cli("prove", "--service", "web", "--json", check=False)
    proof = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return bool(proof.get("complete")) and sum(row["expected"] for row in proof["rows"]) == lines


def live_rules(stack: Stack) -> list[str]:
    with OneCollectorResource(config_file=stack.env["ONECOLLECTOR_CONFIG"]).ruler("default") as ruler:
        return [group for (group, _), rule in ruler.rule_states().items() if rule["health"] == "ok"]
