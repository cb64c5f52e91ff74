"""Thousands of services into shards, on as many processes as there are cores.

One task is a whole shard: its services are loaded, fitted and joined in one worker, so that a service's minutes never
travel between processes and no more than one service a worker is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from ml.detectors import ServiceFit, Shard, fit_service, join
from ml.features import Frame, Vocabulary

SHARD_SERVICES = 50
Load = Callable[[str], tuple[Frame, Vocabulary]]
"""Gives a service's minutes and vocabulary by its name; has to be a function that another process can import."""


def train_shards(load: Load, shards: Sequence[Sequence[str]], workers: int = 2) -> Iterator[Shard]:
    """The fitted shards, in order. One worker trains in this process."""
    if workers <= 1:
        yield from (train_shard(load, services) for services in shards)
        return
    # A fresh interpreter: a fork of a process with threads may inherit a lock that nobody will ever open.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(train_shard, [load] * len(shards), shards)


def train_shard(load: Load, services: Sequence[str]) -> Shard:
    """One shard."""
    fits: list[ServiceFit] = [fit_service(*load(service)) for service in services]
    return join(fits)


def shards_of(services: Sequence[str], size: int = SHARD_SERVICES) -> list[list[str]]:
    """Services in the order of their names, so many at a time."""
    ordered = sorted(services)
    return [ordered[first : first + size] for first in range(0, len(ordered), size)]
