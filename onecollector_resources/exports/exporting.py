"""A whole export: partitions side by side, each settled for itself, so that one that fails costs the others nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from onecollector_resources.exports.partitions import Manifest
from onecollector_resources.exports.run import Exporter
from onecollector_resources.exports.sources import LineSource, Selection
from onecollector_resources.loki.chunks.faults import ChunkError, ChunkUnsupported
from onecollector_resources.loki.effort import ReadFailed
from onecollector_resources.loki.querier import LokiError
from onecollector_resources.storage.objects import StoreError


@dataclass(frozen=True, slots=True)
class Task:
    """A selection with the source that it is to be read from, and why from that one.

    ``fallback`` reads it where the source finds chunks that it cannot read.
    """

    selection: Selection
    source: LineSource
    reason: str
    settled: bool
    fallback: LineSource | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a partition came out. ``manifest`` is None where ``error`` says why nothing was put in place."""

    task: Task
    manifest: Manifest | None
    skipped: bool = False
    error: str = ""

    @property
    def complete(self) -> bool:
        """Whether all lines are there."""
        return self.manifest is not None and self.manifest.complete


def export_all(
    tasks: Sequence[Task],
    exporter: Exporter,
    *,
    workers: int,
    force: bool = False,
) -> Iterator[Outcome]:
    """Outcomes as they come. Partitions that are there and up to date are skipped unless ``force``.

    When the caller leaves, what runs is finished and nothing new begun.
    """

    def one(task: Task) -> Outcome:
        try:
            if not force and (there := exporter.up_to_date(task.selection, task.source)) is not None:
                return Outcome(task, there, skipped=True)
            return Outcome(task, exporter.export(task.selection, task.source, settled=task.settled))
        except ChunkUnsupported as error:
            if task.fallback is None:
                return Outcome(task, None, error=str(error))
            return one(replace(task, source=task.fallback, reason=str(error), fallback=None))
        except (ChunkError, LokiError, ReadFailed, StoreError, OSError) as error:
            return Outcome(task, None, error=str(error))

    with ThreadPoolExecutor(workers, thread_name_prefix="export") as pool:
        waiting = iter(tasks)
        running: set[Future[Outcome]] = set()
        try:
            while True:
                # Few at a time: a range of a year is a hundred thousand partitions.
                while len(running) < workers and (task := next(waiting, None)) is not None:
                    running.add(pool.submit(one, task))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()
