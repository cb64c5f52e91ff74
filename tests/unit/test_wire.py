"""What Loki's answers mean: which refusals are final, which say what to ask for instead, which pass."""

from __future__ import annotations

import gc
from typing import Any

import httpx
import pytest

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.wire import Limits, Page, Trouble, Wire, duration_ns, trouble_of

TOO_MANY = "max entries limit per query exceeded, limit > max_entries_limit_per_query (50001 > 50000)"
GRPC = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (6213423 vs. 4194304)"
READ = (
    "the query would read too many bytes (query: 1.2 TB, limit: 150 GB); consider adding more specific stream selectors"
)


@pytest.mark.parametrize(
    ("status", "text", "kind", "limit"),
    [
        (400, TOO_MANY, "limit", 50_000),
        (400, "the query time range exceeds the limit (query length: 800h, limit: 721h)", "too_long", 0),
        (400, READ, "too_long", 0),
        (429, "too many outstanding requests", "busy", 0),
        (500, GRPC, "too_large", 0),
        (500, "internal", "failed", 0),
        (504, "context deadline exceeded", "failed", 0),
        (502, "<html>", "failed", 0),
        (499, "The request was cancelled by the client.", "failed", 0),
        (401, "no org id", "refused", 0),
        (404, "404 page not found", "refused", 0),
        (400, "parse error at line 1, col 5: syntax error", "refused", 0),
    ],
)
def test_a_refusal_is_sorted_by_what_helps(status: int, text: str, kind: str, limit: int) -> None:
    trouble = trouble_of(status, text, '{a="b"}')
    assert (trouble.kind, trouble.limit, trouble.status) == (kind, limit, status)
    assert text in trouble.message


def wire(answer: Any) -> Wire:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Wire(LokiAccess("http://127.0.0.1:1", "t").client(transport=httpx.MockTransport(handle)))


def page(answer: Any) -> Page | Trouble:
    return wire(answer).page('{a="b"}', 0, 10, 5, 1)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), "away"),
        (httpx.ConnectTimeout("slow"), "away"),
        (httpx.ReadTimeout("slow"), "silent"),
        (httpx.ReadError("reset"), "cut"),
        (httpx.RemoteProtocolError("peer closed connection without sending complete message body"), "cut"),
    ],
)
def test_a_broken_way_is_told_from_silence(error: Exception, kind: str) -> None:
    trouble = page(error)
    assert isinstance(trouble, Trouble)
    assert trouble.kind == kind
    assert str(error) in trouble.message


def streams(*values: list[Any]) -> httpx.Response:
    result = [{"stream": {"a": "b", "__stream_shard__": "1"}, "values": list(values)}]
    return httpx.Response(200, json={"status": "success", "data": {"resultType": "streams", "result": result}})


def test_a_page_is_columns_without_what_the_query_made_itself() -> None:
    extra = {"structuredMetadata": {"z": "1", "b": "2"}, "parsed": {"p": "3"}}
    found = page(streams(["3", "x", extra], ["4", "", {}], ["5", "y"]))
    assert isinstance(found, Page)
    assert found.lines.block.metadata.to_pylist() == [[("b", "2"), ("z", "1")], [], []]
    assert found.lines.block.line.to_pylist() == ["x", "", "y"]
    assert list(found.lines.block.streams) == ['{"a":"b"}']
    assert found.lines.labels[0]["__stream_shard__"] == "1"
    assert gc.isenabled()


def test_lines_that_are_no_utf_8_are_read_all_the_same() -> None:
    body = streams(["3", "x?y", {}]).content.replace(b"x?y", b"x\xffy")
    found = page(httpx.Response(200, content=body))
    assert isinstance(found, Page)
    assert found.lines.block.line.to_pylist() == ["x\ufffdy"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"data": {"resultType": "matrix", "result": []}}),
        httpx.Response(200, json={"data": {"resultType": "streams", "result": [{"values": [["x"]]}]}}),
        streams(["11", "behind the end", {}]),
    ],
)
def test_an_answer_to_another_question_is_none(answer: httpx.Response) -> None:
    trouble = page(answer)
    assert isinstance(trouble, Trouble)
    assert trouble.kind == "garbled"


def test_limits_and_durations() -> None:
    told = {"limits": {"max_entries_limit_per_query": 7, "max_query_length": "30d1h"}}
    assert wire(httpx.Response(200, json=told)).limits(1) == Limits(7, 721 * 3600 * 10**9)
    other = wire(httpx.Response(200, json={"limits": {}})).limits(1)
    assert isinstance(other, Trouble)
    assert duration_ns("721h0m0s") == duration_ns("30d1h")
    assert duration_ns("0s") == 0
    assert duration_ns("1.5s") == 1_500_000_000
    with pytest.raises(ValueError, match="expected a duration such as 30d1h, found '1x'"):
        duration_ns("1x")


def test_a_long_query_goes_into_the_body() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return streams()

    client = LokiAccess("http://loki", "t").client(transport=httpx.MockTransport(handle))
    Wire(client).page('{a="b"} |= "' + "x" * 10_000 + '"', 0, 10, 5, 1)
    assert seen[0].method == "POST"
    assert len(str(seen[0].url)) < 200
    assert seen[0].headers["X-Scope-OrgID"] == "t"
    assert seen[0].headers["Accept-Encoding"] != "identity"
