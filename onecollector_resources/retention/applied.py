"""The policies that were last brought into force, kept in the state folder.

``up`` renders Loki's limits from these, not from the policy files: a file that somebody has just changed, or broken,
deletes nothing until ``retention apply`` has shown what would go and was told to go on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from onecollector_resources.layout import StateLayout
from onecollector_resources.retention.policies import Policy, RetentionError, Rule


def applied_file(layout: StateLayout) -> Path:
    """Where they are kept."""
    return layout.root / "retention" / "applied.json"


def load_applied(layout: StateLayout) -> dict[str, Policy]:
    """By tenant; none where nothing was ever applied. Raises RetentionError for a file that cannot be used."""
    path = applied_file(layout)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {
            tenant: Policy(row["keep_s"], tuple(Rule(**rule) for rule in row["rules"])) for tenant, row in rows.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RetentionError(
            f"{path} cannot be used ({error!r}): it holds the policies in force; remove it, then: onecollector retention apply"
        ) from error


def save_applied(layout: StateLayout, policies: Mapping[str, Policy]) -> None:
    """Write them atomically."""
    text = json.dumps({tenant: asdict(policy) for tenant, policy in policies.items()}, indent=1, sort_keys=True)
    replace_file(applied_file(layout), text + "\n")


def replace_file(path: Path, text: str) -> None:
    """Old or new, never half of it, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(path.name + ".new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.chmod(0o600)
    os.replace(beside, path)
