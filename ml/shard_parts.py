"""Some services of a fitted shard as a shard of their own: to examine one without scoring the fifty beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ml.detectors import Shard
from ml.shard_arrays import PARAMS


def part_of(shard: Shard, services: Sequence[str]) -> Shard:
    """These services, in this order. Raises ValueError where one is not of the shard."""
    place = {service: number for number, service in enumerate(shard.services)}
    strangers = [service for service in services if service not in place]
    if strangers:
        raise ValueError(f"services of the shard are expected, found {', '.join(strangers)}")
    taken = [place[service] for service in services]
    axes = {
        "K": _columns(shard.columns, taken),
        "D": _columns([2 * len(v.timed) + 1 for v in shard.vocabularies], taken),
        "S": np.array(taken, np.int64),
    }
    params = {}
    for name, shape in PARAMS.items():
        (axis, letter), *_ = [(n, letter) for n, letter in enumerate(shape) if letter in axes]
        params[name] = np.take(shard.params[name], axes[letter], axis)
    return replace(
        shard,
        services=tuple(services),
        vocabularies=tuple(shard.vocabularies[n] for n in taken),
        params=params,
        columns=tuple(shard.columns[n] for n in taken),
        tails=shard.tails[taken],
        episodes=shard.episodes[taken],
        days=shard.days[taken],
        learning=shard.learning[taken],
        usual=shard.usual.of(taken),
    )


def _columns(widths: Sequence[int], taken: Sequence[int]) -> np.ndarray:
    starts = np.concatenate([[0], np.cumsum(widths)])
    return np.concatenate([np.arange(starts[n], starts[n] + widths[n]) for n in taken])
