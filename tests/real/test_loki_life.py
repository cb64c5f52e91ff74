"""Our own Loki's life: verified, started, stopped with its lines safe, killed, emptied; on disk and on a real S3 server."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.stack import wait_until
from onecollector.local.stack import UpFailed, up
from onecollector_resources.loki.config import LokiConfigError, render_loki_config
from onecollector_resources.loki.lifecycle import LokiLifecycle, LokiLifecycleError, verify_config
from onecollector_resources.settings import LokiSettings, S3Settings, Settings
from tests.real.lokis import lines_of, new_loki, push
from tests.real.s3_server import S3Server, s3_server

pytestmark = [pytest.mark.real]

Maker = Callable[..., LokiLifecycle]
LINES = [f"line {number}" for number in range(1_000)]
LATE = ["six hours late", "and this one"]


@pytest.fixture
def make(part: Any, tmp_path: Path) -> Iterator[Maker]:
    """A function from Loki settings to a Loki that is not started; it is killed at the end."""
    made: list[LokiLifecycle] = []

    def new(environment: Mapping[str, str] | None = None, **loki: Any) -> LokiLifecycle:
        settings = Settings(state_dir=tmp_path, loki=LokiSettings(**loki))
        made.append(new_loki(part("loki"), tmp_path / "loki", settings, environment))
        return made[-1]

    yield new
    for one in made:
        one.kill()


def objects(loki: LokiLifecycle) -> list[Path]:
    return [path for path in (loki.data_dir / "objects" / "default").rglob("*") if path.is_file()]


def test_lines_outlive_a_stop_a_restart_and_a_kill_and_go_only_when_confirmed(make: Maker) -> None:
    loki = make()
    loki.start()
    push(loki, "a", LINES)
    push(loki, "late", LATE, age_s=6 * 3600)
    assert objects(loki) == []
    loki.stop()
    assert not loki.ready()
    # In the store, not in the write-ahead log alone.
    assert len(objects(loki)) == 2
    shutil.rmtree(loki.data_dir / "wal")
    loki.start()
    assert (lines_of(loki, "a"), lines_of(loki, "late")) == (LINES, LATE)

    push(loki, "a", ["before the kill"])
    loki.kill()
    loki.start()
    loki.restart()
    assert lines_of(loki, "a") == [*LINES, "before the kill"]

    with pytest.raises(LokiLifecycleError, match="Loki runs; stop it"):
        loki.delete_data(confirmed=True)
    # Another object, as after a restart of ours, sees it by its port.
    with pytest.raises(LokiLifecycleError, match="Loki runs; stop it"):
        LokiLifecycle(loki.binary, loki.config, loki.data_dir, loki.http_port, loki.log).delete_data(confirmed=True)
    loki.stop()
    with pytest.raises(LokiLifecycleError, match=r"needs a confirmation: nothing was deleted"):
        loki.delete_data(confirmed=False)
    assert objects(loki)
    assert loki.delete_data(confirmed=True) > 1_000
    assert [path.name for path in loki.data_dir.iterdir()] == ["overrides.yaml"]
    loki.start()
    loki.stop()
    loki.stop()


def test_a_start_that_fails_says_why_in_one_line(make: Maker) -> None:
    loki = make()
    with socket.create_server(("127.0.0.1", loki.http_port)):
        with pytest.raises(LokiLifecycleError, match="address already in use") as error:
            loki.start(20)
    assert "github.com/grafana" not in str(error.value)
    assert "\n" not in str(error.value)
    # And nothing of the failed start is in the way of the next.
    loki.start()


S3 = S3Settings(endpoint="http://127.0.0.1:9", access_key_env="OC_S3_KEY", secret_key_env="OC_S3_SECRET")


@pytest.mark.parametrize(
    "loki",
    [
        {},
        {"retention": "24h", "alertmanager_url": "http://127.0.0.1:9093"},
        {"store": "s3", "s3": S3},
        {"overrides": {"ingester": {"query_store_max_look_back_period": -1}}},
        {"tenant_overrides": {"default": {"ingestion_rate_mb": 1}}},
    ],
    ids=str,
)
def test_lokis_own_check_takes_what_we_render(make: Maker, loki: dict[str, Any]) -> None:
    made = make(**loki)
    verify_config(made.binary, made.config, {**os.environ, "OC_S3_KEY": "k", "OC_S3_SECRET": "s"})


def test_a_key_that_loki_does_not_know_is_refused_before_anything_starts(make: Maker) -> None:
    loki = make(overrides={"limits_config": {"no_such_limit": 1}})
    with pytest.raises(LokiConfigError, match=r"config\.yaml: Loki refuses it: .*no_such_limit"):
        loki.start()
    assert not loki.log.exists()


@pytest.mark.parametrize("value", ["-1s", "-5m", -2, "${LOOK_BACK:-1s}"])
def test_a_negative_duration_that_loki_takes_is_refused_by_us(make: Maker, tmp_path: Path, value: Any) -> None:
    loki = make()
    settings = Settings(
        state_dir=tmp_path,
        loki=LokiSettings(overrides={"ingester": {"query_store_max_look_back_period": value}}),
    )
    with pytest.raises(LokiConfigError, match=r"query_store_max_look_back_period: .* negative.*mend loki\.overrides"):
        render_loki_config(settings, data_dir=loki.data_dir, http_port=loki.http_port, grpc_port=1)
    # Which is needed: Loki's own check lets it pass.
    text = loki.config.read_text()
    assert "query_store_max_look_back_period: -1\n" in text
    loki.config.write_text(text.replace("look_back_period: -1\n", f"look_back_period: {value}\n"))
    verify_config(loki.binary, loki.config)


@pytest.fixture
def s3(part: Any, tmp_path: Path) -> Iterator[S3Server]:
    with s3_server(part("versitygw"), tmp_path) as server:
        yield server


def listed(s3: S3Server) -> list[str]:
    return [info.key for info in s3.store("loki-chunks").list()]


def test_on_s3_a_machine_may_lose_its_disk_after_a_stop(make: Maker, s3: S3Server) -> None:
    loki = make(s3.environment, store="s3", s3=s3.access)
    assert "tests-s3cret" not in loki.config.read_text()
    with pytest.raises(LokiLifecycleError, match="bucket does not exist"):
        loki.start()
    for name in ("loki-chunks", "loki-rules"):
        s3.bucket(name)
    loki.start()
    push(loki, "a", LINES)
    push(loki, "late", LATE, age_s=6 * 3600)
    assert lines_of(loki, "a") == LINES
    loki.flush()
    wait_until("two chunks in the bucket", lambda: sum(k.startswith("default/") for k in listed(s3)) == 2, 60)
    # On S3 late lines are visible once their chunk is there.
    assert lines_of(loki, "late") == LATE
    push(loki, "b", ["just before the stop"])
    loki.stop()
    assert sum(key.startswith("default/") for key in listed(s3)) == 3
    assert any(key.startswith("index/index_") for key in listed(s3))

    overrides = (loki.data_dir / "overrides.yaml").read_text()
    shutil.rmtree(loki.data_dir)
    loki.data_dir.mkdir()
    (loki.data_dir / "overrides.yaml").write_text(overrides)
    loki.start()
    assert (lines_of(loki, "a"), lines_of(loki, "late")) == (LINES, LATE)
    assert lines_of(loki, "b") == ["just before the stop"]


def test_up_refuses_s3_without_its_keys_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OC_S3_KEY", raising=False)
    monkeypatch.setenv("OC_S3_SECRET", "s")
    settings = Settings(state_dir=tmp_path / "s", loki=LokiSettings(store="s3", s3=S3))
    with pytest.raises(UpFailed, match=r"not set: OC_S3_KEY\. Export them"):
        up(settings)
    assert not (tmp_path / "s").exists()
