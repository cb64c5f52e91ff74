"""Findings on a real PostgreSQL: the same promises, and an upgrade of a registry that is in use."""

from __future__ import annotations

import pytest

from tests.real.postgres import Cluster

# Every promise of that module, on the ``registry_url`` of this one.
from tests.unit.test_finding_store import *  # noqa: F403

pytestmark = [pytest.mark.real]


@pytest.fixture
def registry_url(postgres: Cluster) -> str:
    return postgres.new_database()
