"""Names and identity: whatever a label says, the path stays inside the tree and two sources stay two."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.discovery.identity import (
    identify_container,
    image_service,
    parse_time,
    safe_name,
    service_of,
)
from onecollector_resources.settings import SAFE_NAME, Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def identify(labels: dict[str, str], settings: Settings | None = None, **more: object):
    return identify_container(
        "a" * 64,
        "happy_fox",
        "registry:5000/team/web:1.2",
        labels,
        settings or Settings(),
        driver=str(more.get("driver", "json-file")),
        log_path="/x",
        running=True,
        created=NOW,
    )


@given(st.text(max_size=300))
def test_a_safe_name_is_one_path_component(raw: str) -> None:
    name = safe_name(raw)
    assert 1 <= len(name) <= 109
    assert not name.startswith(".")
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


@given(st.from_regex(SAFE_NAME, fullmatch=True).filter(lambda name: not name.startswith(".")))
def test_a_name_that_is_safe_stays_as_it_is(name: str) -> None:
    assert safe_name(name) == name


@given(st.lists(st.text(max_size=200), unique=True, max_size=30))
def test_two_raw_names_never_become_one(raws: list[str]) -> None:
    assert len({safe_name(raw) for raw in raws}) == len(raws)


@pytest.mark.parametrize(
    ("image", "service"),
    [
        ("web", "web"),
        ("registry:5000/team/web:1.2", "web"),
        ("a/b@sha256:" + "0" * 64, "b"),
        ("sha256:" + "0" * 64, ""),
        ("0123456789ab", ""),
    ],
)
def test_service_of_an_image(image: str, service: str) -> None:
    assert image_service(image) == service


def test_our_label_wins_over_compose_and_image() -> None:
    labels = {"com.docker.compose.service": "composed"}
    assert service_of(labels, "img", "n") == "composed"
    assert service_of({**labels, "onecollector.io/service": "mine"}, "img", "n") == "mine"
    assert service_of({}, "sha256:" + "0" * 64, "n") == "n"


def test_a_label_never_makes_a_tenant() -> None:
    observed = identify({"onecollector.io/tenant": "../../etc"})
    assert observed.held == "unknown tenant '../../etc'"
    assert "/" not in observed.tenant


def test_an_unknown_rule_or_profile_falls_back_with_a_warning() -> None:
    observed = identify({"onecollector.io/multiline": "nope", "onecollector.io/profile": "yaml"})
    assert (observed.multiline, observed.profile) == (None, "docker")
    assert len(observed.warnings) == 2


def test_driver_none_is_uncollectable_with_its_reason() -> None:
    assert "none" in identify({}, driver="none").uncollectable


@pytest.mark.parametrize(
    ("text", "micros"),
    [("2026-11-23T21:24:42.242513487Z", 242513), ("2026-11-23T21:24:42Z", 0), ("2026-11-23T22:24:42.5+01:00", 500000)],
)
def test_engine_times(text: str, micros: int) -> None:
    parsed = parse_time(text)
    assert parsed is not None
    assert (parsed.hour, parsed.microsecond) == (21, micros)


def test_the_engines_never_is_none() -> None:
    assert parse_time("0001-01-01T00:00:00Z") is None
    assert parse_time("") is None
