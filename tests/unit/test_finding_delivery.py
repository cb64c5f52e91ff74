"""What a receiver of findings relies on: all arrive, in order, told apart from repeats; and none waits for another's fault."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from bench.stack import wait_until
from onecollector.local.ports import any_free_port
from onecollector_resources.findings.delivery import (
    FIRST_S,
    GIVEN_UP,
    LONGEST_S,
    Arrived,
    Later,
    Outcome,
    deliver_due,
    wait_s,
)
from onecollector_resources.findings.loki_lines import stamp_ns, stream
from onecollector_resources.findings.message import message
from onecollector_resources.findings.opening import finding_store, senders_of
from onecollector_resources.findings.records import Channel, Delivery
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.findings.webhook import SIGNATURE, WebhookSender, after_s
from onecollector_resources.registry.finding_tables import finding_deliveries
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.settings import ModelSettings, Settings, SettingsError, load_settings
from tests.unit.findings_made import AT, MINUTE, finding
from tests.unit.receivers import HANG, Receiver, receiver

NOW = AT + 10 * MINUTE
HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FindingStore]:
    url = f"sqlite:///{tmp_path / 'r.db'}"
    LogSourceRegistry(url).migrate()
    one = FindingStore(url, lambda: NOW)
    yield one
    one.disconnect()


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


class Loki:
    """Takes everything."""

    channel: Channel = "loki"

    def __init__(self) -> None:
        self.taken: list[Delivery] = []

    def send(self, delivery: Delivery) -> Outcome:
        self.taken.append(delivery)
        return Arrived()


def test_a_finding_is_posted_with_all_that_is_known_of_it_and_signed(store: FindingStore, hook: Receiver) -> None:
    made = finding()
    store.open(made, "sent")
    store.close("default", AT + HOUR)
    sender = WebhookSender(hook.url, "SECRET", environ={"SECRET": "s3cret"})
    assert deliver_due(store, [sender], NOW) == 1
    assert deliver_due(store, [sender], NOW) == 1
    assert deliver_due(store, [sender], NOW) == 0
    opened, closed = hook.messages()
    assert (opened["kind"], closed["kind"]) == ("opened", "closed")
    assert (opened["version"], opened["number"], opened["key"]) == (1, 1, made.key)
    assert (opened["tenant"], opened["service"], opened["signal"]) == ("default", "payments", "new_errors")
    assert (opened["severity"], opened["p"], opened["observed"], opened["expected"]) == ("error", 0.0003, 412.0, 0.0)
    assert (opened["first"], opened["last"]) == ("2026-11-03T14:02:00Z", "2026-11-03T14:09:00Z")
    assert opened["sentence"] == made.sentence
    assert opened["templates"][0]["examples"] == list(made.templates[0].examples)
    assert opened["templates"][0]["query"] == made.templates[0].query
    assert (opened["query"], opened["hint"]) == (made.query, "onecollector findings show 1")
    headers, body = hook.seen[0]
    assert headers["Idempotency-Key"] == f"{made.key}:opened"
    assert headers[SIGNATURE] == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()


def test_what_fails_is_tried_again_until_it_arrives_and_the_others_go_on(store: FindingStore, hook: Receiver) -> None:
    hook.answers = [(500, {}, "oops"), (200, {}, ""), (408, {}, ""), (200, {}, "")]
    for n in range(2):
        store.open(finding(first=AT + n * MINUTE), "sent")
    sender = WebhookSender(hook.url)
    assert deliver_due(store, [sender], NOW, chance=lambda: 0.5) == 1
    waiting = store.deliveries(finding().key)[0]
    assert (waiting.state, waiting.attempts, waiting.last_error) == ("pending", 1, "answered 500: oops")
    assert deliver_due(store, [sender], NOW + timedelta(seconds=1)) == 0
    assert deliver_due(store, [sender], NOW + timedelta(seconds=3), chance=lambda: 0.5) == 0
    assert deliver_due(store, [sender], NOW + timedelta(seconds=8)) == 1
    numbers = [one["number"] for one in hook.messages()]
    assert numbers == [1, 2, 1, 1]
    keys = [headers["Idempotency-Key"] for headers, _ in hook.seen]
    assert len({keys[0], keys[2], keys[3]}) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_names_a_time_is_left_alone_until_then(
    store: FindingStore, hook: Receiver, status: int
) -> None:
    hook.answers = [(status, {"Retry-After": "120"}, ""), (204, {}, "")]
    for n in range(2):
        store.open(finding(first=AT + n * MINUTE), "sent")
    sender = WebhookSender(hook.url)
    assert deliver_due(store, [sender], NOW) == 0
    assert deliver_due(store, [sender], NOW + timedelta(seconds=119)) == 0
    assert len(hook.seen) == 1
    assert deliver_due(store, [sender], NOW + timedelta(seconds=121)) == 2


def test_what_is_refused_is_kept_with_the_reason_and_not_sent_again(store: FindingStore, hook: Receiver) -> None:
    hook.answers = [(404, {}, "no such\x1b[31m hook"), (200, {}, "")]
    for n in range(2):
        store.open(finding(first=AT + n * MINUTE), "sent")
    sender = WebhookSender(hook.url)
    assert deliver_due(store, [sender], NOW) == 1
    refused = store.deliveries(finding().key)[0]
    assert (refused.state, refused.last_error) == ("refused", "answered 404: no such [31m hook")
    assert deliver_due(store, [sender], NOW + HOUR) == 0


def test_a_dead_webhook_holds_up_nothing_but_itself(store: FindingStore, hook: Receiver) -> None:
    hook.answers = [(HANG, {}, "")]
    for n in range(50):
        store.open(finding(first=AT + n * MINUTE), "sent")
    for url, seen in ((hook.url, 1), (f"http://127.0.0.1:{any_free_port(set())}/", 1)):
        loki = Loki()
        sender = WebhookSender(url, timeout_s=0.2)
        assert deliver_due(store, [sender, loki], NOW) == (50 if url == hook.url else 0)
        wait_until("what was sent to be read", lambda seen=seen: len(hook.seen) >= seen, 60)
        assert len(hook.seen) == seen
        assert [one.payload["number"] for one in loki.taken] == (list(range(1, 51)) if url == hook.url else [])
    assert len(store.due("webhook", NOW + HOUR)) == 50
    assert store.deliveries(finding().key)[0].last_error.startswith("no answer:")


def test_a_tenant_whose_loki_refuses_holds_up_no_other(store: FindingStore) -> None:
    class Refusing(Loki):
        def send(self, delivery: Delivery) -> Outcome:
            super().send(delivery)
            return Later("answered 429", away=True) if delivery.tenant == "noisy" else Arrived()

    loki = Refusing()
    for n, tenant in enumerate(("quiet", "noisy", "noisy", "calm", "noisy", "quiet")):
        store.open(replace(finding(first=AT + n * MINUTE), tenant=tenant), "sent")
    assert deliver_due(store, [loki], NOW) == 3
    # The one that refuses is asked once, and then left alone for a while.
    assert [one.tenant for one in loki.taken] == ["quiet", "noisy", "calm", "quiet"]
    assert deliver_due(store, [loki], NOW + timedelta(seconds=1)) == 0
    assert len(loki.taken) == 4
    assert len(store.due("loki", NOW + HOUR)) == 3


def test_a_message_that_cannot_be_made_holds_up_no_other(store: FindingStore) -> None:
    class Strict(Loki):
        def send(self, delivery: Delivery) -> Outcome:
            stream(delivery.payload)
            return super().send(delivery)

    loki = Strict()
    for n in range(3):
        store.open(finding(first=AT + n * MINUTE), "sent")
    first = store.deliveries(finding().key)[0]
    with store.database.writing() as connection:
        # As a version wrote it that knew no sentences.
        older = {name: value for name, value in first.payload.items() if name != "sentence"}
        mine = finding_deliveries.c.key == first.key
        connection.execute(update(finding_deliveries).where(mine).values(payload=older))
    assert deliver_due(store, [loki], NOW) == 2
    broken = next(one for one in store.deliveries(first.key) if one.channel == "loki")
    assert (broken.state, broken.last_error) == ("pending", "cannot be sent: KeyError('sentence')")


def test_what_does_not_arrive_for_a_day_is_given_up(store: FindingStore, hook: Receiver) -> None:
    hook.answers = [(500, {}, "")]
    store.open(finding(), "sent")
    sender = WebhookSender(hook.url)
    deliver_due(store, [sender], NOW + GIVEN_UP - MINUTE)
    assert store.deliveries(finding().key)[0].state == "pending"
    deliver_due(store, [sender], NOW + GIVEN_UP)
    given_up = store.deliveries(finding().key)[0]
    assert (given_up.state, given_up.last_error) == ("refused", "given up after 24 h and 2 attempts: answered 500")


def test_a_secret_that_is_not_there_is_said_and_nothing_goes_out_unsigned(store: FindingStore, hook: Receiver) -> None:
    store.open(finding(), "sent")
    deliver_due(store, [WebhookSender(hook.url, "SECRET", environ={})], NOW)
    assert not hook.seen
    assert "SECRET; it is not set: export it" in store.deliveries(finding().key)[0].last_error


@given(st.integers(1, 10_000), st.floats(0, 3600), st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_a_bound_and_are_never_shorter_than_asked(attempts: int, asked: float, chance: float) -> None:
    wait = wait_s(attempts, asked, chance)
    assert asked <= wait <= max(asked, LONGEST_S * 1.25)
    assert wait >= FIRST_S * 0.75


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("120", 120),
        ("Tue, 03 Nov 2026 14:13:00 GMT", 60),
        ("Tue, 03 Nov 2026 14:00:00 GMT", 0),
        ("soon", 0),
        ("9" * 30, 86_400),
    ],
)
def test_a_receivers_wish_is_read_as_seconds_or_date(value: str | None, seconds: float) -> None:
    assert after_s(value, NOW) == seconds


def test_lines_of_one_minute_stand_at_its_end_in_an_order_of_their_own(store: FindingStore) -> None:
    stamps = set()
    for service in ("a", "b", "c"):
        stored = store.open(finding(service), "sent")
        stamp = stamp_ns(message(stored, "opened"))
        assert 0 <= stamp - int((AT + MINUTE).timestamp()) * 10**9 < 10**6
        assert 0 <= stamp_ns(message(stored, "closed")) - int((AT + 8 * MINUTE).timestamp()) * 10**9 < 10**6
        stamps.add(stamp)
    assert len(stamps) == 3


def test_no_webhook_is_set_so_none_is_written_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Settings(state_dir=tmp_path)
    LogSourceRegistry(plain.registry_url).migrate()
    assert [one.channel for one in senders_of(plain, "http://l")] == ["loki"]
    store = finding_store(plain)
    store.open(finding(), "sent")
    store.held_back("default", AT, 3)
    assert [one.channel for one in store.deliveries(finding().key)] == ["loki"]
    assert store.due("webhook", NOW + 1000 * HOUR) == []
    store.disconnect()
    posting = plain.model_copy(update={"models": ModelSettings(webhook_url="https://h/x")})
    assert [one.channel for one in senders_of(posting, "http://l")] == ["loki", "webhook"]
    monkeypatch.setenv("ONECOLLECTOR_MODELS__WEBHOOK_URL", "hooks.example/x")
    with pytest.raises(SettingsError, match="expected http:// or https:// and a host in front"):
        load_settings()
