"""The pre-flight on real Lokis: ours has a clean bill of health, a stock one loses what it is said to lose; nothing stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bench.stack import wait_until
from onecollector_resources.loki.config import loki_config
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.settings import Settings
from tests.real.lokis import TENANT, lines_of, new_loki

pytestmark = [pytest.mark.real]

Doctor = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """`onecollector doctor --loki URL` in a folder without settings."""

    def run(url: str, *options: str) -> tuple[int, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "onecollector.cli.main", "doctor", "--loki", url, *options],
            env={**os.environ, "ONECOLLECTOR_STATE_DIR": str(tmp_path / "state")},
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=250,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout) if "--json" in options else done.stdout

    return run


@pytest.fixture
def stock(part: Any, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], LokiLifecycle]]:
    """A Loki with its own defaults for limits and everything else that loses lines; some limits may be set."""
    made: list[LokiLifecycle] = []

    def start(limits: dict[str, Any]) -> LokiLifecycle:
        loki = new_loki(part("loki"), tmp_path / "stock", Settings(state_dir=tmp_path))
        config = loki_config(
            Settings(state_dir=tmp_path), data_dir=loki.data_dir, http_port=loki.http_port, grpc_port=0
        )
        given = yaml.safe_load(loki.config.read_text())
        config["server"]["grpc_listen_port"] = given["server"]["grpc_listen_port"]
        for key in ("grpc_server_max_recv_msg_size", "grpc_server_max_send_msg_size"):
            del config["server"][key]
        del config["ingester"]["query_store_max_look_back_period"]
        config["compactor"] = {"working_directory": config["compactor"]["working_directory"]}
        config["limits_config"] = limits
        loki.config.write_text(yaml.safe_dump(config))
        loki.start()
        made.append(loki)
        return loki

    yield start
    for one in made:
        one.kill()


def outcomes(found: dict[str, Any]) -> dict[str, str]:
    return {trial["rule"]: trial["outcome"] for trial in found["trials"]}


def test_ours_keeps_every_line_and_what_was_pushed_is_deleted(part: Any, tmp_path: Path, doctor: Doctor) -> None:
    loki = new_loki(part("loki"), tmp_path, Settings(state_dir=tmp_path))
    try:
        loki.start()
        code, found = doctor(loki.url, "--json")
        assert (code, found["findings"]) == (0, [])
        assert set(outcomes(found).values()) == {"kept", "not tried"}
        assert found["scratch"]["deleted"], found["scratch"]
        service = found["service"]
        assert service.startswith("onecollector-preflight-")
        (request,) = httpx.get(f"{loki.url}/loki/api/v1/delete", headers=TENANT, timeout=60).json()
        assert request["query"] == f'{{service_name="{service}"}}'
        assert len(lines_of(loki, service)) >= 8
        # Queries look for new delete requests every five minutes; a Loki that has just started does at once.
        loki.restart()
        wait_until("the scratch lines to be hidden", lambda: lines_of(loki, service) == [], 60)
        # And again: a Loki that was looked at is as well as before.
        assert doctor(loki.url, "--json", "--read-only")[1]["findings"] == []
    finally:
        loki.kill()


def test_a_stock_loki_loses_hides_and_labels_and_each_is_named_with_its_cure(stock: Any, doctor: Doctor) -> None:
    loki = stock({})
    code, found = doctor(loki.url, "--json")
    assert code == 1
    assert outcomes(found) == {
        "loses-late-lines": "lost",
        "loses-hot-lines": "refused",
        "hides-late-lines": "hidden",
        "doubles-equal-lines": "kept",
        "loses-long-lines": "lost",
        "loses-attributes": "kept",
        "refuses-fast-clocks": "refused",
        "labels-from-attributes": "labels",
    }
    by_rule = {finding["rule"]: finding for finding in found["findings"]}
    assert "is lost, and the push was answered 204" in by_rule["loses-late-lines"]["message"]
    assert (
        "container_name, k8s_pod_name, service_instance_id become labels"
        in by_rule["labels-from-attributes"]["message"]
    )
    assert len(found["findings"]) == len(by_rule), "each matter once"
    assert {"hangs-on-large-pages", "doubles-resent-lines", "few-streams"} <= set(by_rule)
    assert not found["scratch"]["deleted"]
    assert "they stay for ever: its retention is off" in found["scratch"]["said"]
    code, text = doctor(loki.url)
    assert code == 1
    assert "time_sharding_enabled: true" in str(text)
    before = _series(loki)
    assert doctor(loki.url, "--json", "--read-only")[0] == 1
    assert _series(loki) == before, "read-only pushes nothing"

    # -- the cures that it was given, pasted
    limits: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for finding in found["findings"]:
        for section, values in yaml.safe_load(finding["fix"]).items():
            target = limits if section == "limits_config" else rest.setdefault(section, {})
            for key, value in values.items():
                target[key] = {**target[key], **value} if isinstance(target.get(key), dict) else value
    loki.stop()
    config = yaml.safe_load(loki.config.read_text())
    config["limits_config"] = limits
    for section, values in rest.items():
        config[section] = {**config.get(section, {}), **values}
    loki.config.write_text(yaml.safe_dump(config))
    loki.start()
    code, found = doctor(loki.url, "--json")
    assert (code, found["findings"]) == (0, []), found["findings"]


def test_a_hot_stream_beside_a_quiet_one_is_lost_under_a_204(stock: Any, doctor: Doctor) -> None:
    loki = stock({"ingestion_rate_mb": 64, "ingestion_burst_size_mb": 128, "shard_streams": {"enabled": False}})
    code, found = doctor(loki.url, "--json")
    assert code == 1
    assert outcomes(found)["loses-hot-lines"] == "lost"
    (message,) = [finding["message"] for finding in found["findings"] if finding["rule"] == "loses-hot-lines"]
    assert "lines of a hot stream" in message
    assert "answered with a 204" in message


def _series(loki: LokiLifecycle) -> int:
    params = {"start": time.time_ns() - 10**9 * 86_400, "end": time.time_ns()}
    return len(httpx.get(f"{loki.url}/loki/api/v1/series", params=params, headers=TENANT, timeout=60).json()["data"])
