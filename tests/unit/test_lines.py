"""The line of the config that a finding is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.collector.builder import OtelConfigBuilder, render_yaml
from onecollector_resources.collector.lines import line_of, told
from onecollector_resources.records import Finding
from onecollector_resources.settings import Settings

TEXT = """\
receivers:
  file_log/docker.default:
    include: [a]
    storage: x
  file_log/docker.default.more:
    storage: y
processors:
  filter/horizon: {}
"""


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("receivers.file_log/docker.default.storage", 4),
        ("receivers::file_log/docker.default.more::storage", 6),
        ("receivers.file_log/docker.default.nothing", 2),
        ("processors::filter/horizon:", 8),
        ("exporters.none", None),
        ("config", None),
        ("", None),
    ],
)
def test_a_place_leads_to_the_line_of_its_key(where: str, line: int | None) -> None:
    assert line_of(TEXT, where) == line


def test_what_is_no_yaml_is_the_line_where_reading_ends() -> None:
    assert line_of("a: 1\nb: [1, 2\nc: 3\n", "b") == 3


def test_a_finding_is_told_with_its_line() -> None:
    finding = Finding("error", "storage", "receivers.file_log/docker.default.storage", "expected z, found x", "")
    assert told(finding, TEXT) == "line 4: receivers.file_log/docker.default.storage: expected z, found x"


@given(st.text(max_size=60))
def test_any_place_is_a_line_of_the_text_or_none(where: str) -> None:
    line = line_of(TEXT, where)
    assert line is None or 1 <= line <= TEXT.count("\n")


def test_every_component_of_a_real_config_is_found() -> None:
    config = OtelConfigBuilder(Settings()).generate_config()
    import yaml

    lines = config.text.splitlines()
    data = yaml.safe_load(config.text)
    assert render_yaml(data) == config.text
    for section in ("receivers", "processors", "exporters", "extensions"):
        for name in data[section]:
            line = line_of(config.text, f"{section}::{name}: what the binary says")
            assert line is not None
            assert lines[line - 1].strip().startswith(f"{name}:")
