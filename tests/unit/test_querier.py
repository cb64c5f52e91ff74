"""What the clients send to Loki, what they make of its answers, and how a refusal reads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.answers import Entry, Sample, Samples, Streams, parse_logql_response
from onecollector_resources.loki.catalogue import seconds_of_duration
from onecollector_resources.loki.faults import LokiError, NoLogQuery
from onecollector_resources.loki.querier import AsyncLokiQuerierClient, LokiQuerierClient
from onecollector_resources.settings import LokiSettings, SettingsError

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer, **access: Any) -> LokiQuerierClient:
    return LokiQuerierClient(LokiAccess("http://loki/", "team", **access), transport=httpx.MockTransport(answer))


def answering(body: Any, status: int = 200) -> Answer:
    return lambda _: httpx.Response(status, content=body if isinstance(body, bytes) else orjson.dumps(body))


def streams(*values: Any) -> Any:
    return {
        "data": {"resultType": "streams", "result": [{"stream": {"a": "b", "__time_shard__": "1"}, "values": values}]}
    }


@given(
    st.integers(0, 2**63 - 1),
    st.text(),
    st.dictionaries(st.text(min_size=1), st.text()),
    st.dictionaries(st.text(min_size=1), st.text()),
)
def test_lines_come_back_as_loki_holds_them_with_their_kinds_of_fields_apart(
    time_ns: int, line: str, metadata: dict[str, str], parsed: dict[str, str]
) -> None:
    extra = {"structuredMetadata": metadata, "parsed": parsed}
    found = parse_logql_response(orjson.loads(orjson.dumps(streams([str(time_ns), line, extra]))))
    assert found == Streams((Entry(time_ns, line, {"a": "b"}, metadata, parsed),))


def test_each_kind_of_numbers_is_read() -> None:
    def of(kind: str, result: Any) -> Any:
        return parse_logql_response({"data": {"resultType": kind, "result": result}})

    # A scalar's time is in milliseconds.
    assert of("scalar", [1795613252372, "2.5"]) == Samples("scalar", (Sample({}, ((1795613252.372, 2.5),)),))
    assert of("vector", [{"metric": {"a": "b"}, "value": [1, "2"]}]) == Samples(
        "vector", (Sample({"a": "b"}, ((1, 2),)),)
    )
    matrix = of("matrix", [{"metric": {}, "values": [[1, "2"], [2, "+Inf"]]}])
    assert matrix.series[0].value == float("inf")


@pytest.mark.parametrize("payload", [{}, {"data": {"resultType": "poem", "result": []}}, streams(["x"]), [], None])
def test_an_answer_of_another_shape_is_an_error(payload: Any) -> None:
    with pytest.raises(LokiError):
        parse_logql_response(payload)


def test_each_request_says_who_asks_and_how_to_answer() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=streams())

    for access in ({"bearer": "token"}, {"username": "u", "password": "p"}, {}):
        with client(answer, **access) as loki:
            loki.query_range('{a="b"}', 1, 2, 3, "forward")
    request = seen[0]
    assert request.url.path == "/loki/api/v1/query_range"
    assert dict(request.url.params) == {
        "query": '{a="b"}',
        "start": "1",
        "end": "2",
        "limit": "3",
        "direction": "forward",
    }
    assert request.headers["X-Scope-OrgID"] == "team"
    assert request.headers["X-Loki-Response-Encoding-Flags"] == "categorize-labels"
    assert [one.headers.get("Authorization") for one in seen] == ["Bearer token", "Basic dTpw", None]


def test_a_query_too_long_for_a_url_goes_into_the_body() -> None:
    query = '{a="b"} |= "' + "x" * 9_000 + '"'

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.method == "POST"
        assert len(str(request.url)) < 100
        assert b"start=1" in request.read()
        return httpx.Response(200, json=streams())

    assert client(answer).query_range(query, 1, 2) == Streams(())


def test_a_refused_query_shows_lokis_words_and_the_spot() -> None:
    said = b"parse error at line 1, col 27: syntax error: unexpected IDENTIFIER"
    with pytest.raises(LokiError) as error:
        client(answering(said, 400)).query_range('{service_name="payments"} |= error', 1, 2)
    assert str(error.value).splitlines() == [
        "Loki at http://loki refused the query (400): " + said.decode(),
        '    {service_name="payments"} |= error',
        "                              ^",
    ]
    assert (error.value.status, error.value.passing) == (400, False)


@pytest.mark.parametrize(("status", "passing"), [(400, False), (401, False), (429, True), (500, True), (504, True)])
def test_whether_asking_again_may_help_is_known(status: int, passing: bool) -> None:
    with pytest.raises(LokiError) as error:
        client(answering(b"no", status)).labels()
    assert error.value.passing is passing
    assert "refused GET /loki/api/v1/labels" in str(error.value)


def test_what_is_no_json_is_told_with_its_beginning() -> None:
    with pytest.raises(LokiError, match="did not answer with JSON: <html>"):
        client(answering(b"<html>gateway</html>")).labels()


def test_lines_and_numbers_are_not_mistaken_for_each_other() -> None:
    vector = {"data": {"resultType": "vector", "result": []}}
    with pytest.raises(NoLogQuery, match="expected a log query"):
        client(answering(vector)).entries("1", 0, 1)
    with pytest.raises(LokiError, match="expected a metric query"):
        client(answering(streams())).samples('{a="b"}')


def test_limits_are_read_on_a_loki_that_tells_them_elsewhere() -> None:
    def old(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("drilldown-limits"):
            return httpx.Response(404, text="404 page not found")
        return httpx.Response(
            200, text="max_entries_limit_per_query: 5000\nmax_query_length: 30d1h\nretention_period: 0s\n"
        )

    limits = client(old).limits()
    assert (limits.max_entries, limits.max_query_length_s, limits.retention_s) == (5000, 30 * 86_400 + 3_600, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d1h", 2_595_600), ("1m0s", 60), ("500ms", 0.5), ("0s", 0), (0, 0), ("", None), ("soon", None)],
)
def test_lokis_durations(text: Any, seconds: float | None) -> None:
    assert seconds_of_duration(text) == seconds


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Deletes:
    """The delete requests of a Loki, which answers a POST without an id."""

    def __init__(self) -> None:
        self.held: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        params = dict(request.url.params)
        if request.url.path.endswith("format_query"):
            bad = "|= error" in params["query"]
            return (
                httpx.Response(400, text="parse error at line 1, col 4: no")
                if bad
                else httpx.Response(200, json={"data": ""})
            )
        if request.method == "GET":
            return httpx.Response(200, json=self.held)
        number = len(self.held)
        row = {"request_id": f"r{number}", "query": params["query"], "status": "received", "created_at": 1.5}
        self.held.append({**row, "start_time": seconds(params["start"]), "end_time": seconds(params["end"])})
        return httpx.Response(204)


def test_a_delete_request_is_found_by_what_it_asks_and_is_not_made_twice() -> None:
    deletes = Deletes()
    with client(deletes) as loki:
        made = loki.delete_lines('{a="b"}', 10 * 10**9, 20 * 10**9)
        assert made.id == "r0"
        assert loki.delete_lines('{a="b"}', 10 * 10**9, 20 * 10**9) == made
        deletes.held[0]["status"] = "processed"
        assert loki.delete_lines('{a="b"}', 10 * 10**9, 20 * 10**9).id == "r1"
        assert [one.id for one in loki.delete_requests()] == ["r0", "r1"]


@pytest.mark.parametrize("query", ["{a} |= error", "sum(rate({a='b'}[5m]))", '{a="b"} |= error'])
def test_a_wrong_delete_query_never_reaches_loki(query: str) -> None:
    deletes = Deletes()
    with pytest.raises(LokiError):
        client(deletes).delete_lines(query, 0, 10**10)
    assert deletes.held == []


def test_both_clients_have_the_same_methods_with_the_same_arguments_each_described() -> None:
    def methods(of: type) -> dict[str, Any]:
        return {name: getattr(of, name) for name in vars(of) if not name.startswith("_")}

    waiting, soon = methods(LokiQuerierClient), methods(AsyncLokiQuerierClient)
    assert waiting.keys() == soon.keys()
    assert {
        "query_range",
        "query_instant",
        "stream_logs_in_realtime",
        "parse_logql_response",
        "patterns",
    } <= waiting.keys()
    for name, method in waiting.items():
        assert method.__doc__, name
        one, other = inspect.signature(method), inspect.signature(soon[name])
        assert list(one.parameters) == list(other.parameters), name


def test_the_client_for_asyncio_asks_the_same() -> None:
    async def ask() -> list[str]:
        transport = httpx.MockTransport(answering({"data": ["a", "__stream_shard__"]}))
        async with AsyncLokiQuerierClient(LokiAccess("http://loki", "team"), transport=transport) as loki:
            return await loki.labels()

    assert asyncio.run(ask()) == ["a"]


def test_the_settings_say_how_loki_is_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    settings = LokiSettings(username="u", password_env="LOKI_PASSWORD", authority=tmp_path / "ca.pem")
    monkeypatch.delenv("LOKI_PASSWORD", raising=False)
    with pytest.raises(SettingsError, match=r"loki\.password_env: .*LOKI_PASSWORD; it is not set"):
        settings.access("http://loki", "team")
    monkeypatch.setenv("LOKI_PASSWORD", "s3cret")
    with pytest.raises(SettingsError, match=r"loki\.authority: expected a file"):
        settings.access("http://loki", "team")
    (tmp_path / "ca.pem").write_text("x")
    access = settings.access("http://loki", "team", timeout_s=5)
    assert (access.tenant, access.username, access.timeout_s) == ("team", "u", 5)
    assert "s3cret" not in repr(access)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Any) -> None:
    (tmp_path / "ca.pem").write_text("x")
    with pytest.raises(LokiError, match=r"expected certificates and a key as PEM for Loki at http://loki in .*ca\.pem"):
        LokiQuerierClient(LokiAccess("http://loki", "team", authority=tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    "wrong", [{"bearer_env": "A", "username": "u", "password_env": "B"}, {"username": "u"}, {"certificate": "c.pem"}]
)
def test_half_a_way_in_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"together|at most one"):
        LokiSettings(**wrong)
