"""Logging in at a protected Loki: what is rendered, what is kept from everybody, and how a refusal is told."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from onecollector.local.programs import collector_run_script, programs, secrets_script
from onecollector.local.stack import UpFailed, up
from onecollector.local.supervisor import render_config
from onecollector_resources.collector.builder import OtelConfigBuilder
from onecollector_resources.collector.login import login_environment, login_secrets
from onecollector_resources.collector.rules import check_rules
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.loki.preflight.looking import preflight
from onecollector_resources.loki.ruler import LokiRulerClient
from onecollector_resources.runtime import Runtime, collector_environment
from onecollector_resources.settings import LokiSettings, Settings, SettingsError

PASSWORD = "a'b\"c $HOME ${env:X} %(x)s ;#"
RUNTIME = Runtime("https://loki", 1, 2, 3, 4, 5, 6, 7, "", "", "", "/otelcol", "")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LOKI_PASSWORD", PASSWORD)
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).touch()
    loki = LokiSettings(
        url="https://loki",
        username="me",
        password_env="LOKI_PASSWORD",
        authority=tmp_path / "ca.pem",
        certificate=tmp_path / "client.pem",
        key=tmp_path / "client.key",
    )
    return Settings(state_dir=tmp_path / "s", loki=loki)


def exporter(**loki: Any) -> dict[str, Any]:
    text = OtelConfigBuilder(Settings(loki=LokiSettings(**loki))).generate_config().text
    assert check_rules(text) == ()
    return yaml.safe_load(text)["exporters"]["otlp_http/default"]


def test_the_exporter_names_variables_for_what_loki_asks_for_and_nothing_else() -> None:
    assert exporter()["headers"] == {"X-Scope-OrgID": "default"}
    assert "tls" not in exporter()
    assert exporter(bearer_env="TOKEN")["headers"]["Authorization"] == "${env:OC_LOKI_AUTHORIZATION}"
    assert exporter(authority="/ca.pem")["tls"] == {"ca_file": "${env:OC_LOKI_AUTHORITY}"}
    mutual = exporter(certificate="/c.pem", key="/c.key")
    assert mutual["tls"] == {
        "cert_file": "${env:OC_LOKI_CERTIFICATE}",
        "key_file": "${env:OC_LOKI_KEY}",
        "reload_interval": "5m",
    }
    assert "Authorization" not in mutual["headers"]


def test_what_a_config_depends_on_has_the_login_in_it() -> None:
    def inputs_of(**loki: Any) -> str:
        return OtelConfigBuilder(Settings(loki=LokiSettings(**loki))).generate_config().inputs_hash

    assert len({inputs_of(), inputs_of(bearer_env="T"), inputs_of(authority="/a")}) == 3
    assert inputs_of() == inputs_of(url="http://loki")


def test_the_secret_is_in_one_file_and_comes_out_of_it_as_it_is(settings: Settings, tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_text(secrets_script(settings))
    printed = 'printf "%s\\n" "$LOKI_PASSWORD" "$OC_LOKI_AUTHORIZATION"'
    done = subprocess.run(["/bin/sh", "-c", f". {script}; {printed}"], text=True, capture_output=True, check=True)
    password, authorization = done.stdout.splitlines()
    assert password == PASSWORD
    assert authorization == settings.loki.access("", "").headers()["Authorization"]
    environment = collector_environment(settings.layout, RUNTIME, host="h", environment="e", loki=settings.loki)
    assert environment["OC_LOKI_CERTIFICATE"] == str(tmp_path / "client.pem")
    shown = [
        collector_run_script(settings, RUNTIME),
        render_config(settings.layout, programs(settings, RUNTIME)),
        repr(environment),
        OtelConfigBuilder(settings).generate_config().text,
        repr(settings),
    ]
    for secret in (PASSWORD, PASSWORD[:3], authorization.split()[1]):
        assert not any(secret in text for text in shown)
    # Both that need it take it from there.
    assert sum(text.count(str(settings.layout.secrets)) for text in shown[:2]) == 2


def test_an_open_loki_has_no_file_of_secrets(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    assert secrets_script(settings) == ""
    text = collector_run_script(settings, RUNTIME) + render_config(settings.layout, programs(settings, RUNTIME))
    assert str(settings.layout.secrets) not in text
    assert login_environment(settings.loki) == login_secrets(settings.loki) == {}


def test_what_the_collector_would_expand_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "a$b${env:HOME}")
    secrets = login_secrets(LokiSettings(bearer_env="TOKEN"))
    assert secrets == {"OC_LOKI_AUTHORIZATION": "Bearer a$$b$${env:HOME}"}
    monkeypatch.delenv("TOKEN")
    with pytest.raises(SettingsError, match="the variable TOKEN; it is not set"):
        login_secrets(LokiSettings(bearer_env="TOKEN"))


def test_up_takes_no_path_that_means_another_file_to_every_part(tmp_path: Path) -> None:
    loki = LokiSettings(url="https://loki", authority=Path("ca.pem"))
    with pytest.raises(UpFailed, match=r"loki.authority: expected an absolute path, found ca.pem"):
        up(Settings(state_dir=tmp_path / "s", loki=loki))
    assert not (tmp_path / "s").exists()


def test_an_address_with_a_login_is_refused() -> None:
    with pytest.raises(ValueError, match="`url` holds a login"):
        LokiSettings(url="https://me:secret@loki/x")
    assert LokiSettings(url="https://loki/a@b").url


def answering(status: int, text: str = "") -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: httpx.Response(status, text=text, request=request))


ACCESS = LokiAccess("https://loki/", "team", username="me", password="wrong")


def test_rules_are_read_and_written_with_the_login() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202)

    with LokiRulerClient(ACCESS, transport=httpx.MockTransport(answer)) as ruler:
        ruler.create_log_alert_rule({"name": "web", "rules": []})
    assert str(seen[0].url) == "https://loki/loki/api/v1/rules/onecollector"
    assert seen[0].headers["Authorization"] == ACCESS.headers()["Authorization"]
    assert seen[0].headers["X-Scope-OrgID"] == "team"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_is_told_as_one(status: int) -> None:
    transport = answering(status, "who are\nyou?")
    assert (
        ACCESS.login_refused(transport=transport) == f"Loki at https://loki/ refuses the login ({status}): who are you?"
    )
    with (
        LokiRulerClient(ACCESS, transport=transport) as ruler,
        pytest.raises(LokiError, match=rf"\({status}\): who are\nyou\?; it refuses the login: see loki.username"),
    ):
        ruler.list_alert_rules()
    (found,) = preflight(ACCESS, ["team"], transport=transport)
    assert (found.level, found.rule) == ("error", "login-refused")
    assert "onecollector up" in found.fix


def test_another_refusal_is_not_about_the_login() -> None:
    transport = answering(500, "too many")
    assert ACCESS.login_refused(transport=transport) == ""
    with LokiRulerClient(ACCESS, transport=transport) as ruler, pytest.raises(LokiError, match=r"many$"):
        ruler.list_alert_rules()
