"""Everything that an export needs, opened from the settings: Loki, both ways of reading it, the store to write to.

Here the settings and what Loki says of itself become the ``Circumstances`` from which the engine of each partition
follows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self

from onecollector_resources.exports.api_source import ApiSource
from onecollector_resources.exports.chunk_source import ChunkSource
from onecollector_resources.exports.exporting import Task
from onecollector_resources.exports.holes import HoleExplainer
from onecollector_resources.exports.partitions import Hole
from onecollector_resources.exports.plan import Request, check_range, plan
from onecollector_resources.exports.run import Exporter, Progress
from onecollector_resources.exports.sources import Circumstances, EngineName, Selection, Span, choose_engine
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.batch import FOREIGN_PAGE_BYTES, BatchQueryExecutor
from onecollector_resources.loki.catalogue import IndexStats, seconds_of_duration
from onecollector_resources.loki.chunk_store import chunk_store
from onecollector_resources.loki.flush import flush
from onecollector_resources.loki.logql import parse, plain_matchers, refuse_changes
from onecollector_resources.loki.querier import LokiError, LokiQuerierClient
from onecollector_resources.records import Gap
from onecollector_resources.settings import Settings, SettingsError
from onecollector_resources.storage.objects import ObjectStore, as_url, open_store

RETENTION_MARGIN_NS = 4 * 3600 * 10**9
"""Loki's compactor marks what is past its date, and its sweeper removes it two hours later: in between it is hidden."""


class Explaining:
    """The explainer of holes, made beside the reading: the registry's library takes long to load, and most exports have
    no hole. Close it.
    """

    def __init__(self, registry_url: str, loki: LokiQuerierClient, selector: str) -> None:
        self._registry_url, self._loki, self._selector = registry_url, loki, selector
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._made: Future[HoleExplainer | str] = self._pool.submit(self._make)

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown()

    @property
    def unchecked(self) -> str:
        """Why nothing can be said of holes; empty where it can."""
        made = self._made.result()
        return made if isinstance(made, str) else ""

    def __call__(self, selection: Selection, holes: Sequence[Hole]) -> Sequence[Hole]:
        """The holes that are left, with what is known of them; none where nothing can be said. As HoleExplainer raises."""
        made = self._made.result()
        return () if isinstance(made, str) else made(selection, holes)

    def _make(self) -> HoleExplainer | str:
        from onecollector_resources.registry.store import LogSourceRegistry, RegistryError

        try:
            registry = LogSourceRegistry(self._registry_url)
            pipelines = {source.source_id: source.pipeline for source in registry.lookup_sources()}
        except RegistryError as error:
            # An export of somebody else's Loki, or from another machine: nobody here knows what was written.
            return f"record numbers not checked: {error}"
        gaps: dict[str, Sequence[Gap]] = {}

        def gaps_of(source_id: str) -> Sequence[Gap]:
            if source_id not in gaps:
                gaps[source_id] = registry.list_gaps(source_id=source_id)
            return gaps[source_id]

        return HoleExplainer(self._loki, self._selector, gaps_of, lambda name: pipelines.get(name, ""))


