"""What the gates of a model hold, and how much of it. Imports nothing: whoever declares the gates needs no numbers."""

from __future__ import annotations

MOST_MISSING = 0.05
LEAST_RATE, MOST_RATE = 0.2, 2.0
"""Of the alert budget."""
LEAST_RECALL = 0.5
LEAST_RECALL_OF_A_CLASS = 0.25
LOST = 0.05
"""Of a class's faults that the model in production finds, this share may be lost, and one fault by chance."""
MOST_DELAY = 5.0
"""Minutes."""
MOST_OVERFLOW = 0.01
MOST_DISTINCT = 0.5
FEW_LINES = 1000
MOST_WORN = 0.1
"""Share of the examined services."""
MOST_FILE = 64 << 20
"""Bytes; larger ones are not read."""
MOST_SCORE_CPU_S = 2.0
"""For 500 services and a minute."""

GATES: dict[str, str] = {
    "data": f"There are services, and less than {MOST_MISSING:.0%} of their minutes are missing.",
    "templates": f"No service has more than {MOST_OVERFLOW:.0%} of its lines in overflow, or a template for every other line.",
    "alert_budget": f"Replayed, the last 48 hours have {LEAST_RATE} to {MOST_RATE} times as many findings as the alert budget.",
    "faults_found": f"Of injected faults at least {LEAST_RECALL:.0%} are found, of each class {LEAST_RECALL_OF_A_CLASS:.0%}.",
    "delay": f"Half of the injected faults are found within {MOST_DELAY:.0f} minutes.",
    "not_worse": "Of no class are fewer injected faults found than by the model in production, but for one in twenty.",
    "judged_findings": "Findings that people confirmed are still found, those that they dismissed are not found again.",
    "baselines": "No baseline finds as many injected faults with as few false findings.",
    "wear": f"On the last two days no more than {MOST_WORN:.0%} of the services are unlike what the model in production knows.",
    "artefact": f"No file has more than {MOST_FILE >> 20} MiB, 500 services score in {MOST_SCORE_CPU_S:.0f} s of CPU.",
}
WARNS = frozenset({"templates", "wear"})
"""Gates that do not keep a model from serving."""
