"""Policy files: what is taken, what is refused with its line, and that a bad file stops nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.layout import StateLayout
from onecollector_resources.retention.applied import applied_file, load_applied, save_applied
from onecollector_resources.retention.durations import DurationError, loki_text, seconds_of, short_text
from onecollector_resources.retention.policies import (
    Policy,
    RetentionError,
    Rule,
    policies_folder,
    read_policies,
    read_policy,
)
from onecollector_resources.settings import LokiSettings, RetentionSettings, Settings, TenantSettings

DAY = 86_400
GOOD = """\
keep: 31d
rules:
  - selector: '{deployment_environment_name="dev"}'
    keep: 24h
    why: nobody reads it twice
  - {selector: '{service_name=~"audit|ledger"}', keep: forever}
"""


def read(text: str, judge: object = None) -> tuple[Policy | None, list[str]]:
    found = read_policy(Path("policies/payments.yaml"), text, judge)  # pyright: ignore[reportArgumentType]
    return found.policy, [str(fault) for fault in found.faults]


def test_a_policy_as_it_is_written() -> None:
    policy, faults = read(GOOD)
    assert faults == []
    assert policy == Policy(
        31 * DAY,
        (
            Rule('{deployment_environment_name="dev"}', DAY, "nobody reads it twice"),
            Rule('{service_name=~"audit|ledger"}', 0),
        ),
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("31d", "-31d", "policies/payments.yaml:1: keep: expected a duration such as 24h, 31d or 1y, found '-31d', a negative one; or forever"),
        ("31d", "31", "policies/payments.yaml:1: keep: expected a duration such as 24h, 31d or 1y, found 31, a number without a unit; or forever"),
        ("31d", "23h", "policies/payments.yaml:1: keep: expected at least 24h (or forever), found '23h': Loki removes by the day"),
        ("31d", "90y", "policies/payments.yaml:1: keep: expected less than 50y, found '90y'; for longer write forever"),
        ("keep: 24h", "keep: 30m", "policies/payments.yaml:4: rules[0].keep: expected at least 24h (or forever), found '30m': Loki removes by the day"),
        ("keep: 24h", "keeps: 24h", "policies/payments.yaml:4: rules[0].keeps: unknown key 'keeps'; known: selector, keep, why"),
        ("keep: 31d", "kept: 31d", "policies/payments.yaml:1: kept: unknown key 'kept'; known: keep, rules"),
        ("keep: 31d\n", "keep: 31d\nkeep: 7d\n", "policies/payments.yaml:2: keep: 'keep' stands twice; only the last would count"),
        ("audit|", "audit(?=x)|", "policies/payments.yaml:6: rules[1].selector: '(?=' in the regular expression 'audit(?=x)|ledger' is not known to Loki (RE2)"),
        ("nobody reads it twice", "3", "policies/payments.yaml:5: rules[0].why: expected text, found 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line_what_was_expected_and_what_was_found(
    old: str, new: str, said: str
) -> None:
    policy, faults = read(GOOD.replace(old, new, 1))
    assert policy is None
    assert said in faults


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected `keep:` and `rules:`, found nothing"),
        ("rules: []", "expected `keep:` or `rules:`, found neither"),
        ("keep: 31d\nrules: {a: 1}", "2: rules: expected a list of rules, found dict"),
        ("keep: 31d\nrules: [24h]", "2: rules[0]: expected selector and keep"),
        ("keep: 31d\nrules:\n- {keep: 2d}", "3: rules[0]: expected 'selector', found only keep"),
        ("keep: [", "not YAML"),
        ("rules:\n- {selector: '{a=\"b\"} |= \"x\"', keep: 2d}", "2: rules[0].selector: expected a stream selector and nothing else"),
        ("rules:\n- {selector: '{a=~\".*\"}', keep: 2d}", "expected at least one = or =~ that needs a value"),
        ("rules:\n- {selector: '{a=\"b\",}', keep: 2d}", "expected a matcher behind the last comma"),
        ("rules:\n- {selector: '{a=\"b\"}', keep: 2d}\n- {selector: '{ a = `b` }', keep: 3d}", "3: rules[1].selector: rules[0] has the same selector and wins"),
    ],
)  # fmt: skip
def test_what_is_no_policy_at_all(text: str, said: str) -> None:
    policy, faults = read(text)
    assert policy is None
    assert any(said in fault for fault in faults), faults


def test_lokis_own_complaint_about_a_selector_counts() -> None:
    _, faults = read(GOOD, lambda selector: "Loki says no" if "audit" in selector else "")
    assert faults == ["policies/payments.yaml:6: rules[1].selector: Loki says no"]


def test_one_bad_file_stops_nobody_else_and_no_tenant_is_made_up(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        tenants={"default": TenantSettings(), "payments": TenantSettings(), "shop": TenantSettings()},
        loki=LokiSettings(tenant_overrides={"shop": {"retention_period": "48h"}}),
    )
    for name, text in {"default": GOOD, "payments": "keep: 1h", "paymets": GOOD, "shop": GOOD}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "README.md").write_text("not a policy")
    found = read_policies(tmp_path, settings)
    assert {tenant: one.policy is not None for tenant, one in found.items()} == {
        "default": True,
        "payments": False,
        "paymets": False,
        "shop": False,
    }
    assert "unknown tenant 'paymets' (the file's name); known: default, payments, shop" in str(found["paymets"].faults)
    assert "loki.tenant_overrides.shop.retention_period says it, too; say it in one place" in str(found["shop"].faults)


def test_a_folder_that_was_named_and_is_not_there_is_not_the_same_as_no_policies(tmp_path: Path) -> None:
    named = Settings(state_dir=tmp_path, retention=RetentionSettings(policies_dir=tmp_path / "none"))
    with pytest.raises(
        RetentionError, match=r"none: expected a folder of <tenant>\.yaml.*mend retention\.policies_dir"
    ):
        read_policies(policies_folder(named, None), named)
    plain, config = Settings(state_dir=tmp_path), tmp_path / "onecollector.yaml"
    assert policies_folder(plain, config) is None
    (tmp_path / "policies").mkdir()
    assert policies_folder(plain, config) == tmp_path / "policies"
    assert read_policies(None, plain) == {}


def test_what_was_applied_is_remembered_and_a_broken_memory_is_not_an_empty_one(tmp_path: Path) -> None:
    layout = StateLayout(tmp_path)
    assert load_applied(layout) == {}
    policies = {"default": Policy(DAY, (Rule('{a="b"}', 0, "why"),)), "shop": Policy(None, ())}
    save_applied(layout, policies)
    assert load_applied(layout) == policies
    applied_file(layout).write_text("{")
    with pytest.raises(RetentionError, match=r"applied\.json cannot be used"):
        load_applied(layout)


@given(st.integers(0, 10**10))
def test_a_duration_survives_lokis_spelling_and_ours(seconds: int) -> None:
    assert seconds_of(loki_text(seconds)) == seconds_of(short_text(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1w", 604_800), ("2h41m0s", 9_660), ("1y2d", 31_708_800), ("0s", 0), ("0", 0), ("1d500ms", DAY)],
)
def test_durations_as_loki_prints_them(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "31", "1 d", "d", "1.5d", "one day", None, True, 24, "-1", "-1s"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(DurationError, match="expected a duration such as"):
        seconds_of(text)
