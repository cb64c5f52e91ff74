"""How lines are framed: the operators of each profile, and identity out of the link's path.

Docker writes JSON and splits lines at 16 KiB; CRI prefixes time, stream and a partial flag; plain text has nothing. A
line that does not parse is shipped as it stands, marked, never dropped. A joined line carries the record number of its
*last* part: the highest number in Loki is then the number of records written.
"""

from __future__ import annotations

from typing import Any

from onecollector_resources.settings import MultilineRule

MAX_LINE = 1_048_576
"""Bytes of one line: Loki's limit, too; what is longer is cut into pieces by the reader."""

PARTS_WAIT = "5s"
"""How long the rest of a line that Docker split is waited for."""

PATH = 'attributes["log.file.path"]'
STREAM = 'attributes["log.iostream"]'

UNPARSED = "unparsed"
"""Stands for the stream of a line that is not framed as it should be, until the last step takes it away."""

PATHS_KEPT = 4_096
"""Files whose parsed path a receiver keeps; more than a host has live."""

IDENTITY = r"/(?P<service>[^/]+)/(?P<name>[^/]+)--(?P<id>[0-9a-f]{64})(?:\.(?P<segment>\d+))?\.log$"
"""``<service>/<name>--<id>[.<n>].log`` at the end of a link's path."""

DOCKER_TIME = "2006-01-02T15:04:05.999999999Z07:00"


def docker_framing() -> list[dict[str, Any]]:
    """Docker's json-file: parse, then join the parts of a long line."""
    return [
        {
            "type": "json_parser",
            "parse_from": "body",
            "parse_to": "attributes.docker",
            "on_error": "send_quiet",
            "timestamp": {
                "parse_from": "attributes.docker.time",
                "layout_type": "gotime",
                "layout": DOCKER_TIME,
                "on_error": "send_quiet",
            },
        },
        # Not JSON at all, or JSON of another shape: the line as it stands, told by a stream of no name that Docker has.
        {
            "type": "add",
            "if": 'type(attributes.docker?.log) != "string"',
            "field": "attributes.docker",
            "value": f'EXPR({{"log": string(body) + "\\n", "stream": "{UNPARSED}"}})',
        },
        {
            "type": "recombine",
            "combine_field": "attributes.docker.log",
            "is_last_entry": 'attributes.docker.log endsWith "\\n"',
            "combine_with": "",
            "source_identifier": PATH,
            "overwrite_with": "newest",
            "force_flush_period": PARTS_WAIT,
            "max_log_size": MAX_LINE,
        },
        _moved("attributes.docker.log", "body"),
        _moved("attributes.docker.stream", STREAM),
        {"type": "remove", "field": "attributes.docker"},
    ]


def cri_framing() -> list[dict[str, Any]]:
    """CRI: ``time stream P|F text``. regex_parser and recombine, because the container operator batches in memory."""
    return [
        {
            "type": "regex_parser",
            "parse_from": "body",
            "parse_to": "attributes.cri",
            "on_error": "send_quiet",
            "regex": r"^(?P<time>\S+) (?P<stream>stdout|stderr) (?P<flag>[PF])(?:[^ ]*) ?(?P<log>[\s\S]*)$",
            "timestamp": {
                "parse_from": "attributes.cri.time",
                "layout_type": "gotime",
                "layout": DOCKER_TIME,
                "on_error": "send_quiet",
            },
        },
        {
            "type": "add",
            "if": "attributes.cri == nil",
            "field": "attributes.cri",
            "value": f'EXPR({{"log": string(body), "flag": "F", "stream": "{UNPARSED}"}})',
        },
        {
            "type": "recombine",
            "combine_field": "attributes.cri.log",
            "is_last_entry": 'attributes.cri.flag == "F"',
            "combine_with": "",
            "source_identifier": PATH,
            "overwrite_with": "newest",
            "force_flush_period": PARTS_WAIT,
            "max_log_size": MAX_LINE,
        },
        _moved("attributes.cri.log", "body"),
        _moved("attributes.cri.stream", STREAM),
        {"type": "remove", "field": "attributes.cri"},
    ]


def plain_framing() -> list[dict[str, Any]]:
    """Plain text: a line is a line."""
    return []


FRAMINGS = {"docker": docker_framing, "cri": cri_framing, "plain": plain_framing}


def multiline_operators(rule: MultilineRule) -> list[dict[str, Any]]:
    """Join lines up to the next one that matches ``first_line``; after framing, because a frame ends at every line."""
    escaped = rule.first_line.replace("\\", "\\\\").replace('"', '\\"')
    return [
        {
            "type": "recombine",
            "combine_field": "body",
            "is_first_entry": f'body matches "{escaped}"',
            "source_identifier": PATH,
            "combine_with": "",
            "overwrite_with": "newest",
            "max_batch_size": rule.max_lines,
            "force_flush_period": f"{rule.flush_ms}ms",
            "max_log_size": MAX_LINE,
        }
    ]


def identity_operators() -> list[dict[str, Any]]:
    """Service as a resource attribute (an index label), all else as log attributes.

    What the path says is parsed once per file: the parser keeps its answers, so they are copied, never moved.
    """
    return [
        {
            "type": "regex_parser",
            "parse_from": PATH,
            "parse_to": "attributes.link",
            "regex": IDENTITY,
            "on_error": "send_quiet",
            "cache": {"size": PATHS_KEPT},
        },
        _copied("attributes.link.service", 'resource["service.name"]'),
        _copied("attributes.link.name", 'attributes["container.name"]'),
        _copied("attributes.link.id", 'attributes["container.id"]'),
        _copied("attributes.link.segment", 'attributes["log.segment"]'),
        {"type": "remove", "field": "attributes.link", "on_error": "send_quiet"},
        {"type": "remove", "field": PATH},
    ]


def _moved(source: str, target: str) -> dict[str, Any]:
    # An ``if`` costs as much as the move; where there is nothing to move, the line goes on as it is.
    return {"type": "move", "from": source, "to": target, "on_error": "send_quiet"}


def _copied(source: str, target: str) -> dict[str, Any]:
    return {"type": "copy", "from": source, "to": target, "on_error": "send_quiet"}


def operators(profile: str, rule: MultilineRule | None) -> list[dict[str, Any]]:
    """All operators of a pipeline's receiver. Raises KeyError for an unknown profile."""
    framing = FRAMINGS[profile]()
    return [*framing, *(multiline_operators(rule) if rule else []), *identity_operators()]
