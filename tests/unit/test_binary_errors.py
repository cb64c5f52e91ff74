"""What the collector's binary says of a config, as findings at a place. Texts as 0.149 prints them."""

from __future__ import annotations

import pytest

from onecollector_resources.collector.validate import parse_errors

HEAD = "Error: failed to get config: cannot unmarshal the configuration: decoding failed due to the following error(s):\n\n"


@pytest.mark.parametrize(
    ("output", "where", "message"),
    [
        (
            HEAD
            + "'processors' error reading configuration for \"memory_limiter\": decoding failed due to the following error(s):\n"
            "\n'limit_mib' expected type 'uint32', got unconvertible type 'string'\n",
            "processors::memory_limiter::limit_mib",
            "expected type 'uint32'",
        ),
        (
            HEAD
            + "'exporters' error reading configuration for \"otlp_http/default\": decoding failed due to the following error(s):\n"
            "\n'otlphttpexporter.Config' has invalid keys: endpoont\n",
            "exporters::otlp_http/default::endpoont",
            "invalid keys",
        ),
        (
            'Error: failed to build pipelines: failed to create "file_log/docker.default" receiver for data type '
            '"logs": compiling regex: error parsing regexp: invalid named capture: `(?P<x`\n',
            "receivers::file_log/docker.default",
            "invalid named capture",
        ),
        (
            'Error: service::pipelines::logs/default: references processor "nothing" which is not configured\n',
            "service::pipelines::logs/default",
            "nothing",
        ),
        (
            HEAD + '\'receivers\' unknown type: "nosuch" for id: "nosuch" (valid values: [otlp nop])\n',
            "receivers::nosuch",
            "unknown type",
        ),
        ("2026/11/25 10:00:00 something else went wrong\n", "config", "something else went wrong"),
    ],
    ids=["type", "key", "create", "reference", "unknown", "other"],
)
def test_an_error_is_one_finding_at_its_place(output: str, where: str, message: str) -> None:
    (finding,) = parse_errors(output)
    assert finding.where == where
    assert message in finding.message


def test_usage_and_repeats_are_no_findings() -> None:
    said = parse_errors("Error: a\nError: a\nUsage:\n  otelcol validate [flags]\n\nFlags:\n  -h, --help\n")
    assert [finding.message for finding in said] == ["a"]
    assert parse_errors("") == ()
