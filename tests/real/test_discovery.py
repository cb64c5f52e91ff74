"""Discovery against a real engine: nothing that is created stays unseen, and what nobody can know any more is said."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench import stack
from onecollector.local import engine as own_engine
from onecollector_resources.discovery.docker import DockerEngine
from onecollector_resources.discovery.service import DiscoveryService
from onecollector_resources.records import ContainerEvent, Gap, ObservedSource
from onecollector_resources.settings import Settings

pytestmark = pytest.mark.real


def wait_until(what: str, condition: Callable[[], Any], deadline_s: float = 60) -> Any:
    return stack.wait_until(what, condition, deadline_s, 0.01)


class Engine:
    """An engine of the tests' own that can be stopped and started."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.start()
        own_engine.import_demo_image(self.client)

    def start(self) -> None:
        self.address = own_engine.start_own_engine(self.settings.layout)
        self.client: Any = own_engine.connect(self.address, timeout_s=60)

    def stop(self) -> None:
        self.client.close()
        own_engine.stop_own_engine(self.settings.layout)

    def create(
        self, script: str = "echo line", *, remove: bool = False, driver: str = "json-file", **facts: Any
    ) -> str:
        config = self.client.create_host_config(
            network_mode="none", auto_remove=remove, log_config={"Type": driver, "Config": {}}
        )
        return self.client.create_container(
            own_engine.DEMO_IMAGE, ["/bin/sh", "-c", script], host_config=config, **facts
        )["Id"]

    def run(self, script: str = "echo line", **facts: Any) -> str:
        container_id = self.create(script, **facts)
        self.client.start(container_id)
        return container_id

    def remove(self, container_id: str) -> None:
        self.client.remove_container(container_id, force=True)


class Watcher:
    """A service with what it called back. ``store`` outlives it, as a journal does."""

    def __init__(self, settings: Settings, address: str, store: dict[str, str] | None = None) -> None:
        self.store = {} if store is None else store
        self.seen: dict[str, tuple[float, ObservedSource]] = {}
        self.events: list[ContainerEvent] = []
        self.gaps: list[Gap] = []
        self.service = DiscoveryService(
            settings,
            DockerEngine(address, settings, timeout_s=10),
            emit=self.events.append,
            observe=lambda observed: self.seen.setdefault(observed.source_id, (time.time(), observed)) and None,
            report_gap=self.gaps.append,
            load_value=self.store.get,
            save_value=self.store.__setitem__,
        )
        self.service.start()
        self.listening()

    def listening(self) -> None:
        wait_until("the event stream", lambda: self.service.listening)

    def containers(self, *, full: bool = False) -> dict[str, ObservedSource]:
        return dict(self.service.snapshot(full=full).sources)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.model_validate({"state_dir": tmp_path_factory.mktemp("d"), "agent": {"host_name": "h1"}})


@pytest.fixture(scope="module")
def engine(settings: Settings, part: Callable[[str], Path]) -> Iterator[Engine]:
    part("docker")
    part("busybox")
    if os.geteuid() != 0:
        pytest.skip("needs root: runs a Docker engine of its own")
    running = Engine(settings)
    yield running
    running.stop()


@pytest.fixture
def watch(engine: Engine, settings: Settings) -> Iterator[Callable[..., Watcher]]:
    made: list[Watcher] = []

    def make(store: dict[str, str] | None = None, address: str = "") -> Watcher:
        made.append(Watcher(settings, address or engine.address, store))
        return made[-1]

    yield make
    for watcher in made:
        watcher.service.stop()


class Proxy:
    """A socket before the engine's whose connections can be cut."""

    def __init__(self, path: Path, target: str) -> None:
        self.address, self._target = f"unix://{path}", target.removeprefix("unix://")
        self._pairs: list[socket.socket] = []
        self.closed = False
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if self.closed:
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._target)
            self._pairs += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for end in self._pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def stop(self) -> None:
        self.cut()
        self._server.close()


