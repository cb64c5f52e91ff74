"""What people see in an asset's metadata: tables, diffs, links. Pure, and nothing here knows Dagster."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from onecollector_resources.collector.lines import line_of
from onecollector_resources.records import Finding, LogSource

ROWS = 50
"""Rows a table shows: the page must stay quick, and the rest is one command away."""


def cell(value: object) -> str:
    """A table cell that cannot break the table."""
    return str(value).replace("|", "\\|").replace("\n", " ").replace("`", "'")[:160]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table of at most ROWS rows, and how many more there are."""
    all_rows = list(rows)
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell(value) for value in row)} |" for row in all_rows[:ROWS]]
    if len(all_rows) > ROWS:
        lines.append(f"\n{len(all_rows) - ROWS} more")
    return "\n".join(lines) if all_rows else "none"


def sources_table(sources: Iterable[LogSource]) -> str:
    """Sources, trouble first."""
    order = {"uncollectable": 0, "suspect": 1, "waiting": 2, "silent": 3, "collecting": 4, "flowing": 5, "gone": 6}
    ranked = sorted(sources, key=lambda source: (order[source.state], source.tenant, source.service, source.name))
    return markdown_table(
        ("state", "tenant", "service", "name", "id", "mode", "reason"),
        [(s.state, s.tenant, s.service, s.name, s.source_id[:12], s.mode, s.reason or s.flow_reason) for s in ranked],
    )


def config_diff(before: str, after: str) -> str:
    """A unified diff as a Markdown code block; says so where there is none."""
    if before == after:
        return "no difference"
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), "live", "new", lineterm="", n=2))
    shown = lines[:200]
    more = f"\n… {len(lines) - 200} more lines" if len(lines) > 200 else ""
    return "```diff\n" + "\n".join(shown) + more + "\n```"


def findings_table(findings: Iterable[Finding], text: str) -> str:
    """Findings in a config's text, with the line, the place and the fix."""
    rows = [(f.level, line_of(text, f.where) or "", f.where, f.message, f.fix) for f in findings]
    return markdown_table(("level", "line", "where", "what", "fix"), rows)
