"""What somebody who is told of a finding sees: what moved, what to ask, and their own word on it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from onecollector.cli.main import app
from onecollector_resources.findings.opening import finding_store
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.settings import load_settings
from tests.unit.findings_made import AT, MINUTE, finding


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "onecollector.yaml"
    path.write_text(f"state_dir: {tmp_path / 'state'}\nmodels: {{webhook_url: 'http://127.0.0.1:1/'}}\n")
    monkeypatch.setenv("ONECOLLECTOR_CONFIG", str(path))
    return path


@pytest.fixture
def store(config: Path) -> Iterator[FindingStore]:
    settings = load_settings()
    LogSourceRegistry(settings.registry_url).migrate()
    made = finding_store(settings)
    yield made
    made.disconnect()


def run(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["findings", *words])
    assert result.exit_code == code, result.output
    return result


def test_a_finding_is_shown_with_what_moved_lines_and_a_command_to_paste(store: FindingStore) -> None:
    store.open(finding(), "sent")
    text = run("show", "1").stdout.splitlines()
    assert text[0] == (
        "payments · 2026-11-03 14:02-14:09 UTC, goes on · errors never seen before   p 0.0003, budget 0.5 a day"
    )
    assert text[1:] == [
        "          412 lines of a new error, expected 0",
        "what      “connection to <V> refused”  412 lines, expected 0  (new, first seen 14:02:00)",
        "          “charge <V> ok”  3,100 lines, expected 9,800  (−68 %)",
        "unchanged more lines than usual, a regular line that stopped",
        "lines     connection to 10.0.3.7:5432 refused",
        "          connection to [b]x[/b] refused",
        "ask       onecollector query '{service_name=\"payments\"}' --from 2026-11-03T13:58:00Z --to 2026-11-03T14:10:00Z",
        "judge     onecollector findings confirm 1   or   onecollector findings dismiss 1",
    ]


def test_a_query_of_any_text_comes_out_of_the_shell_as_it_was(store: FindingStore) -> None:
    query = '{service_name="pay\'ments"} |> "it\'s $HOME; `rm` <_> \\" onecollector up"'
    store.open(finding(query=query, tenant="o'brien"), "sent")
    asked = next(line for line in run("show", "1").stdout.splitlines() if line.startswith("ask"))
    words = shlex.split(asked.removeprefix("ask"))
    assert words[:3] == ["onecollector", "query", query]
    assert words[-2:] == ["--tenant", "o'brien"]


def test_text_of_logs_talks_to_no_terminal(store: FindingStore) -> None:
    evil = "\x1b[2J[red]x[/red]\x07\u202e"
    store.open(finding(sentence=evil, service=evil), "sent")
    for words in (("show", "1"), ("list", "--since", "2026-01-01")):
        shown = run(*words).stdout
        assert "[red]x[/red]" in shown
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_what_is_known_besides_is_shown(store: FindingStore) -> None:
    made = finding()
    store.open(made, "sent")
    store.open(finding("web", AT + MINUTE, incident=made.key), "held_back")
    at = "2026-11-03T14:01:30Z"
    line = {"time": at, "line": "connecting to 10.0.3.7"}
    store.add_evidence(
        made.incident,
        {
            "templates": [{"service": "payments", "text": "x", "first": line, "lines": [line]}],
            "events": [{"time": at, "what": "config 4f1c went live"}],
            "findings": [{"number": 7, "first": at, "sentence": "mail stopped writing"}],
            "missing": ["lines of web: Loki did not answer"],
        },
    )
    delivery = store.due("webhook", AT + timedelta(days=9999))[0]
    store.refused(delivery, "answered 404: no such hook")
    shown = run("show", "1").stdout
    for row in (
        "together  findings 2 of payments, web",
        "began     payments 14:01:30 connecting to 10.0.3.7",
        "meanwhile 14:01:30 config 4f1c went live",
        "also      7  14:01:30 mail stopped writing",
        "not known lines of web: Loki did not answer",
        "not sent  webhook, opened: answered 404: no such hook",
    ):
        assert row in shown
    assert "beyond models.findings_per_hour" in run("show", "2").stdout
    told = json.loads(run("show", "1", "--json").stdout)
    assert told["evidence"]["missing"] == ["lines of web: Loki did not answer"]
    assert [one["state"] for one in told["sent"]] == ["refused", "pending"]


def test_findings_are_listed_newest_first_and_narrowed(store: FindingStore) -> None:
    for n, service in enumerate(("web", "payments", "web")):
        store.open(finding(service, AT + n * MINUTE), "sent")
    since = ("--since", "2026-11-01")
    everything = run("list", *since).stdout.splitlines()
    assert [row.split()[0] for row in everything] == ["no", "3", "2", "1"]
    assert everything[1].split() == [
        *("3", "2026-11-03", "14:04", "8", "min", "web", "error", "open"),
        *("412", "lines", "of", "a", "new", "error,", "expected", "0"),
    ]
    run("confirm", "2", "--note", "down")
    assert [one["number"] for one in json.loads(run("list", *since, "--state", "confirmed", "--json").stdout)] == [2]
    assert [one["number"] for one in json.loads(run("list", *since, "--service", "web", "--json").stdout)] == [3, 1]
    assert "there are more (--limit)" in run("list", *since, "--limit", "2").stdout
    assert "expected one of open" in run("list", "--state", "lost", code=2).stderr


def test_a_judgement_is_kept_with_who_and_why_and_can_be_changed(store: FindingStore) -> None:
    store.open(finding(), "sent")
    assert "1 dismissed: the next model raises" in run("dismiss", "1", "--note", "a batch").stdout
    assert "dismissed by " in run("show", "1").stdout and ": a batch" in run("show", "1").stdout
    assert "1 confirmed: its minutes are left out" in run("confirm", "1").stdout
    assert store.by_number(1).judgement == "confirmed"


def test_who_has_no_name_on_this_machine_is_on_record_by_number(
    store: FindingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    store.open(finding(), "sent")
    run("confirm", "1")
    assert f"confirmed by uid {os.getuid()}" in run("show", "1").stdout


@pytest.mark.parametrize("command", ["show", "confirm", "dismiss"])
def test_a_number_that_nobody_has_is_said_so(store: FindingStore, command: str) -> None:
    said = run(command, "99999999999", code=1)
    assert said.stderr == "no finding has the number 99999999999; look: onecollector findings list\n"


def test_a_tenant_that_nobody_has_is_said_so_unless_findings_of_it_are_left(store: FindingStore) -> None:
    assert "expected one of default, found 'nosuch'" in run("list", "--tenant", "nosuch", code=2).stderr
    store.open(finding(tenant="nosuch"), "sent")
    assert "payments" in run("list", "--tenant", "nosuch", "--since", "2026-11-01").stdout


def test_an_empty_list_says_why(store: FindingStore, config: Path) -> None:
    assert "models are off; set models.enabled: true" in run("list").stderr
    config.write_text(config.read_text().replace("models: {", "models: {enabled: true, "))
    assert "no model of default serves; train one" in run("list").stderr
    store.open(finding(), "sent")
    assert "there are others: onecollector findings list --since 365d" in run("list", "--service", "none").stderr
    assert json.loads(run("list", "--service", "none", "--json").stdout) == []
