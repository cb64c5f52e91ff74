"""The asset log_templates over exported lines, and the commands that show what it kept."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from ml.template_store import StoredTemplates, TemplateStore
from onecollector.cli.main import app
from onecollector_assets.templates import log_templates
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.exports.partitions import Partition
from onecollector_resources.loki.lines import label_text
from onecollector_resources.storage.file_store import FileStore
from tests.unit.exported import HOUR, SECOND_NS, exported

BOTH = ("GET /cart/{n} 200 in {n} ms", "session of {name} began")
NAMES = ("ann", "bob", "carl", "dora", "emil", "fay", "gus", "hana", "ivo", "jan", "kim", "lea")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two days of a service: on the second one kind is new and one is gone."""
    store = FileStore(tmp_path / "exports", create=True)
    for day, kinds in enumerate(((*BOTH, "cache warmed in {n} ms"), (*BOTH, "<b>disk</b> | full at {n} %"))):
        partition = Partition("default", "web", HOUR + timedelta(days=day))
        lines = [
            (
                *(partition.start_ns + n * SECOND_NS, label_text({"service_name": "web"})),
                kinds[n % 3].format(n=n, name=NAMES[n // 3 % len(NAMES)]),
                (("severity_text", "error"),) if "disk" in kinds[n % 3] else (),
            )
            for n in range(360)
        ]
        exported(store, tmp_path / "scratch", partition, lines)
    (tmp_path / "onecollector.yaml").write_text(f"state_dir: {tmp_path}/state\nexport: {{out: {tmp_path}/exports}}\n")
    monkeypatch.setenv("ONECOLLECTOR_CONFIG", str(tmp_path / "onecollector.yaml"))
    return tmp_path


def materialize(day: str) -> tuple[dict[str, Any], bool]:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [log_templates],
            partition_key=day,
            instance=instance,
            resources={"onecollector": OneCollectorResource(), "io_manager": dg.mem_io_manager},
        )
    (event,) = result.asset_materializations_for_node("log_templates")
    (check,) = result.get_asset_check_evaluations()
    return {name: value.value for name, value in event.metadata.items()}, check.passed


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["templates", *arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_a_day_tells_what_is_new_and_what_is_gone(shop: Path) -> None:
    first, _ = materialize("2026-11-03")
    assert (first["lines"], first["templates"], first["new templates"]) == (360, 3, 0)
    second, well = materialize("2026-11-04")
    assert (second["lines"], second["templates"], second["new templates"], second["vanished templates"]) == (
        360,
        3,
        1,
        1,
    )
    assert well
    assert "cache warmed in" in second["vanished"]
    # A line is not markup.
    assert "<b>" not in second["new"] and "&lt;b&gt;disk" in second["new"]
    again, _ = materialize("2026-11-04")
    assert {name: again[name] for name in again if name != "seconds"} == {
        n: second[n] for n in second if n != "seconds"
    }


def test_days_that_are_filled_in_go_on_from_each_other(shop: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [log_templates],
            instance=instance,
            tags={
                "dagster/asset_partition_range_start": "2026-11-03",
                "dagster/asset_partition_range_end": "2026-11-04",
            },
            resources={"onecollector": OneCollectorResource(), "io_manager": dg.mem_io_manager},
        )
    events = result.asset_materializations_for_node("log_templates")
    assert [(event.partition, event.metadata["new templates"].value) for event in events] == [
        ("2026-11-03", 0),
        ("2026-11-04", 1),
    ]


def test_of_two_that_count_at_once_the_second_counts_again(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = TemplateStore.save, []

    def overtaken(self: TemplateStore, state: StoredTemplates) -> None:
        calls.append(state.etag)
        if len(calls) == 1:
            save(self, StoredTemplates())
        save(self, state)

    monkeypatch.setattr(TemplateStore, "save", overtaken)
    told, _ = materialize("2026-11-03")
    assert (told["templates"], len(calls)) == (3, 2)


def test_a_day_without_lines_is_well(shop: Path) -> None:
    empty, well = materialize("2026-06-01")
    assert (empty["lines"], empty["templates"], well) == (0, 0, True)


def test_the_commands_show_what_the_asset_kept(shop: Path) -> None:
    materialize("2026-11-03")
    materialize("2026-11-04")
    code, text = run("list")
    assert code == 0 and "2026-11-04 default: 360 lines, 3 templates" in text
    assert "session of <*> began" in text
    code, text = run("list", "--new", "--json")
    (new,) = json.loads(text)["templates"]
    assert (new["lines"], new["errors"]) == (120, 120)
    code, text = run("show", new["id"][:6])
    assert code == 0 and '|= "<b>disk</b> | full at"' in text
    code, text = run("diff", "2026-11-03", "2026-11-04")
    assert code == 0 and "1 new   1 gone   0 more   0 fewer" in text


def test_a_day_that_was_not_counted_is_counted_and_not_kept(shop: Path) -> None:
    code, text = run("diff", "2026-11-03")
    assert code == 0 and "1 new   1 gone" in text and "counted now, not kept" in text
    assert not list((shop / "state" / "models").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("list", "--day", "2026-10-01"), 1, "no lines of default are exported for 2026-10-01"),
        (("list", "--tenant", "nosuch"), 2, "expected one of default, found 'nosuch'"),
        (("list", "--day", "yesterday"), 2, "expected a day such as 2026-11-03"),
        (("list", "--day", "2026-11-03", "--service", "nope"), 1, "no lines of service 'nope'"),
        (("show", "ffffffffffffffffff", "--day", "2026-11-03"), 1, "no template of 2026-11-03"),
    ],
)
def test_what_is_not_there_is_told(shop: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    found, text = run(*arguments)
    assert found == code and told in text


def test_the_location_loads_in_a_fresh_interpreter_without_heavy_imports() -> None:
    heavy = ("pandas", "pyarrow", "sklearn", "boto3", "docker", "polars")
    code = f"import sys, onecollector.locations.ml as m; print([h for h in {heavy!r} if h in sys.modules]); print(type(m.defs).__name__)"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.stdout.split("\n")[:2] == ["[]", "Definitions"], done.stderr
