"""``onecollector query`` and ``labels`` on a real Loki, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.loki.lines import schema
from tests.real.lokis import TENANT

pytestmark = [pytest.mark.real]

Run = Callable[..., subprocess.CompletedProcess[str]]
SHOP = '{service_name="typed-shop"}'
LINES = 250


@pytest.fixture(scope="module")
def run(loki: LokiLifecycle, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("typed")
    (folder / "onecollector.yaml").write_text(f"loki: {{url: {loki.url}}}\nstate_dir: {folder}/state\n")
    env = {**os.environ, "ONECOLLECTOR_CONFIG": str(folder / "onecollector.yaml"), "COLUMNS": "160"}
    first = time.time_ns() - 60 * 10**9
    values = [
        [str(first + n * 10**6), f"\x1b[31mline {n}\x1b[0m", {"severity_text": "ERROR" if n % 50 == 0 else "INFO"}]
        for n in range(LINES)
    ]
    body = {"streams": [{"stream": {"service_name": "typed-shop", "env": "prod"}, "values": values}]}
    assert httpx.post(f"{loki.url}/loki/api/v1/push", json=body, headers=TENANT, timeout=60).status_code == 204

    def onecollector(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "onecollector.cli.main", *arguments]
        return subprocess.run(command, env=env, text=True, capture_output=True, timeout=200, check=False)

    return onecollector


def test_the_newest_lines_in_order_with_how_many_there_are(run: Run) -> None:
    done = run("query", SHOP)
    assert done.returncode == 0
    shown = done.stdout.splitlines()
    assert len(shown) == 100
    # In a pipe: no colour, not even that of the program itself.
    assert shown[0].endswith(" typed-shop line 150")
    assert shown[-1].endswith(" typed-shop line 249")
    assert "\x1b" not in done.stdout
    assert done.stderr == "100 of 250 lines, the newest; all of them: --limit 0\n"
    every = run("query", SHOP, "--limit", "0", "--output", "raw")
    assert every.stdout.splitlines() == [f"\x1b[31mline {n}\x1b[0m" for n in range(LINES)]
    assert every.stderr == ""


def test_lines_for_machines(run: Run, tmp_path: Path) -> None:
    records = [json.loads(line) for line in run("query", SHOP, "--limit", "5", "--output", "jsonl").stdout.splitlines()]
    assert [one["line"] for one in records] == [f"\x1b[31mline {n}\x1b[0m" for n in range(245, 250)]
    assert records[0]["labels"] == {"env": "prod", "service_name": "typed-shop"}
    document = json.loads(run("query", SHOP, "--limit", "5", "--json").stdout)
    assert (len(document["lines"]), document["total"]["lines"], document["total"]["exact"]) == (5, 250, True)

    file = tmp_path / "lines.parquet"
    done = run("query", SHOP, "--output", "parquet", "--out", str(file))
    assert (done.stdout, done.stderr) == ("", f"250 lines in {file}\n")
    table = pq.read_table(file)
    assert table.schema.names == schema().names
    assert table.column("severity").to_pylist().count("error") == 5


def test_numbers_are_a_small_table(run: Run) -> None:
    done = run("query", f"sum by (env) (count_over_time({SHOP} [1h]))", "--since", "5m")
    header, row = done.stdout.splitlines()
    assert header.split() == ["SERIES", "LAST", "MIN", "MAX", "TREND"]
    assert row.split()[:4] == ['{env="prod"}', "250", "250", "250"]
    document = json.loads(run("query", f"sum(count_over_time({SHOP} [1h]))", "--json").stdout)
    assert (document["kind"], document["series"][0]["points"][-1][1]) == ("matrix", 250)


def test_what_cannot_be_asked_says_why(run: Run) -> None:
    bad = run("query", f"{SHOP} |= error")
    assert bad.returncode == 2
    lines = bad.stderr.splitlines()
    assert "refused the query (400): parse error at line 1, col 32" in lines[0]
    assert lines[1:] == ['    {service_name="typed-shop"} |= error', "    " + " " * 31 + "^"]
    for arguments, said in (
        (("--from", "2026-01-02", "--to", "2026-01-01"), "ends before it begins"),
        (("--from", "2999-01-01"), "begins in the future"),
        (("--output", "poem"), "expected one of text, raw, jsonl, parquet, found 'poem'"),
        (("--output", "parquet"), "go together"),
    ):
        done = run("query", SHOP, *arguments)
        assert done.returncode == 2
        assert said in " ".join(done.stderr.replace("│", " ").split())


def test_labels_and_their_values(run: Run) -> None:
    assert {"env", "service_name"} <= set(run("labels").stdout.split())
    assert run("labels", "env", "--query", SHOP).stdout.split() == ["prod"]
    assert "typed-shop" in json.loads(run("labels", "service_name", "--json").stdout)
    nothing = run("labels", "nope")
    assert nothing.stdout == ""
    assert nothing.stderr.startswith("no stream has the label 'nope' in this range; labels are: env, service_name")


@pytest.mark.parametrize("name", ["query", "tail", "labels"])
def test_help_has_an_example(run: Run, name: str) -> None:
    assert f"Example: onecollector {name} " in " ".join(run(name, "--help").stdout.split())
