"""What a pre-flight concludes: from a config, from lines that came back or did not, and through a gateway that tells nothing."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.answers import Entry
from onecollector_resources.loki.catalogue import seconds_of_duration as seconds_of
from onecollector_resources.loki.preflight import trials
from onecollector_resources.loki.preflight.known import Known, bytes_of, known_of
from onecollector_resources.loki.preflight.rules import config_findings
from onecollector_resources.loki.preflight.trials import Pushed, Trial
from onecollector_resources.loki.preflight.trying import PREFIX, try_lines
from onecollector_resources.loki.querier import LokiError

STOCK: dict[str, Any] = {
    "server": {"grpc_server_max_recv_msg_size": 4 << 20},
    "ingester": {"max_chunk_age": "2h0m0s", "query_store_max_look_back_period": "2h41m0s"},
    "limits_config": {
        "shard_streams": {"enabled": True, "time_sharding_enabled": False, "desired_rate": "1536KB"},
        "per_stream_rate_limit": "3MB",
        "ingestion_rate_mb": 4,
        "max_global_streams_per_user": 5000,
        "creation_grace_period": "10m",
        "reject_old_samples": True,
        "reject_old_samples_max_age": "1w",
        "allow_structured_metadata": True,
    },
}


def rules(**limits: Any) -> dict[str, str]:
    config = {**STOCK, "limits_config": {**STOCK["limits_config"], **limits}}
    return {finding.rule: finding.level for finding in config_findings(known_of(config), "loki")}


def test_a_stock_config() -> None:
    assert rules() == {
        "loses-late-lines": "error",
        "low-rate": "warning",
        "loses-hot-lines": "warning",
        "doubles-resent-lines": "warning",
        "hangs-on-large-pages": "warning",
        "few-streams": "warning",
    }


def test_each_limit_is_a_finding_of_its_own_and_every_cure_is_yaml() -> None:
    sharding = {"enabled": True, "time_sharding_enabled": True, "desired_rate": "64MB"}
    well = {"shard_streams": sharding, "per_stream_rate_limit": "64MB", "ingestion_rate_mb": 64, "max_global_streams_per_user": 100_000}  # fmt: skip
    assert rules(**well) == {"hangs-on-large-pages": "warning"}
    assert rules(**well, allow_structured_metadata=False)["no-metadata"] == "error"
    assert rules(**well, reject_old_samples_max_age="24h")["refuses-backlogs"] == "warning"
    assert rules(**{**well, "per_stream_rate_limit": "3MB", "shard_streams": {**sharding, "enabled": False}})["loses-hot-lines"] == "error"  # fmt: skip
    # A tenant that may write less than a stream never reaches the stream's limit.
    assert "loses-hot-lines" not in rules(**{**well, "per_stream_rate_limit": "3MB", "ingestion_rate_mb": 2})
    for finding in config_findings(known_of(STOCK), "loki"):
        assert isinstance(yaml.safe_load(finding.fix), dict), finding


@pytest.mark.parametrize(
    ("value", "wrong"), [("-1ns", False), (-1, False), ("-1s", True), ("-5m0s", True), ("0s", False)]
)
def test_a_look_back_that_makes_queries_wrong(value: Any, wrong: bool) -> None:
    config = {"ingester": {"query_store_max_look_back_period": value}}
    assert ["wrong-rows"] * wrong == [finding.rule for finding in config_findings(known_of(config), "loki")]


def test_what_is_not_told_is_no_finding_and_a_tenants_limits_go_over_the_configs() -> None:
    assert list(config_findings(Known(), "loki")) == []
    assert list(config_findings(known_of("not yaml at all"), "loki")) == []
    known = known_of(STOCK, {"ingestion_rate_mb": 16})
    assert (known.limit("ingestion_rate_mb"), known.limit("per_stream_rate_limit")) == (16, "3MB")
    assert known.limit("shard_streams", "desired_rate", "no", "such") is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("256KB", 262_144), ("3MB", 3 << 20), ("0B", 0), (1024, 1024), ("1.5mb", 3 << 19), ("x", None), (None, None)],
)
def test_sizes(text: Any, size: int | None) -> None:
    assert bytes_of(text) == size


@given(st.integers(0, 99), st.integers(1, 59), st.integers(1, 59))
def test_durations(hours: int, minutes: int, seconds: int) -> None:
    assert seconds_of(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds
    assert seconds_of(f"-{hours}h") is None


# -- what lines mean


def entry(line: str, labels: dict[str, str] | None = None, metadata: dict[str, str] | None = None) -> Entry:
    return Entry(1, line, labels or {}, metadata or {})


OK, REFUSED = Pushed(204), Pushed(400, "max entry size '262144' bytes exceeded for stream '{a=\"b\"}' while adding")
MANY = {f"attribute_{n}": "value" for n in range(trials.MANY)}
LONG = entry("long ".ljust(trials.LONG_BYTES, "x"))
AROUND = [entry("before"), entry("after")]


@pytest.mark.parametrize(
    ("trial", "outcome", "level", "said"),
    [
        (trials.judge_late(OK, [entry("late")], 7200), "kept", "ok", "2 h behind"),
        (trials.judge_late(OK, [entry("beside")], 7200), "lost", "error", "is lost, and the push was answered 204"),
        (trials.judge_late(REFUSED, [entry("beside")], 7200), "lost", "error", "refused (400"),
        (trials.judge_late(OK, [], 9000), "lost", "error", "2.5 h late nor the good one"),
        (trials.judge_hidden(OK, [entry("old")]), "kept", "ok", "found at once"),
        (trials.judge_hidden(OK, []), "hidden", "warning", "taken and not found"),
        (trials.judge_hidden(REFUSED, []), "lost", "error", "refused (400"),
        (trials.judge_twice([entry("twice")]), "kept", "ok", "once"),
        (trials.judge_twice([entry("twice")] * 2), "doubled", "warning", "there 2 times"),
        (trials.judge_twice([]), "lost", "error", "did not come back"),
        (trials.judge_long(OK, [LONG, *AROUND]), "kept", "ok", "300 kB is kept whole"),
        (trials.judge_long(OK, [entry("long xxx"), *AROUND]), "cut", "warning", "the first 0 kB"),
        (trials.judge_long(REFUSED, AROUND), "lost", "error", "(400: max entry size '262144' bytes exceeded while adding)"),
        (trials.judge_long(REFUSED, []), "lost", "error", "neighbours in the push are gone with it"),
        (trials.judge_attributes(OK, [entry("attributes", metadata=MANY)]), "kept", "ok", "100 attributes"),
        (trials.judge_attributes(OK, [entry("attributes", metadata={"attribute_1": "value"})]), "cut", "error", "1 are kept"),
        (trials.judge_attributes(REFUSED, []), "lost", "error", "lost (400"),
        (trials.judge_future(None, known_of(STOCK)), "not tried", "ok", "up to 10m ahead"),
        (trials.judge_future(REFUSED, Known()), "refused", "warning", "15 m ahead is refused"),
        (trials.judge_otlp(OK, [entry("otlp", {"service_name": "s"})]), "kept", "ok", "labels are service_name"),
        (trials.judge_otlp(OK, [entry("otlp", {"container_name": "c"}, {"detected_level": "info"})]), "labels", "warning", "container_name become labels"),
        (trials.judge_otlp(Pushed(404), []), "lost", "error", "did not come back (404)"),
        (trials.judge_hot([], {}, known_of(STOCK)), "not tried", "ok", "3MB a second, so says the limit"),
        (trials.judge_hot([OK] * 2, {"hot": 64, "quiet": 2}, Known()), "kept", "ok", "4 MB"),
        (trials.judge_hot([OK] * 2, {"hot": 60, "quiet": 2}, Known()), "lost", "error", "4 of 64 lines of a hot stream"),
        (trials.judge_hot([OK] * 2, {"hot": 64, "quiet": 1}, Known()), "lost", "error", "1 of 2 of a quiet one"),
        (trials.judge_hot([OK, Pushed(429, "slow")], {"hot": 32, "quiet": 1}, Known()), "refused", "warning", "1 of 2 pushes are refused (429: slow)"),
    ],
)  # fmt: skip
def test_what_came_back_decides(trial: Trial, outcome: str, level: str, said: str) -> None:
    assert (trial.outcome, trial.level) == (outcome, level)
    assert said in trial.found
    finding = trial.finding("loki")
    assert (finding is None) == (level == "ok")
    if finding:
        assert isinstance(yaml.safe_load(finding.fix), dict), "a cure is YAML to paste"


def test_a_late_line_is_later_than_half_a_chunks_age() -> None:
    assert trials.behind_s(Known()) == 7_200
    assert trials.behind_s(known_of({"ingester": {"max_chunk_age": "8h0m0s"}})) == 4 * 3600 + 1800


# -- through a gateway that shows pushes and queries alone


class Gateway:
    """Keeps what is pushed, all of it; refuses what tells of the Loki itself."""

    def __init__(self, push_status: int = 204, late_kept: bool = True) -> None:
        self.rows: list[tuple[dict[str, str], list[Any]]] = []
        self.push_status, self.late_kept, self.deleted = push_status, late_kept, False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/loki/api/v1/push":
            if self.push_status == 204:
                for stream in json.loads(gzip.decompress(request.content))["streams"]:
                    kept = [v for v in stream["values"] if self.late_kept or v[1] != "late"]
                    self.rows += [(stream["stream"], v) for v in kept]
            return httpx.Response(self.push_status, text="" if self.push_status == 204 else "no org id")
        if path == "/otlp/v1/logs":
            self.rows.append(({"service_name": "s"}, ["1", "otlp"]))
            return httpx.Response(204)
        if path == "/loki/api/v1/query_range":
            return httpx.Response(
                200, json=_streams([row for row in self.rows if row[0].get("trial") not in ("hot", "quiet")])
            )
        if path == "/loki/api/v1/query":
            counts = {name: sum(row[0].get("trial") == name for row in self.rows) for name in ("hot", "quiet")}
            result = [{"metric": {"trial": name}, "value": [1, str(n)]} for name, n in counts.items()]
            return httpx.Response(200, json={"data": {"resultType": "vector", "result": result}})
        return httpx.Response(404, text="no such path here")


def _streams(rows: list[tuple[dict[str, str], list[Any]]]) -> dict[str, Any]:
    result = [
        {"stream": labels, "values": [[v[0], v[1], {"structuredMetadata": v[2] if len(v) > 2 else {}}]]}
        for labels, v in {(row[0].get("trial"), row[1][0], row[1][1]): row for row in rows}.values()
    ]
    return {"data": {"resultType": "streams", "result": result, "encodingFlags": ["categorize-labels"]}}


def through(gateway: Gateway) -> Any:
    ticks = iter(range(1_700_000_000, 1_800_000_000))
    return try_lines(
        LokiAccess("http://gateway", "shop"),
        "ab12",
        clock=lambda: float(next(ticks)),
        sleep=lambda _: None,
        transport=httpx.MockTransport(gateway),
    )


def test_a_gateway_that_tells_nothing_is_tried_all_the_same() -> None:
    found = through(Gateway())
    assert found.sources == ()
    assert found.findings == ()
    assert {trial.outcome for trial in found.trials} == {"kept"}
    assert found.service == PREFIX + "ab12"
    assert not found.removal.deleted
    assert 'lines of {service_name="onecollector-preflight-ab12"} cannot be deleted' in found.removal.said
    (lost,) = through(Gateway(late_kept=False)).findings
    assert (lost.level, lost.rule) == ("error", "loses-late-lines")


def test_a_loki_that_takes_no_line_is_an_error_in_its_own_words() -> None:
    with pytest.raises(LokiError, match=r"takes no lines: .* answered 401: no org id"):
        through(Gateway(push_status=401))


@pytest.mark.parametrize(
    ("compactor", "said"),
    [
        ({"retention_enabled": True, "delete_request_cancel_period": "10s"}, "hidden in the store for 31d: its cancel period (10s) ends before"),
        ({"retention_enabled": True, "delete_request_cancel_period": "24h0m0s"}, "deleted after Loki's cancel period (24h0m0s)"),
    ],
)  # fmt: skip
def test_what_becomes_of_the_scratch_lines_is_said_as_it_is(compactor: dict[str, Any], said: str) -> None:
    config = {"limits_config": {"retention_period": "31d"}, "compactor": compactor}

    class Whole(Gateway):
        made: dict[str, Any] | None = None

        def __call__(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/config":
                return httpx.Response(200, text=yaml.safe_dump(config))
            if request.url.path == "/loki/api/v1/format_query":
                return httpx.Response(200, json={"data": request.url.params["query"]})
            if request.url.path == "/loki/api/v1/delete" and request.method == "POST":
                params = request.url.params
                self.made = {"request_id": "7", "query": params["query"], "status": "received", "created_at": 1}
                self.made |= {
                    f"{end}_time": datetime.fromisoformat(params[end]).timestamp() for end in ("start", "end")
                }
                return httpx.Response(204)
            if request.url.path == "/loki/api/v1/delete":
                return httpx.Response(200, json=[self.made] if self.made else [])
            return super().__call__(request)

    gateway = Whole()
    found = through(gateway)
    assert found.removal.deleted
    assert said in found.removal.said
    assert gateway.made is not None
    stamps = [int(values[0]) for _, values in gateway.rows if int(values[0]) > 1]
    covered = [s for s in stamps if gateway.made["start_time"] * 10**9 <= s <= gateway.made["end_time"] * 10**9]
    # All but the line of the future, which this Loki might not take.
    assert len(stamps) - len(covered) == 1
