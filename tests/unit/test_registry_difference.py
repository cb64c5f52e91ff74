"""What holds of the registry's code without a database: the difference, the public names, and what it imports."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.records import LogSource, Phase
from onecollector_resources.registry.source_rows import difference
from onecollector_resources.registry.store import LogSourceRegistry, RegistryUnavailable
from tests.unit.test_registry import NOW, source

phases = st.sampled_from(["waiting", "collecting", "finished", "uncollectable"])
states = st.dictionaries(st.integers(0, 8), phases, max_size=8)


@given(st.lists(states, min_size=1, max_size=6))
def test_the_difference_leads_from_what_was_known_to_what_is_reported(reports: list[dict[int, Phase]]) -> None:
    known: dict[tuple[str, str], LogSource] = {}
    for report in reports:
        sources = [source(number, phase=phase) for number, phase in report.items()]
        for change in difference(known, sources, full=True, now=NOW):
            assert change.before == known.get(change.after.key)
            known[change.after.key] = change.after
        assert {k: s.phase for k, s in known.items() if s.phase != "gone"} == {s.key: s.phase for s in sources}
        assert difference(known, [replace(s) for s in sources], full=True, now=NOW) == []


def test_the_first_designs_names_are_the_same_methods() -> None:
    pairs = [
        ("register_log_target", "register_source"),
        ("update_source_metadata", "update_source"),
        ("remove_source", "delete_source"),
        ("list_all_sources", "list_sources"),
    ]
    assert all(getattr(LogSourceRegistry, a) is getattr(LogSourceRegistry, b) for a, b in pairs)


def test_the_registry_imports_neither_alembic_nor_dagster() -> None:
    code = "import sys, onecollector_resources.registry.store; print([m for m in ('alembic', 'dagster', 'pandas') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("url", ["nonsense", "nosuchdb://h/d", "oracle://u:pw@h/d"])
def test_a_url_that_leads_nowhere_says_what_is_expected_and_no_password(url: str) -> None:
    with pytest.raises(RegistryUnavailable, match=r"expected a SQLAlchemy URL .* its driver installed") as error:
        LogSourceRegistry(url)
    assert "pw@" not in str(error.value)
