"""Real parts for tests: found or missing by name; a missing one fails under CI and is skipped elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from onecollector.parts.install import system_command
from onecollector.parts.locate import locate
from onecollector.parts.pins import pins, system_pins
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.settings import Settings
from tests.real.lokis import new_loki
from tests.real.postgres import Cluster, cluster, programs

Finder = Callable[[str], Path]


@pytest.fixture(scope="session")
def part() -> Finder:
    """A function from a part's name to its binary."""

    def find(name: str) -> Path:
        pin = system_pins().get(name)
        found = system_command(pin) if pin is not None else locate(name) if name in pins() else None
        if found is None:
            missing(name, f"onecollector install {name}")
        return Path(found)

    return find


def missing(name: str, command: str) -> NoReturn:
    """End a test whose part is not there: failed under CI, skipped by name elsewhere."""
    message = f"{name} is missing; run: {command}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL of the tests' own."""
    found = programs()
    if found is None:
        missing("postgresql", "make postgresql")
    with cluster(found) as made:
        yield made


@pytest.fixture(scope="session")
def parts(part: Finder) -> None:
    """Everything that a whole stack needs."""
    for name in ("loki", "collector", "docker", "busybox"):
        part(name)
    if os.geteuid() != 0:
        pytest.skip("needs root: runs a Docker engine of its own")


@pytest.fixture(scope="session")
def loki(part: Finder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LokiLifecycle]:
    """A Loki of the tests' own, with our config."""
    folder = tmp_path_factory.mktemp("loki")
    server = new_loki(part("loki"), folder, Settings(state_dir=folder))
    try:
        server.start()
        yield server
    finally:
        server.kill()
