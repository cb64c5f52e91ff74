"""Who a container or file is: names that are safe whatever a label says, and defaults that fit without labels."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.discovery.identity import (
    identify_container,
    identify_file,
    image_service,
    parse_time,
    safe_name,
    service_of,
    why_unreadable,
)
from onecollector_resources.records import ObservedSource
from onecollector_resources.settings import SAFE_NAME, FileSource, Settings

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOSTILE = [
    "with space",
    'quo"te',
    "new\nline",
    "../../etc/passwd",
    "ünïcode",
    "x" * 10_000,
    "",
    ".",
    "..",
    "a/b",
    "\0",
    "\n",
]


def settings(**more: Any) -> Settings:
    return Settings(**{"tenants": ["default", "acme"], "agent": {"host_name": "h1"}, **more})


def container(labels: dict[str, str], *, name: str = "web-1", image: str = "web:1", **more: Any) -> ObservedSource:
    facts: dict[str, Any] = {"driver": "json-file", "log_path": "/l", "running": True, "created": NOW, **more}
    return identify_container(
        "a" * 64, name, image, labels, settings(multiline={"java": {"first_line": "^\\S"}}), **facts
    )


@given(st.text(max_size=300))
def test_a_safe_name_is_always_one_harmless_path_component(raw: str) -> None:
    name = safe_name(raw)
    assert SAFE_NAME.fullmatch(name)
    assert not name.startswith(".")
    assert len(name.encode()) <= 100


@given(st.text(max_size=300))
def test_making_a_name_safe_twice_changes_nothing(raw: str) -> None:
    assert safe_name(safe_name(raw)) == safe_name(raw)


@given(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", fullmatch=True))
def test_a_name_that_is_safe_stays_as_it_is(name: str) -> None:
    assert safe_name(name) == name


@given(st.text(max_size=150), st.text(max_size=150))
def test_two_names_do_not_become_one_by_being_cleaned(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


@pytest.mark.parametrize("raw", HOSTILE)
def test_hostile_names_keep_nothing_hostile(raw: str) -> None:
    assert SAFE_NAME.fullmatch(safe_name(raw))
    assert safe_name(raw)[0] != "."


def test_names_that_differ_only_in_what_is_cleaned_stay_apart() -> None:
    assert len({safe_name(name) for name in ("a b", "a/b", "a\nb", "a_b", "x" * 101, "x" * 102)}) == 6


@pytest.mark.parametrize(
    ("image", "service"),
    [
        ("nginx", "nginx"),
        ("registry:5000/team/web:1.2", "web"),
        ("web@sha256:" + "0" * 64, "web"),
        ("sha256:" + "0" * 64, ""),
        ("0123456789ab", ""),
    ],
)
def test_an_image_names_a_service_by_its_last_part(image: str, service: str) -> None:
    assert image_service(image) == service


def test_the_service_comes_from_the_first_of_label_compose_swarm_kubernetes_image_and_name() -> None:
    labels = {
        "onecollector.io/service": "own",
        "com.docker.compose.service": "compose",
        "com.docker.swarm.service.name": "swarm",
        "io.kubernetes.container.name": "k8s",
    }
    order = []
    for key in [*labels]:
        order.append(service_of(labels, "team/web:1", "web-1"))
        labels[key] = " "
    order += [service_of(labels, "team/web:1", "web-1"), service_of(labels, "sha256:" + "0" * 64, "web-1")]
    assert order == ["own", "compose", "swarm", "k8s", "web", "web-1"]


def test_a_label_chooses_a_tenant_of_the_list() -> None:
    assert (container({"onecollector.io/tenant": "acme"}).tenant, container({}).tenant) == ("acme", "default")


@pytest.mark.parametrize("tenant", ["other", "Acme", " acme", "../acme", "acme/../default", "x" * 10_000])
def test_a_label_never_makes_a_tenant(tenant: str) -> None:
    observed = container({"onecollector.io/tenant": tenant})
    assert observed.held.startswith("unknown tenant ")
    assert observed.tenant not in ("default", "acme")
    assert SAFE_NAME.fullmatch(observed.tenant)
    assert len(observed.held) < 150


def test_unknown_profiles_and_multiline_rules_fall_back_with_a_warning() -> None:
    observed = container({"onecollector.io/profile": "cri", "onecollector.io/multiline": "nope"})
    assert (observed.profile, observed.multiline, observed.pipeline) == ("docker", None, "docker")
    assert len(observed.warnings) == 2
    known = container({"onecollector.io/profile": "docker", "onecollector.io/multiline": "java"})
    assert (known.pipeline, known.warnings) == ("docker+java", ())


@pytest.mark.parametrize(
    ("value", "excluded"), [("true", True), ("1", True), (" Yes ", True), ("false", False), ("", False)]
)
def test_exclude_takes_the_usual_words_for_yes(value: str, excluded: bool) -> None:
    assert container({"onecollector.io/exclude": value}).excluded is excluded


@pytest.mark.parametrize("raw", [raw for raw in HOSTILE if raw.strip()])
def test_a_hostile_service_is_kept_as_it_is_beside_its_safe_name(raw: str) -> None:
    observed = container({"onecollector.io/service": raw})
    assert observed.service_raw == raw.replace("\0", "\ufffd")
    assert SAFE_NAME.fullmatch(observed.service)
    assert "\0" not in "".join(observed.labels.values())


@pytest.mark.parametrize(
    ("driver", "options", "dual", "readable"),
    [
        ("json-file", {}, False, True),
        ("local", {}, False, True),
        ("journald", {}, False, True),
        ("none", {}, True, False),
        ("gelf", {}, True, True),
        ("gelf", {"cache-disabled": "true"}, True, False),
        ("syslog", {}, False, False),
    ],
)
def test_a_driver_that_keeps_nothing_to_read_is_named(
    driver: str, options: dict[str, str], dual: bool, readable: bool
) -> None:
    reason = why_unreadable(driver, options, dual_logging=dual)
    assert (reason == "") is readable
    assert readable or driver in reason
    assert container({}, unreadable=reason).uncollectable == reason


def test_an_engine_time_loses_only_what_is_below_a_microsecond() -> None:
    assert parse_time("2026-01-02T00:00:00.123456789Z") == NOW.replace(microsecond=123456)
    assert parse_time("2026-01-02T01:00:00+01:00") == NOW
    assert parse_time("0001-01-01T00:00:00Z") is None


def test_a_file_is_its_path_on_its_host() -> None:
    declared = FileSource(glob="/l/*.log", service="web")
    one, again = (identify_file("/l/a.log", declared, settings(), created=NOW) for _ in range(2))
    other = identify_file("/l/a.log", declared, settings(agent={"host_name": "h2"}), created=NOW)
    assert one and again and other
    assert one == again
    assert one.source_id != other.source_id
    assert len(one.source_id) == 64
    assert (one.service, one.safe_name, one.log_path, one.running) == ("web", "a.log", "/l/a.log", True)


def test_a_service_is_captured_from_a_path_and_a_path_without_it_is_no_source() -> None:
    declared = FileSource(glob="/l/**", service_from=r"/l/(?P<service>[a-z]*)/")
    found = identify_file("/l/shop/x.log", declared, settings(), created=NOW)
    assert found and found.service == "shop"
    assert identify_file("/l/x.log", declared, settings(), created=NOW) is None
    assert identify_file("/l//x.log", declared, settings(), created=NOW) is None


def test_a_path_that_is_not_utf8_is_shown_readably_and_said_to_be_uncollectable() -> None:
    path = b"/l/\xff.log".decode("utf-8", "surrogateescape")
    found = identify_file(path, FileSource(glob="/l/*", service="s"), settings(), created=NOW)
    assert found and "UTF-8" in found.uncollectable
    found.log_path.encode()
