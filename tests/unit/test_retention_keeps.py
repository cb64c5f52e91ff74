"""Which rule a stream falls under, as Loki decides it; selectors that hold each stream once; and the rendered limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.loki.config import LokiConfigError, render_overrides
from onecollector_resources.retention.boxes import selectors_by_group
from onecollector_resources.retention.keeps import FOREVER, Keeps, keeps_of, same
from onecollector_resources.retention.policies import Policy, Rule
from onecollector_resources.retention.render import planned_keeps, retention_limits
from onecollector_resources.retention.selectors import (
    Matcher,
    SelectorError,
    matches,
    parse_selector,
    selector_text,
)
from onecollector_resources.settings import LokiSettings, Settings

DAY = 86_400
POLICY = Policy(31 * DAY, (Rule('{env="dev"}', DAY), Rule('{service_name=~"audit.*"}', FOREVER, "the law")))


def test_the_first_rule_of_a_file_wins_and_the_rest_keeps_the_period() -> None:
    keeps = keeps_of(retention_limits(POLICY))
    kept = [
        keeps.keep_of(keeps.winner(labels))
        for labels in ({"env": "dev", "service_name": "audit-1"}, {"service_name": "audit-1"}, {"service_name": "web"})
    ]
    assert kept == [DAY, FOREVER, 31 * DAY]


def test_lokis_order_is_priority_and_then_the_shorter_period() -> None:
    stream = [
        {"selector": '{a="b"}', "priority": 1, "period": "48h"},
        {"selector": '{a=~"b|c"}', "priority": 2, "period": "1w"},
        {"selector": '{a!="x", b="1"}', "priority": 2, "period": "2d"},
    ]
    keeps = keeps_of({"retention_period": "31d", "retention_stream": stream})
    assert [keeps.keep_of(keeps.winner({"a": "b", "b": b})) for b in ("1", "2")] == [2 * DAY, 7 * DAY]
    assert keeps.keep_of(keeps.winner({"a": "x", "b": "1"})) == 31 * DAY


def test_limits_are_merged_with_the_settings_and_the_policy_has_the_last_word(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        loki=LokiSettings(tenant_overrides={"default": {"ingestion_rate_mb": 8}, "shop": {"retention_period": "48h"}}),
    )
    rendered = yaml.safe_load(render_overrides(settings, {"default": POLICY}))["overrides"]
    assert rendered == {
        "default": {
            "ingestion_rate_mb": 8,
            "retention_period": "744h",
            "retention_stream": [
                {"selector": '{env="dev"}', "priority": 2, "period": "24h"},
                {"selector": '{service_name=~"audit.*"}', "priority": 1, "period": "876000h"},
            ],
        },
        "shop": {"retention_period": "48h"},
    }
    assert yaml.safe_load(render_overrides(settings))["overrides"] == settings.loki.tenant_overrides
    assert retention_limits(Policy(FOREVER)) == {"retention_period": "0s"}


def test_a_negative_duration_is_refused_also_when_it_comes_around_the_reader(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path, loki=LokiSettings(tenant_overrides={"default": {"retention_period": "-1s"}})
    )
    with pytest.raises(LokiConfigError, match="negative duration"):
        render_overrides(settings)


def test_what_is_planned_starts_from_the_settings_of_our_loki_and_from_the_limits_of_anothers(tmp_path: Path) -> None:
    ours = Settings(
        state_dir=tmp_path,
        loki=LokiSettings(retention="48h", overrides={"limits_config": {"retention_period": "96h"}}),
    )
    assert planned_keeps(ours, "default", None).default_s == 4 * DAY
    assert planned_keeps(ours, "default", Policy(None, POLICY.rules)).default_s == 4 * DAY
    assert planned_keeps(ours, "default", POLICY).default_s == 31 * DAY
    theirs = Settings(state_dir=tmp_path, loki=LokiSettings(url="http://loki.example"))
    in_force = keeps_of({"retention_period": "7d"})
    assert planned_keeps(theirs, "default", None, in_force) is in_force
    planned = planned_keeps(theirs, "default", Policy(None, POLICY.rules), in_force)
    assert (planned.default_s, len(planned.rules)) == (7 * DAY, 2)


def test_equal_selectors_are_equal_however_they_are_spelled() -> None:
    one = keeps_of({"retention_stream": [{"selector": '{ a = "b" }', "priority": 1, "period": "7d"}]})
    other = keeps_of({"retention_stream": [{"selector": "{a=`b`}", "priority": 9, "period": "1w"}]})
    assert same(one, other)
    assert not same(one, Keeps(0))


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)
NAMES = st.sampled_from(["env", "app", "level"])
EXACT = st.builds(Matcher, NAMES, st.sampled_from(["=", "!="]), VALUES)
ANY = st.builds(
    Matcher, NAMES, st.sampled_from(["=~", "!~"]), st.sampled_from(["a.*", "a|b", ".+", "", "[^a]", r"\d+"])
)
SELECTORS = st.lists(EXACT | ANY, min_size=1, max_size=3).map(lambda ms: (*ms, Matcher("service", "=~", ".+")))
LABELS = st.dictionaries(NAMES, st.sampled_from(["", "a", "b", "ab", "1", "x.y|z"]), max_size=3)


@given(SELECTORS)
def test_a_selector_reads_as_it_was_written(matchers: tuple[Matcher, ...]) -> None:
    assert parse_selector(selector_text(matchers)) == matchers


@given(st.lists(LABELS.map(lambda d: {**d, "service": "s"}) | LABELS, max_size=12), st.lists(SELECTORS, max_size=3))
def test_each_stream_is_in_exactly_one_selector_and_in_its_own_group(
    streams: list[dict[str, str]], rules: list[tuple[Matcher, ...]]
) -> None:
    streams = [labels for labels in streams if any(labels.values())]
    stream_rules = [{"selector": selector_text(m), "priority": n, "period": f"{n + 1}d"} for n, m in enumerate(rules)]
    keeps = keeps_of({"retention_stream": stream_rules})
    found = selectors_by_group(streams, keeps.names(), keeps.winner)
    parsed = [(group, parse_selector(text)) for group, texts in found.items() for text in texts]
    for labels in streams:
        assert [group for group, matchers in parsed if matches(matchers, labels)] == [keeps.winner(labels)]


def test_many_services_of_one_group_make_one_selector() -> None:
    streams = [{"service_name": f"s-{n}", "env": env} for n in range(300) for env in ("dev", "prod")]
    keeps = keeps_of({"retention_stream": [{"selector": '{env="dev"}', "priority": 1, "period": "2d"}]})
    assert selectors_by_group(streams, keeps.names(), keeps.winner) == {0: ('{env="dev"}',), None: ('{env="prod"}',)}
    audit = keeps_of({"retention_stream": [{"selector": '{service_name="s-7"}', "priority": 1, "period": "2d"}]})
    found = selectors_by_group(streams, audit.names(), audit.winner)
    assert found[0] == ('{service_name="s-7"}',)
    assert len(found[None]) == 1


@pytest.mark.parametrize(
    "text",
    ["{}", '{a="b"', 'a="b"', '{a=b}', "{a='b'}", '{a.b="c"}', r'{a=~"\d+"}', '{a=~"(b"}', r'{a=~`(x)\1`}', '{a=~`b++`}',
     '{a=~`b{1001}`}', '{a!="b"}', '{a=""}', '{a=~"b|"}', '({a="b"})', 'sum(rate({a="b"}[1m]))', 3, None],
)  # fmt: skip
def test_selectors_that_loki_would_refuse_are_refused(text: Any) -> None:
    with pytest.raises(SelectorError, match=r"expected|expression"):
        parse_selector(text)
