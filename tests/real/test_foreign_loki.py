"""A Loki that is not ours and loses late lines: the loss is seen, counted, and named with its cure."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.stack import Stack, private_stack, wait_until
from onecollector.local.ports import any_free_port
from onecollector_resources.loki.config import loki_config, render_overrides
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.settings import Settings

pytestmark = [pytest.mark.real]

HOURS, LINES = 6, 3_000


@pytest.fixture
def stack(parts: Any, part: Any, tmp_path: Path) -> Iterator[Stack]:
    data = tmp_path / "loki"
    data.mkdir()
    http_port = any_free_port(set())
    grpc_port = any_free_port({http_port})
    config = loki_config(Settings(state_dir=tmp_path), data_dir=data, http_port=http_port, grpc_port=grpc_port)
    config["limits_config"]["shard_streams"] = {"enabled": True, "time_sharding_enabled": False}
    (tmp_path / "loki.yaml").write_text(yaml.safe_dump(config))
    (data / "overrides.yaml").write_text(render_overrides(Settings(state_dir=tmp_path)))
    loki = LokiLifecycle(part("loki"), tmp_path / "loki.yaml", data, http_port, tmp_path / "loki.log")
    loki.start()
    files = [{"glob": f"{tmp_path}/hours/*.log", "service": "backlog", "profile": "cri"}]
    try:
        with private_stack({"loki": {"url": loki.url}, "files": files}) as running:
            yield running
    finally:
        loki.kill()


def test_a_loss_is_seen_counted_by_tenant_and_reason_and_named_by_doctor(stack: Stack, tmp_path: Path) -> None:
    folder, now = tmp_path / "hours", time.time()
    folder.mkdir()
    for hour in range(HOURS):
        stamps = [now - (HOURS - hour) * 3600 + n * 3600 / LINES for n in range(LINES)]
        lines = [
            f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(s))}.{int(s % 1 * 1e9):09d}Z stdout F {hour} {n}\n"
            for n, s in enumerate(stamps)
        ]
        (folder / f"h{hour}.new").write_text("".join(lines))
    for hour in reversed(range(HOURS)):
        (folder / f"h{hour}.new").rename(folder / f"h{hour}.log")

    def discarded() -> list[dict[str, Any]]:
        findings = json.loads(stack.cli("doctor", "--json", check=False).stdout)
        return [one for one in findings["findings"] if one["rule"] == "discarded"]

    (found,) = wait_until("doctor to count the loss", discarded, 180, 1)
    assert found["where"] == "default"
    assert "too_far_behind" in found["message"]
    findings = {one["rule"]: one for one in json.loads(stack.cli("doctor", "--json", check=False).stdout)["findings"]}
    assert "time sharding is off" in findings["loses-late-lines"]["message"]
    assert "time_sharding_enabled: true" in findings["loses-late-lines"]["fix"]

    proof: dict[str, Any] = {}

    def read() -> bool:
        with contextlib.suppress(json.JSONDecodeError):
            proof.update(json.loads(stack.cli("prove", "--json", check=False).stdout))
        rows = proof.get("rows", ())
        return len(rows) == HOURS and all(row["behind"] == 0 for row in rows)

    wait_until("everything read", read, 180, 1)
    assert not proof["complete"]
    assert sum(row["expected"] for row in proof["rows"]) == HOURS * LINES
    suspects = wait_until(
        "the sources to be suspect",
        lambda: stack.registry("select flow_reason from sources where service = 'backlog' and flow = 'suspect'"),
        180,
        1,
    )
    assert all(row["flow_reason"] for row in suspects)
