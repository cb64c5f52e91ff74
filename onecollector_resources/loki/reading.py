"""Windows of one query read side by side by threads, and handed out in order.

The unit of work is one request, not one window: a worker takes the earliest window that is ready, asks for one page of
it and puts it back with what to ask for next, or with the time of the next try. So waiting occupies nobody, the window
that is needed first always goes first, and how many requests run at once can change with every answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from onecollector_resources.loki.columns import between, joined
from onecollector_resources.loki.congestion import delay_s
from onecollector_resources.loki.effort import Effort, ReadFailed, Tally, Traffic
from onecollector_resources.loki.lines import LineBlock
from onecollector_resources.loki.pager import MS, Found, Request, Step, TooManyAtOnce, advance, shorter, smaller
from onecollector_resources.loki.splits import Row, query_of
from onecollector_resources.loki.windows import Size, Window
from onecollector_resources.loki.wire import Lines, Page, Trouble, Wire

FEWEST_ROWS = 100
"""A page is not made smaller than this for being silent: what is silent then has another cause."""

MOST_HALVINGS = 6
PROBE_S = 1.0
UNHEARD_DELAY_S = 1.0
"""Whether anybody is there again may be asked often: the question is small."""

UNKNOWN_ROW_BYTES = 20_000
"""Of lines of which neither the index nor a page has said anything yet: a small page says it."""

SPARSE = 64
"""A query that filters gets windows at most this many times as large."""

FULL = 0.8
"""Share of a page that a window is meant to fill: one request a window, mostly."""


@dataclass
class _Job:
    """A window that is being read. ``todo``: what to ask for, the next one last. ``largest``: rows of a page, at most.

    ``tries`` failed since the last answer, ``silences`` of them by silence, the first at ``troubled_at``, when there had
    been ``answers_then`` answers. Pages were made smaller (``shrunk``), then grew again (``grew``), or not (``held``).
    """

    window: Window
    todo: list[Request]
    largest: int
    pieces: list[LineBlock] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    busy: bool = False
    ready_at: float = float("-inf")
    tries: int = 0
    troubled_at: float = 0
    answers_then: int = 0
    halvings: int = 0
    shrunk: bool = False
    grew: bool = False
    held: bool = False
    silences: int = 0
    unheard: bool = False

    @property
    def closed(self) -> bool:
        """Whether what was read is a closed span: all that is left lies behind it."""
        return not self.busy and (not self.todo or (len(self.todo) == 1 and self.todo[0].plain))


@dataclass(frozen=True, slots=True)
class _Taken:
    page: Page
    step: Step
    kept: LineBlock


class Reading:
    """One read, under way while ``blocks`` is iterated."""

    def __init__(
        self,
        wire: Wire,
        query: str,
        effort: Effort,
        traffic: Traffic,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.tally = Tally()
        self._wire, self._query, self._effort, self._clock, self._chance = wire, query, effort, clock, chance
        self._traffic, self._changed = traffic, traffic.changed
        self._kept_share = 1.0
        self._jobs: list[_Job] = []
        self._planned = False
        self._stopped = False
        self._failure: BaseException | None = None

    @property
    def _ahead(self) -> int:
        """How many windows are under way or wait to be handed out."""
        return self._effort.at_once + 2

    def budget(self) -> Size:
        """How large the next window should be."""
        rows = FULL * min(self._effort.page_rows, self._traffic.largest)
        share = max(self._kept_share, 1 / SPARSE)
        return Size(int(self._effort.window_bytes / share), max(1, int(rows / share)))

    def blocks(self, plan: Iterator[Window]) -> Iterator[LineBlock]:
        """The lines of the plan's windows in order of time. Raises ReadFailed."""
        work = [
            threading.Thread(target=self._guarded, args=(self._work,), daemon=True) for _ in range(self._effort.at_once)
        ]
        threads = [threading.Thread(target=self._guarded, args=(lambda: self._plan(plan),), daemon=True), *work]
        for thread in threads:
            thread.start()
        try:
            while (block := self._next_block()) is not None:
                if len(block):
                    yield block
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()

    def _next_block(self) -> LineBlock | None:
        with self._changed:
            while True:
                if self._failure is not None:
                    raise self._failure
                head = self._jobs[0] if self._jobs else None
                if head is None and self._planned:
                    return None
                if head is not None and head.closed and (not head.todo or head.bytes >= self._effort.window_bytes):
                    pieces, head.pieces, head.bytes = head.pieces, [], 0
                    if not head.todo:
                        self._jobs.pop(0)
                        self.tally.windows += 1
                    self._changed.notify_all()
                    if pieces:
                        break
                else:
                    self._changed.wait()
        return joined(pieces)

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that reads the blocks
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _plan(self, plan: Iterator[Window]) -> None:
        for window in plan:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or len(self._jobs) < self._ahead)
                if self._stopped:
                    return
                rows, largest = self._page_rows(window)
                request = Request(window.start_ns, window.end_ns, rows)
                self._jobs.append(_Job(window, [request], largest))
                self._changed.notify_all()
        with self._changed:
            self._planned = True
            self._changed.notify_all()

    def _page_rows(self, window: Window) -> tuple[int, int]:
        """Rows of a page of this window, and of the largest that may be asked for."""
        fit = self._traffic.largest
        if self._effort.page_bytes is not None:
            size = window.size
            told = size.bytes / size.entries if size and size.entries else 0
            row = max(self._traffic.row_bytes, told) or UNKNOWN_ROW_BYTES
            fit = max(1, min(fit, int(self._effort.page_bytes / row)))
        return min(fit, self._effort.page_rows), fit

    def _work(self) -> None:
        while True:
            with self._changed:
                job = self._next_job()
                if job is None:
                    return
                job.busy = True
                self._traffic.active += 1
                request = job.todo.pop()
                timeout_s = self._traffic.congestion.timeout_s(job.silences)
            began, outcome = self._clock(), None
            try:
                outcome = self._outcome(job, request, timeout_s)
            finally:
                with self._changed:
                    self._traffic.active -= 1
                    if outcome is not None:
                        job.busy = False
                        if isinstance(outcome, Trouble):
                            self._bad(job, request, outcome, began)
                        else:
                            self._good(job, request, outcome)
                    self._changed.notify_all()

    def _outcome(self, job: _Job, request: Request, timeout_s: float) -> _Taken | Trouble:
        """One question and what is kept of the answer. Without the lock: nobody else has this window now."""
        # After silence a small question comes first: it is lost soon where Loki is away, and a page only after long.
        unheard = self._wire.answers(PROBE_S) if self._traffic.unheard else None
        if unheard is not None:
            return replace(unheard, kind="away")
        query = query_of(self._query, request.conditions)
        direction = "backward" if request.backward else "forward"
        page = self._wire.page(query, request.asked_from_ns, request.end_ns, request.limit, timeout_s, direction)
        if isinstance(page, Trouble):
            return page
        block = page.lines.block
        times = block.time_ns
        found = Found(len(times), int(times.min()), int(times.max())) if len(times) else Found(0, 0, 0)
        try:
            step = advance(request, found, job.largest, lambda: rows_of(page.lines))
        except TooManyAtOnce as error:
            raise ReadFailed(f"could not read {self._query} in {job.window}: {error}", job.window) from error
        return _Taken(page, step, between(block, step.keep_from_ns, step.keep_before_ns))

    def _next_job(self) -> _Job | None:
        """The earliest window that is ready, once a request may run; None when the read is over. Holds the lock."""
        while not self._stopped and self._failure is None:
            now, wake = self._clock(), None
            if self._traffic.active < self._traffic.congestion.at_once:
                for place, job in enumerate(self._jobs[: self._ahead]):
                    if job.busy or not job.todo or (place and job.bytes >= self._effort.window_bytes):
                        continue
                    if job.ready_at <= now:
                        return job
                    wake = min(job.ready_at, wake or job.ready_at)
            self._changed.wait(None if wake is None else wake - now)
        return None

    def _good(self, job: _Job, request: Request, taken: _Taken) -> None:
        page, kept = taken.page, taken.kept
        rows = len(page.lines.block)
        self.tally.pages += 1
        self.tally.rows += len(kept)
        self.tally.bytes += page.bytes
        self._traffic.congestion = self._traffic.congestion.after_answer(page.took_s)
        if rows:
            self._traffic.row_bytes = max(page.bytes / rows, 0.9 * self._traffic.row_bytes)
        follow = taken.step.follow
        job.grew = job.shrunk
        if job.closed and len(follow) == 1 and follow[0].plain and follow[0].start_ns > request.start_ns:
            # By now more may be known of what fits, and what made pages fail may be over. A page that brought nothing is
            # followed by a larger one, which must stay so.
            rows_now, largest = self._page_rows(job.window)
            job.largest = min(job.largest, largest) if job.held else largest
            rows_now = min(rows_now, job.largest, 2 * request.limit if job.shrunk else rows_now)
            follow = (replace(follow[0], limit=rows_now),)
        job.todo += follow[::-1]
        if len(kept):
            job.pieces.append(kept)
            job.rows += len(kept)
            job.bytes += page.bytes * len(kept) // rows
        if not job.todo:
            self._learn(job)
        elif taken.step.follow and job.closed:
            self._share_rest(job, taken.step.keep_before_ns - request.start_ns)
        job.tries, job.silences, job.unheard = 0, 0, False
        self._traffic.unheard = False
        for other in self._jobs:
            if other.unheard:
                # Loki answers again, so there is no need to wait longer for that.
                other.ready_at = float("-inf")

    def _share_rest(self, job: _Job, page_ns: int) -> None:
        """Let others begin with what lies some pages ahead: the index knew too little of this window."""
        rest = job.todo[0]
        middle = rest.start_ns + page_ns
        if rest.end_ns - middle >= page_ns:
            job.todo, job.window = [replace(rest, end_ns=middle)], Window(job.window.start_ns, middle)
            more = _Job(Window(middle, rest.end_ns), [replace(rest, start_ns=middle)], job.largest, held=job.held)
            self._jobs.insert(self._jobs.index(job) + 1, more)

    def _learn(self, job: _Job) -> None:
        """How many of the lines that are there the query's filters leave."""
        if job.window.size is not None and job.window.size.entries:
            share = min(1.0, job.rows / job.window.size.entries)
            # Down slowly, up at once: a window that is too large costs more than one that is too small.
            self._kept_share = max(share, 0.7 * self._kept_share + 0.3 * share)

    def _bad(self, job: _Job, request: Request, trouble: Trouble, began: float) -> None:
        now = self._clock()
        self.tally.troubles[trouble.kind] += 1
        again: tuple[Request, ...] = (request,)
        if trouble.kind == "limit" and trouble.limit < request.limit:
            self._traffic.largest = min(self._traffic.largest, max(1, trouble.limit))
            job.largest = min(job.largest, self._traffic.largest)
            again = (replace(request, limit=self._traffic.largest),)
        elif trouble.kind == "too_long" and len(shorter(request)) > 1:
            again = shorter(request)
        elif trouble.kind == "too_large" and request.limit > 1:
            again = (self._smaller(job, request, sure=True),)
        elif trouble.kind in ("limit", "too_long", "too_large", "refused"):
            self._fail(
                job, request, trouble, "it cannot be asked for in smaller parts" if trouble.kind != "refused" else ""
            )
            return
        else:
            again = self._later(job, request, trouble, began, now)
        job.todo += again[::-1]

    def _later(self, job: _Job, request: Request, trouble: Trouble, began: float, now: float) -> tuple[Request, ...]:
        """The same again after a while, smaller where that may be the cure."""
        self._traffic.congestion = self._traffic.congestion.after_trouble(began, now)
        if not job.tries:
            job.troubled_at, job.answers_then = began, self.tally.pages
        job.tries += 1
        if now - job.troubled_at >= self._effort.patience_s:
            tried = f"{job.tries} tries in {now - job.troubled_at:.0f} s"
            self._fail(job, request, trouble, f"{tried}, pages down to {request.limit:,} lines")
            return (request,)
        job.unheard = trouble.kind in ("silent", "cut", "away")
        self._traffic.unheard |= job.unheard
        delay = delay_s(job.tries, self._chance())
        job.ready_at = now + (min(delay, UNHEARD_DELAY_S) if job.unheard else delay)
        job.silences += trouble.kind == "silent"
        if trouble.kind in ("silent", "cut") or trouble.status == 504:
            # Others get answers, so it is this request: perhaps a message that is too large for Loki's own wires.
            if (job.tries > 1 or self.tally.pages > job.answers_then) and request.limit > FEWEST_ROWS:
                request = self._smaller(job, request, sure=False)
            if job.tries > 2 and job.halvings < MOST_HALVINGS and not request.conditions:
                job.halvings += 1
                return shorter(request)
        return (request,)

    def _smaller(self, job: _Job, request: Request, *, sure: bool) -> Request:
        """With fewer rows. Pages grow again unless it is sure, or happens again, that it is for their size."""
        # Of so short a span the pager asks for the largest page, again and again.
        short = request.end_ns - request.start_ns <= MS
        request = smaller(request)
        job.shrunk = True
        if sure or short or job.grew:
            job.largest, job.held = request.limit, True
        return request

    def _fail(self, job: _Job, request: Request, trouble: Trouble, tried: str) -> None:
        span = Window(request.start_ns, request.end_ns)
        self._failure = ReadFailed(
            f"could not read {query_of(self._query, request.conditions)} in {span} of {job.window}"
            f"{f' ({tried})' if tried else ''}: {trouble.message}",
            job.window,
        )


def rows_of(lines: Lines) -> list[Row]:
    """A page's rows one by one, for deciding how to cut it."""
    block = lines.block
    texts, pairs = block.line.to_pylist(), block.metadata.to_pylist()
    return [
        Row(lines.labels[stream], text, dict(metadata))
        for stream, text, metadata in zip(block.stream.tolist(), texts, pairs, strict=True)
    ]
