"""Several who do the same at the same moment, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable


def raced(number: int, act: Callable[[int], object], lost: type[Exception]) -> list[int]:
    """Who won, of so many who begin at once: those for whom ``act`` did not raise ``lost``."""
    won: list[int] = []
    ready = threading.Barrier(number)

    def run(mine: int) -> None:
        ready.wait()
        try:
            act(mine)
        except lost:
            return
        won.append(mine)

    runners = [threading.Thread(target=run, args=(mine,)) for mine in range(number)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    return won
