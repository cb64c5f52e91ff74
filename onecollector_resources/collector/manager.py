"""AgentManager: push a config to an agent, look whether lines still arrive, and say what is to be thought of the config.

The verdict is *rejected* only where the fault lies in the text: the old config's probe passed just before and passes
again after going back. Anything else that fails is *undecided*, because the world around it may be at fault, and it is
tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from onecollector_resources.collector.probe import Probe, ProbeLook, Reader, probes_seen
from onecollector_resources.collector.transports import Transport
from onecollector_resources.records import CollectorConfig

Outcome = Literal["live", "unchanged", "rejected", "undecided"]

LOOK_S = 12.0
"""Seconds in which a probe must be seen; under load it takes about one, on a slow machine some."""


@dataclass(frozen=True, slots=True)
class PushResult:
    """What became of a push. ``seconds`` by step, ``slowest_probe`` in seconds."""

    state: Outcome
    reasons: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    slowest_probe: float = 0.0
    probes: int = 0


class AgentManager:
    """One agent, and a way to read what its collector delivered."""

    def __init__(
        self,
        transport: Transport,
        reader_for: Callable[[str], Reader],
        *,
        confirm_within_s: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.transport, self._reader_for = transport, reader_for
        self._within, self._sleep, self._clock = confirm_within_s, sleep, clock

    def _look(self, probes: Sequence[Probe], deadline_s: float = LOOK_S) -> ProbeLook:
        return probes_seen(self._reader_for, probes, deadline_s, self._sleep, self._clock)

    def verify_pipeline(self, deadline_s: float = LOOK_S) -> ProbeLook:
        """A probe through every live pipeline. Raises TransportError."""
        return self._look(self.transport.probe(), deadline_s)

    def push_config_to_collector(self, config: CollectorConfig) -> PushResult:
        """Make a config live, or say why not; then the one before is live. Raises TransportError."""
        seconds: dict[str, float] = {}
        if self.transport.config()["hash"] == config.hash:
            return PushResult("unchanged")
        began = self._clock()
        before = self.verify_pipeline()
        seconds["probe before"] = self._clock() - began
        began = self._clock()
        answer = self.transport.push(config.text, config.hash, self._within)
        seconds["check and restart"] = self._clock() - began
        state = answer["state"]
        if state == "unchanged":
            return PushResult("unchanged", seconds=seconds)
        if state != "unconfirmed":
            outcome: Outcome = "rejected" if state == "rejected" else "undecided"
            return PushResult(outcome, tuple(answer["reasons"]), seconds)
        began = self._clock()
        look = self._look(answer["probes"], max(1.0, self._within - 2.0))
        seconds["probe"] = self._clock() - began
        if look.ok and self.transport.confirm(config.hash):
            return PushResult("live", (), seconds, look.slowest, len(look.seen))
        return self._taken_back(config, before, look, seconds)

    def _taken_back(
        self, config: CollectorConfig, before: ProbeLook, look: ProbeLook, seconds: dict[str, float]
    ) -> PushResult:
        lost = sorted({f"{probe.tenant}/{probe.pipeline}" for probe, seen in look.seen.items() if seen is None})
        reason = f"probe lines did not come out of Loki: {', '.join(lost) or 'the agent took the config back first'}"
        began = self._clock()
        self.transport.roll_back(config.hash, "undecided", reason)
        seconds["take back"] = self._clock() - began
        if look.loki_error:
            return PushResult("undecided", (reason, look.loki_error), seconds)
        if not before.ok:
            return PushResult("undecided", (reason, "nor did those of the config before"), seconds)
        again = self.verify_pipeline()
        if not again.ok:
            return PushResult("undecided", (reason, "nor do those of the config before, now"), seconds)
        self.transport.roll_back(config.hash, "rejected", reason)
        return PushResult("rejected", (reason,), seconds)

    def trigger_reload_api(self) -> int:
        """Kill and start the collector with the config in place; answers its pid. Raises TransportError."""
        return self.transport.reload()

    def verify_reload_result(self) -> dict[str, Any]:
        """What the agent says of its collector now. Raises TransportError."""
        return dict(self.transport.status()["collector"])

    # The names of the first design, kept as public names.
    reload_collector = trigger_reload_api
    reload_collector_service = trigger_reload_api
    check_reload_result = verify_reload_result
