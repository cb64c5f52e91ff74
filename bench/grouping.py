"""How well lines are grouped by kind: grouping accuracy and the F1 of whole groups, as the Loghub authors define them.

GA is the share of lines whose group is exactly a true one (Zhu et al., "Tools and Benchmarks for Automated Log
Parsing", ICSE-SEIP 2019); FGA is the harmonic mean of precision and recall over groups (Jiang et al., "A Large-Scale
Evaluation for Log Parsing Techniques", ISSTA 2024), so a rare kind counts as much as a frequent one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence


def grouping(found: Sequence[Hashable], true: Sequence[Hashable]) -> tuple[float, float]:
    """(GA, FGA) of the groups ``found``."""
    if not true:
        return 1.0, 1.0
    groups, kinds = _groups(found), _groups(true)
    wanted = set(kinds)
    right = [group for group in groups if group in wanted]
    lines = sum(map(len, right)) / len(true)
    precision, recall = len(right) / len(groups), len(right) / len(kinds)
    return lines, 2 * precision * recall / (precision + recall) if right else 0.0


def _groups(labels: Sequence[Hashable]) -> list[tuple[int, ...]]:
    rows: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows[label].append(row)
    return [tuple(group) for group in rows.values()]
