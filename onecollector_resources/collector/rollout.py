"""A rollout on one agent, as rows: what was tried, how each step went, how it ended. Killed anywhere, the next one goes on.

Nothing is done for a config that is live, and nothing for one that is remembered as rejected.
"""

from __future__ import annotations

from dataclasses import dataclass

from onecollector_resources.collector.manager import AgentManager, PushResult
from onecollector_resources.collector.transports import TransportError
from onecollector_resources.records import CollectorConfig
from onecollector_resources.registry.store import LogSourceRegistry


@dataclass(frozen=True, slots=True)
class RolloutResult:
    """How a rollout ended, and from which config it came."""

    push: PushResult
    previous_hash: str | None
    rollout_id: int | None = None


def roll_out(
    config: CollectorConfig, manager: AgentManager, registry: LogSourceRegistry, *, actor: str
) -> RolloutResult:
    """Make ``config`` live on one agent. Raises TransportError, RegistryError."""
    live = registry.live_config(config.agent_class)
    previous = live.config.hash if live else None
    rejected = registry.rejected_configs(config.agent_class).get(config.hash)
    if rejected is not None:
        return RolloutResult(
            PushResult("rejected", (f"rejected before: {rejected}", f"onecollector config forgive {config.hash}")),
            previous,
        )
    for open_one in registry.rollouts(state="running"):
        # Its process was killed. What it did is known to the agent, which either confirmed or took it back.
        registry.update_rollout(
            open_one.id, state="undecided", detail={"reason": "its run ended before it did"}, actor=actor
        )
    effective = manager.transport.config()["hash"]
    if effective == config.hash:
        if previous != config.hash:
            registry.set_config_verdict(config.hash, "live", actor=actor)
        return RolloutResult(PushResult("unchanged"), previous)
    rollout_id = registry.record_rollout(config.agent_class, config.hash, effective, actor=actor)
    try:
        push = manager.push_config_to_collector(config)
    except TransportError as error:
        push = PushResult("undecided", (str(error),))
    state = "live" if push.state == "unchanged" else push.state
    detail = {
        "reasons": list(push.reasons),
        "seconds": push.seconds,
        "slowest_probe_s": push.slowest_probe,
        "probes": push.probes,
    }
    registry.update_rollout(rollout_id, state=state, detail=detail, actor=actor)
    registry.set_config_verdict(config.hash, state, push.reasons, actor=actor)
    if state == "rejected":
        registry.reject_config(config.agent_class, config.hash, "; ".join(push.reasons), actor=actor)
    return RolloutResult(push, effective, rollout_id)
