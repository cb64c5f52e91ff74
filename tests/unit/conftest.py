"""For unit tests that need a scorer at work: what it takes a while to begin with is made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a scorer that has read back its history and scored one minute; to be copied."""
    from tests.unit.scorer_world import World

    world = World(tmp_path_factory.mktemp("begun"))
    world.run(world.scorer(), 1)
    return world.folder
