"""The registry, and Dagster's storage, on a real PostgreSQL: the same promises, and the faults that only a server has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.stack import wait_until
from onecollector.local.programs import dagster_yaml
from onecollector.local.stack import _make_dagster_storage
from onecollector_resources.registry import database
from onecollector_resources.registry.store import LogSourceRegistry, RegistryUnavailable
from onecollector_resources.settings import DagsterSettings, Settings
from tests.real.postgres import Cluster, cluster

# Every promise of that module, on the ``registry_url`` of this one.
from tests.unit.test_registry import *  # noqa: F403
from tests.unit.test_registry import source

pytestmark = [pytest.mark.real]


@pytest.fixture
def registry_url(postgres: Cluster) -> str:
    return postgres.new_database()


def test_the_url_may_be_bare_in_both_spellings(registry_url: str) -> None:
    for url in (registry_url, registry_url.replace("postgresql://", "postgres://")):
        registry = LogSourceRegistry(url)
        registry.migrate()
        registry.register_source(source(1), actor="t")
        assert registry.engine.dialect.driver == "psycopg2"
        registry.close()


def test_whoever_waits_holds_no_transaction(postgres: Cluster, registry_url: str) -> None:
    registry = LogSourceRegistry(registry_url)
    registry.migrate()
    watch = postgres.connect(registry_url.rpartition("/")[2])
    seen: set[str] = set()

    def sleep(seconds: float) -> None:
        cursor = watch.cursor()
        cursor.execute(
            "select state from pg_stat_activity where datname = current_database() and pid != pg_backend_pid()"
            " and backend_type = 'client backend'"
        )
        seen.update(state for (state,) in cursor.fetchall() if state)
        slept.append(seconds)
        time.sleep(seconds)

    # By a clock that counts the looks: so many there are, however slow the machine is.
    slept: list[float] = []
    registry.wait_for_revision(0, 3, sleep=sleep, monotonic=lambda: float(len(slept)))
    assert seen == {"idle"}
    watch.close()
    registry.close()


@pytest.mark.parametrize(
    ("database_name", "password", "said"),
    [
        ("nowhere", "s3cret", r'database "nowhere" does not exist; create'),
        ("postgres", "wr0ng", "mend user and password"),
    ],
)
def test_a_wrong_url_says_what_to_mend_and_no_password(
    postgres: Cluster, database_name: str, password: str, said: str
) -> None:
    registry = LogSourceRegistry(postgres.url(database_name, password))
    with pytest.raises(RegistryUnavailable, match=said) as error:
        registry.migrate()
    assert password not in str(error.value)


def test_a_server_without_a_right_to_write_is_named_with_the_cure(postgres: Cluster, registry_url: str) -> None:
    name = registry_url.rpartition("/")[2]
    admin = postgres.connect(name)
    admin.cursor().execute(f"create role {name}_user login password 's3cret'")
    poor = LogSourceRegistry(registry_url.replace("//oc:", f"//{name}_user:"))
    with pytest.raises(RegistryUnavailable, match=r"permission denied.*alter database NAME owner to USER"):
        poor.migrate()
    admin.cursor().execute(f"alter database {name} owner to {name}_user")
    poor.migrate()
    poor.close()
    admin.cursor().execute(f"alter database {name} set default_transaction_read_only = on")
    standby = LogSourceRegistry(registry_url)
    with pytest.raises(RegistryUnavailable, match=r"read-only transaction; .*name the primary"):
        standby.register_source(source(1), actor="t")
    admin.cursor().execute(f"alter database {name} set default_transaction_read_only = off")
    standby.close()
    assert standby.register_source(source(1), actor="t") == 1
    standby.close()
    admin.close()


@pytest.fixture
def frail(postgres: Cluster) -> Iterator[Cluster]:
    """A server that may be stopped."""
    with cluster(postgres.bin_dir) as made:
        yield made


def test_a_server_that_was_away_is_used_again_by_those_who_were_connected(frail: Cluster) -> None:
    registry = LogSourceRegistry(frail.new_database())
    registry.migrate()
    registry.register_source(source(1), actor="t")
    with ThreadPoolExecutor(1) as pool:
        frail.stop()
        with pytest.raises(RegistryUnavailable, match="start the database server") as error:
            registry.register_source(source(2), actor="t")
        assert "s3cret" not in str(error.value)

        def tried() -> bool:
            try:
                return bool(registry.register_source(source(2), actor="t"))
            except RegistryUnavailable:
                return False

        waiting = pool.submit(wait_until, "the second source is written", tried, 120, 0.1)
        frail.start()
        assert waiting.result(150)
    assert [event.source_id for event in registry.events_after(0)] == [source(1).source_id, source(2).source_id]
    registry.close()


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    # The driver takes no less than two seconds.
    monkeypatch.setattr(database, "CONNECT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(RegistryUnavailable, match="start the database server"):
            LogSourceRegistry(f"postgresql://u:p@127.0.0.1:{port}/d").revision()


def test_dagster_keeps_its_runs_there_and_shares_a_database_with_the_registry(
    postgres: Cluster, registry_url: str, tmp_path: Path
) -> None:
    registry = LogSourceRegistry(registry_url)
    registry.migrate()
    settings = Settings(state_dir=tmp_path / "s", dagster=DagsterSettings(postgres_url=registry_url))
    home = settings.layout.dagster_home
    home.mkdir(parents=True)
    # A machine that had its runs in sqlite before.
    (home / ".made").touch()
    (home / "dagster.yaml").write_text(dagster_yaml(settings))
    _make_dagster_storage(settings)
    connection = postgres.connect(registry_url.rpartition("/")[2])
    cursor = connection.cursor()
    cursor.execute("select count(*) from runs")
    assert cursor.fetchone() == (0,)
    made = (home / ".made").stat().st_mtime_ns
    _make_dagster_storage(settings)
    assert (home / ".made").stat().st_mtime_ns == made
    assert "s3cret" not in (home / ".made").read_text()
    registry.migrate()
    assert registry.register_source(source(1), actor="t") == 1
    registry.close()
    connection.close()