@pytest.fixture
def proxy(engine: Engine, settings: Settings) -> Iterator[Proxy]:
    # Beside the engine's socket: a socket's path must be short.
    path = own_engine.own_socket(settings.layout).with_name("proxy.sock")
    between = Proxy(path, engine.address)
    yield between
    between.stop()
    path.unlink()


def test_containers_that_live_a_tenth_of_a_second_are_all_observed(
    engine: Engine, watch: Callable[..., Watcher]
) -> None:
    watcher = watch()
    with ThreadPoolExecutor(3) as pool:
        ids = list(pool.map(lambda n: engine.run("sleep 0.1", remove=True, name=f"blink-{n}"), range(30)))
    wait_until("30 of 30 observed", lambda: set(ids) <= set(watcher.seen))
    names = {watcher.seen[container_id][1].name for container_id in ids}
    assert names == {f"blink-{n}" for n in range(30)}
    for container_id in ids:
        assert watcher.seen[container_id][1].log_path.endswith(f"{container_id}/{container_id}-json.log")
    assert watcher.gaps == []


def test_a_container_is_observed_long_before_it_can_write(engine: Engine, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    ids = [engine.create() for _ in range(30)]
    wait_until("all observed", lambda: set(ids) <= set(watcher.seen))
    created = {event.source_id: event.time_ns / 1e9 for event in watcher.events if event.action == "create"}
    took = sorted((watcher.seen[container_id][0] - created[container_id]) * 1000 for container_id in ids)
    print(f"create to observe, ms: p50 {statistics.median(took):.2f} p95 {took[28]:.2f} most {took[-1]:.2f}")
    assert statistics.median(took) < 2_000
    for container_id in ids:
        engine.remove(container_id)


def test_the_snapshot_follows_what_happens_without_listing_all(engine: Engine, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    watcher.containers(full=True)
    container_id = engine.run("sleep 60", name="before")
    wait_until("running", lambda: watcher.containers().get(container_id))
    engine.client.rename(container_id, "after")
    assert (
        wait_until("renamed", lambda: (c := watcher.containers()[container_id]).name == "after" and c).safe_name
        == "after"
    )
    engine.client.kill(container_id)
    ended = wait_until("ended", lambda: not (c := watcher.containers()[container_id]).running and c)
    assert ended.ended is not None
    engine.client.start(container_id)
    wait_until("running again", lambda: (c := watcher.containers()[container_id]).running and c.ended is None)
    assert watcher.containers() == watcher.containers(full=True)
    engine.remove(container_id)
    wait_until("gone", lambda: container_id not in watcher.containers())


def test_a_cut_event_stream_is_taken_up_where_it_ended(
    engine: Engine, watch: Callable[..., Watcher], proxy: Proxy
) -> None:
    watcher = watch(address=proxy.address)
    first = engine.create()
    wait_until("the first", lambda: first in watcher.seen)
    proxy.closed = True
    proxy.cut()
    wait_until("seen to be away", lambda: watcher.service.docker_error)
    unheard = engine.run("sleep 0.1", remove=True, name="unheard")
    wait_until("gone", lambda: not engine.client.containers(all=True, filters={"id": unheard}))
    before = watcher.service.snapshot(full=True)
    assert not before.complete
    assert first in before.sources, "a failed listing is not an empty one"
    proxy.closed = False
    wait_until("the unheard one", lambda: unheard in watcher.seen)
    assert watcher.seen[unheard][1].name == "unheard"
    watcher.listening()
    assert watcher.service.snapshot(full=True).complete
    assert watcher.gaps == []
    counted = [(event.time_ns, event.source_id, event.action) for event in watcher.events if event.source_id]
    assert len(counted) == len(set(counted)), "no event twice"
    engine.remove(first)


def test_an_engine_that_is_restarted_loses_no_source(engine: Engine, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    container_id = engine.run("sleep 600", name="stays")
    wait_until("running", lambda: watcher.containers().get(container_id))
    engine.stop()
    wait_until("seen to be away", lambda: not watcher.service.snapshot(full=True).complete)
    assert container_id in watcher.containers()
    assert "no engine answers" in watcher.service.docker_error
    engine.start()
    later = engine.run("sleep 0.1", remove=True)
    wait_until("a container of the new engine", lambda: later in watcher.seen)
    watcher.listening()
    known = wait_until("known as ended", lambda: not (c := watcher.containers(full=True)[container_id]).running and c)
    assert known.name == "stays"
    assert watcher.gaps == [], "the engine took the stream along: nothing was created in between"
    engine.remove(container_id)


def test_a_container_that_came_and_went_while_we_were_away_is_a_gap_with_its_name(
    engine: Engine, watch: Callable[..., Watcher]
) -> None:
    store: dict[str, str] = {}
    first = watch(store)
    first.containers()
    first.service.stop()
    labels = {"onecollector.io/service": "away svc"}
    missed = engine.run("echo hello", remove=True, name="missed", labels=labels)
    engine.remove(engine.create(name="never-started"))
    stays = engine.run("sleep 60", name="stays-on")
    wait_until("gone", lambda: not engine.client.containers(all=True, filters={"id": missed}))
    second = watch(store)
    wait_until("the one that stays", lambda: second.containers().get(stays))
    gap = wait_until("the gap", lambda: second.gaps)[0]
    assert (gap.source_id, gap.cause, gap.host) == (missed, "unknown_containers", "h1")
    assert gap.service.startswith("away_svc-")
    assert "missed" in gap.detail
    assert len(second.gaps) == 1
    assert missed not in second.seen
    engine.remove(stays)


def test_an_engine_that_forgot_gives_one_gap_from_to(engine: Engine, watch: Callable[..., Watcher]) -> None:
    store: dict[str, str] = {}
    first = watch(store)
    first.containers()
    stopped = time.time()
    first.service.stop()
    for number in range(300):
        engine.client.tag(own_engine.DEMO_IMAGE, "again", tag=f"t{number % 3}", force=True)
    second = watch(store)
    gap = wait_until("the gap", lambda: second.gaps)[0]
    assert (gap.source_id, gap.cause) == ("", "unknown_containers")
    assert abs(gap.started.timestamp() - stopped) < 10
    assert gap.started < gap.ended
    assert gap.ended.timestamp() <= time.time()
    second.containers()
    second.service.stop()
    third = watch(store)
    third.containers()
    assert third.gaps == [], "told once"


def test_an_engine_restarted_while_we_were_away_gives_one_gap(engine: Engine, watch: Callable[..., Watcher]) -> None:
    store: dict[str, str] = {}
    first = watch(store)
    first.containers()
    first.service.stop()
    engine.stop()
    engine.start()
    second = watch(store)
    wait_until("the gap", lambda: second.gaps)
    assert [(gap.source_id, gap.cause) for gap in second.gaps] == [("", "unknown_containers")]


def test_a_quiet_engine_gives_no_gap_when_we_come_back(engine: Engine, watch: Callable[..., Watcher]) -> None:
    engine.stop()
    engine.start()
    store: dict[str, str] = {}
    for _ in range(3):
        watcher = watch(store)
        watcher.containers()
        watcher.service.stop()
        assert watcher.gaps == []


def test_an_engine_that_is_not_there_yet_is_waited_for(settings: Settings, engine: Engine) -> None:
    path = own_engine.own_socket(settings.layout).with_name("late.sock")
    got: list[ObservedSource] = []
    service = DiscoveryService(
        settings,
        DockerEngine(f"unix://{path}", settings),
        emit=lambda _: None,
        observe=got.append,
        report_gap=lambda _: None,
        load_value=lambda _: None,
        save_value=lambda _key, _value: None,
    )
    service.start()
    try:
        assert not service.snapshot().complete
        assert str(path) in service.docker_error
        late = Proxy(path, engine.address)
        wait_until("the engine", lambda: service.snapshot().complete)
        wait_until("the stream", lambda: service.listening)
        container_id = engine.create()
        wait_until("a container", lambda: container_id in {one.source_id for one in got})
        engine.remove(container_id)
        late.stop()
    finally:
        service.stop()
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "value",
    ["with space", 'quo"te', "new\nline", "../../etc/passwd", "ünïcode", "x" * 10_000, "nul\0inside", "-rf", ".hidden"],
    ids=["space", "quote", "newline", "dots", "unicode", "10kB", "nul", "dash", "hidden"],
)
def test_hostile_labels_neither_hide_a_container_nor_leave_the_tree(
    engine: Engine, watch: Callable[..., Watcher], value: str
) -> None:
    watcher = watch()
    keys = ("service", "tenant", "profile", "multiline", "exclude")
    container_id = engine.create(labels={f"onecollector.io/{key}": value for key in keys})
    wait_until("observed", lambda: container_id in watcher.seen)
    observed = watcher.seen[container_id][1]
    assert observed == watcher.containers(full=True)[container_id]
    assert observed.held.startswith("unknown tenant")
    assert not observed.excluded
    assert (observed.pipeline, len(observed.warnings)) == ("docker", 2)
    for name in (observed.service, observed.tenant, observed.safe_name):
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name) <= 100
    engine.remove(container_id)


def test_two_containers_of_one_name_in_sequence_are_two_sources(engine: Engine, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    labels = [{"onecollector.io/service": "old"}, {"onecollector.io/service": "new"}]
    ids = []
    for facts in labels:
        ids.append(engine.run("true", name="same", labels=facts))
        engine.remove(ids[-1])
    wait_until("both", lambda: set(ids) <= set(watcher.seen))
    found = [watcher.seen[container_id][1] for container_id in ids]
    assert [one.name for one in found] == ["same", "same"]
    assert [one.service for one in found] == ["old", "new"]


def test_log_drivers_say_whether_there_is_something_to_read(engine: Engine, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    ids = {driver: engine.create(driver=driver) for driver in ("json-file", "local", "none", "syslog")}
    found = watcher.containers(full=True)
    assert found[ids["json-file"]].log_path
    assert found[ids["local"]].log_path == ""
    assert {driver: bool(found[key].uncollectable) for driver, key in ids.items()} == {
        "json-file": False,
        "local": False,
        "none": True,
        "syslog": False,
    }
    for container_id in ids.values():
        engine.remove(container_id)


def test_metadata_of_one_container(engine: Engine, watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    container_id = engine.create(name="meta", labels={"com.docker.compose.service": "shop"})
    found = watcher.service.detect_pod_metadata(container_id)
    assert found["com.docker.compose.service"] == "shop"
    assert (found["container.name"], found["container.image.name"]) == ("meta", own_engine.DEMO_IMAGE)
    assert watcher.service.detect_pod_metadata("0" * 64) == {}
    assert container_id in {one.source_id for one in watcher.service.detect_container_log_paths()}
    engine.remove(container_id)


@pytest.mark.parametrize("tty", [False, True], ids=["framed", "terminal"])
def test_a_log_can_be_followed_to_its_end(engine: Engine, settings: Settings, tty: bool) -> None:
    container_id = engine.run("for i in 1 2 3; do echo line $i; done", driver="local", tty=tty)
    data = b"".join(DockerEngine(engine.address, settings).follow_logs(container_id, "0"))
    lines = []
    while data:
        size = int.from_bytes(data[4:8], "big")
        lines.append(data[8 : 8 + size].split(b" ", 1)[1].rstrip())
        data = data[8 + size :]
    assert lines == [b"line 1", b"line 2", b"line 3"]
    engine.remove(container_id)


def test_an_engine_without_rights_or_with_a_strange_address_is_named(settings: Settings) -> None:
    for address, word in (("ssh://host", "expected unix:///path"), ("unix:///nowhere.sock", "start it")):
        service = DiscoveryService(
            settings,
            DockerEngine(address, settings),
            emit=lambda _: None,
            observe=lambda _: None,
            report_gap=lambda _: None,
            load_value=lambda _: None,
            save_value=lambda _key, _value: None,
        )
        assert not service.snapshot().complete
        assert word in service.docker_error
