"""Commit-confirm as a pure machine: what to do with a pushed config, whatever happened before.

A config is ``unconfirmed`` from the moment its file is in place until the pusher has seen its probes and says so. Past its
deadline it goes back to the last good one by itself; nobody has to be reachable for that.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["confirmed", "unconfirmed"]
Verdict = Literal["live", "rejected", "undecided", ""]


@dataclass(frozen=True, slots=True)
class ConfigState:
    """What the journal keeps. ``deadline`` in epoch seconds; ``last_*`` tell of the last push that did not stay."""

    state: State = "confirmed"
    hash: str = ""
    deadline: float = 0.0
    last_hash: str = ""
    last_verdict: Verdict = ""
    last_reason: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def from_json(text: str | None) -> ConfigState:
    """A kept state; a fresh one for none or for what cannot be read."""
    if not text:
        return ConfigState()
    try:
        return ConfigState(**json.loads(text))
    except (ValueError, TypeError):
        return ConfigState()


def pushed(now: float, config_hash: str, confirm_within_s: float) -> ConfigState:
    """The state from the moment before the file is put in place."""
    return ConfigState("unconfirmed", config_hash, now + confirm_within_s)


def confirmed(state: ConfigState, config_hash: str) -> ConfigState | None:
    """The pusher has seen the probes; None where it speaks of another config."""
    if state.state != "unconfirmed" or state.hash != config_hash:
        return None
    return ConfigState("confirmed", config_hash, 0.0, config_hash, "live", "")


def taken_back(state: ConfigState, good_hash: str, verdict: Verdict, reason: str) -> ConfigState:
    """The last good config is in place again."""
    return ConfigState("confirmed", good_hash, 0.0, state.hash, verdict, reason)


def overdue(state: ConfigState, now: float) -> bool:
    """Whether the config must go back now. A clock that jumped back cannot hold it longer than its full time."""
    return state.state == "unconfirmed" and now >= state.deadline