@dataclass(slots=True)
class ExportSession:
    """Opened with ``open``; close it or use it as a context manager."""

    settings: Settings
    access: LokiAccess
    store: ObjectStore
    loki: LokiQuerierClient
    api: ApiSource
    chunks: ChunkSource | None
    ours: bool
    """Whether Loki runs here under ``onecollector up``: then it may be flushed."""
    _flushed_ns: int = 0
    _listed: bool = False
    _explaining: Explaining | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def open(cls, settings: Settings, tenant: str, loki_url: str, *, out: str | None = None) -> Self:
        """Everything for one tenant; ``loki_url`` is where Loki is. Raises SettingsError, StoreError."""
        access = settings.loki.access(loki_url, tenant)
        out = as_url(out or settings.export.out or str(settings.layout.exports))
        store = open_store(out, settings.export.s3 or settings.loki.s3, create=True)
        objects = chunk_store(settings)
        stack = ExitStack()
        loki = stack.enter_context(LokiQuerierClient(access))
        ours = settings.loki.url is None
        page_bytes = None if ours else FOREIGN_PAGE_BYTES
        executor = stack.enter_context(BatchQueryExecutor(access, page_bytes=page_bytes))
        chunks = None
        if objects is not None:
            chunks = ChunkSource.open(objects, tenant, settings.layout.catalogues)
            stack.callback(chunks.close)
        return cls(settings, access, store, loki, ApiSource(executor, loki), chunks, ours, _stack=stack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def plan(self, query: str, start_ns: int, end_ns: int, now_ns: int, engine: EngineName | None = None) -> list[Task]:
        """A task for every service and hour. Flushes a Loki of ours first, once, so that late lines are seen.

        Raises PlanError, LogqlError, LokiError.
        """
        check_range(start_ns, end_ns, now_ns)
        parsed = refuse_changes(query)
        in_store_until_ns = now_ns - self._settle_ns()
        if self.ours:
            in_store_until_ns = self._flushed()
        if self.chunks is not None and not self._listed:
            self.chunks.refresh()
            self._listed = True
        circumstances = Circumstances(
            forced=engine,
            chunk_store=self.chunks is not None,
            bare_selector=plain_matchers(query) is not None,
            in_store_until_ns=in_store_until_ns,
            deleted=tuple(self._deletions()),
            retained_from_ns=self._retained_from(now_ns),
        )
        request = Request(self.access.tenant, query, parsed.selector, start_ns, end_ns)
        return [self._task(selection, circumstances) for selection in plan(request, self.loki)]

    def _task(self, selection: Selection, circumstances: Circumstances) -> Task:
        name, reason = choose_engine(circumstances, selection.start_ns, selection.end_ns)
        source = self.chunks if name == "chunks" and self.chunks is not None else self.api
        settled = selection.partition.end_ns <= circumstances.in_store_until_ns
        return Task(selection, source, reason, settled, fallback=self.api)

    def _flushed(self) -> int:
        """The instant of the session's one flush."""
        if not self._flushed_ns:
            now_ns = time.time_ns()
            flush(self.access, clock=time.monotonic, sleep=time.sleep)
            self._flushed_ns = now_ns
        return self._flushed_ns

    def _settle_ns(self) -> int:
        seconds = seconds_of_duration(self.settings.export.settle)
        if seconds is None:
            raise SettingsError(
                f"export.settle: expected a duration such as 150m, found {self.settings.export.settle!r}"
            )
        return int(seconds * 1e9)

    def _deletions(self) -> Iterable[Span]:
        try:
            requests = self.loki.delete_requests()
        except LokiError as error:
            if error.status == 404:
                # Deletion is off there.
                return
            raise
        for request in requests:
            yield Span(request.start_ns, request.end_ns)

    def _retained_from(self, now_ns: int) -> int:
        """Before this instant Loki may hide lines that its store still holds: the shortest period of all counts."""
        limits = self.loki.limits()
        periods = [limits.retention_s] + [
            seconds_of_duration(rule.get("period")) for rule in limits.all.get("retention_stream") or []
        ]
        shortest = min((period for period in periods if period), default=None)
        return 0 if shortest is None else now_ns - int(shortest * 1e9) + RETENTION_MARGIN_NS

    def size(self, query: str, start_ns: int, end_ns: int) -> IndexStats:
        """How much that is, as the index knows it. Raises LokiError."""
        return self.loki.stats(parse(query).selector, start_ns, end_ns)

    def exporter(self, query: str, progress: Progress = lambda rows, size: None) -> Exporter:
        """Writes to the session's store; looks for holes where the query filters nothing."""
        if plain_matchers(query) is not None:
            self._explaining = Explaining(self.settings.registry_url, self.loki, parse(query).selector)
            self._stack.callback(self._explaining.close)
        return Exporter(self.store, self.settings.layout.root / "exporting", self._explaining, progress)

    @property
    def unchecked(self) -> str:
        """Why holes in the record numbers were not looked for, where they were not."""
        return self._explaining.unchecked if self._explaining is not None else ""

    @staticmethod
    def workers(tasks: Sequence[Task]) -> int:
        """Partitions at a time: as many as there are cores; each reads ahead by itself."""
        return max(1, min(len(tasks), os.cpu_count() or 1, 8))

    @staticmethod
    def engines(tasks: Sequence[Task]) -> str:
        """``chunks``, or ``chunks 160, api 8 (not all of it is in the store yet)``."""
        counts: dict[tuple[str, str], int] = {}
        for task in tasks:
            key = (task.source.name, task.reason)
            counts[key] = counts.get(key, 0) + 1
        if len({name for name, _ in counts}) == 1 and not any(name == "api" for name, _ in counts):
            return "chunks"
        return ", ".join(f"{name} {count} ({reason})" for (name, reason), count in sorted(counts.items(), reverse=True))
