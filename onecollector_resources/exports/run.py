"""Exporting one partition: read, order, write, look again, and put it in place with its manifest last.

A kill at any step leaves either the partition of before or the new one; what lies about besides is named by its content
and taken away by the next run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from onecollector_resources.exports.partitions import MANIFEST, Hole, Manifest, ManifestError, PartFile, manifest_of
from onecollector_resources.exports.record_numbers import RecordNumbers
from onecollector_resources.exports.sources import LineSource, Selection
from onecollector_resources.exports.writer import PartitionWriter
from onecollector_resources.loki.lines import ordered
from onecollector_resources.storage.objects import ObjectMissing, ObjectStore

ATTEMPTS = 3
"""How often a partition is read anew because its source changed meanwhile."""

Progress = Callable[[int, int], None]
"""Told of every block: rows and bytes of lines."""


@dataclass(slots=True)
class _Pass:
    files: tuple[PartFile, ...] = ()
    entries: int = 0
    duplicates: int = 0
    line_bytes: int = 0
    problems: tuple[str, ...] = ()
    holes: tuple[Hole, ...] = ()
    numbers: RecordNumbers = field(default_factory=RecordNumbers)


@dataclass(frozen=True, slots=True)
class Exporter:
    """Writes partitions to ``store``. ``scratch`` is a folder on a disk with room for one partition at a time.

    ``explain`` says of holes in the record numbers which are known and why; None where lines were filtered, so that
    holes say nothing.
    """

    store: ObjectStore
    scratch: Path
    explain: Callable[[Selection, Sequence[Hole]], Sequence[Hole]] | None = None
    progress: Progress = lambda rows, size: None

    def present(self, selection: Selection) -> Manifest | None:
        """The manifest that is in place; None where there is none, or one of another version."""
        key = selection.partition.manifest_key
        try:
            return manifest_of(self.store.get(key), f"{self.store.url}/{key}")
        except (ObjectMissing, ManifestError):
            return None

    def up_to_date(self, selection: Selection, source: LineSource) -> Manifest | None:
        """The manifest in place if it is complete, settled, of this selection and of what ``source`` holds now.

        Its files must be there, and no others: a run that was killed may have left those of an older partition.
        """
        found = self.present(selection)
        if found is None or not found.complete or not found.settled or found.engine != source.name:
            return None
        asked = (selection.query, selection.start_ns, selection.end_ns)
        if (found.query, found.clip_start_ns, found.clip_end_ns) != asked:
            return None
        prefix = selection.partition.prefix
        there = {info.key.removeprefix(prefix): info.size for info in self.store.list(prefix)}
        there.pop(MANIFEST, None)
        if there != {file.name: file.bytes for file in found.files}:
            return None
        return found if found.source == source.fingerprint(selection) else None

    def export(self, selection: Selection, source: LineSource, *, settled: bool) -> Manifest:
        """Read the selection and put it in place. Raises what the source and the store raise, OSError for the disk.

        ``settled``: no more lines of this time are expected.
        """
        with self._folder() as folder:
            attempt, before, done = 1, source.fingerprint(selection), self._read(selection, source, folder)
            while (now := source.fingerprint(selection)) != before:
                # Chunks were flushed or merged meanwhile.
                if attempt == ATTEMPTS:
                    done.problems = (*done.problems, f"its source changed during each of {ATTEMPTS} readings")
                    break
                shutil.rmtree(folder)
                folder.mkdir()
                attempt, before, done = attempt + 1, now, self._read(selection, source, folder)
            manifest = self._manifest(selection, source, done, before, settled)
            if manifest.rows == 0 and manifest.complete and manifest.partition.service:
                # Loki names services that have no line in an hour, today and not tomorrow: no trace of those.
                manifest = replace(manifest, files=())
            self._put_in_place(manifest, folder)
        return manifest

    def _read(self, selection: Selection, source: LineSource, folder: Path) -> _Pass:
        done, out = _Pass(), PartitionWriter(folder)
        reading = source.read(selection)
        try:
            for block in reading.blocks():
                lines = ordered(block)
                done.entries += len(block)
                done.duplicates += lines.duplicates
                before = out.line_bytes
                out.write(lines.table)
                if self.explain is not None:
                    done.numbers.add(lines.table)
                self.progress(lines.table.num_rows, out.line_bytes - before)
            done.files = out.close()
        finally:
            out.abandon()
        done.line_bytes = out.line_bytes
        done.problems = reading.problems()
        if self.explain is not None and (holes := done.numbers.holes()):
            done.holes = tuple(self.explain(selection, holes))
            unknown = [hole for hole in done.holes if not hole.known]
            if unknown:
                first = unknown[0]
                done.problems = (
                    *done.problems,
                    f"{len(unknown)} holes in the record numbers that no gap explains, the first: "
                    f"{first.first} to {first.last} of file {first.segment} of {first.source_id[:12]}; "
                    "`onecollector prove` looks for them",
                )
        return done

    def _manifest(
        self, selection: Selection, source: LineSource, done: _Pass, fingerprint: str, settled: bool
    ) -> Manifest:
        times = [t for file in done.files for t in (file.first_ns, file.last_ns) if t is not None]
        return Manifest(
            partition=selection.partition,
            query=selection.query,
            engine=source.name,
            clip_start_ns=selection.start_ns,
            clip_end_ns=selection.end_ns,
            entries=done.entries,
            duplicates=done.duplicates,
            rows=sum(file.rows for file in done.files),
            line_bytes=done.line_bytes,
            first_ns=min(times, default=None),
            last_ns=max(times, default=None),
            source=fingerprint,
            settled=settled,
            files=done.files,
            holes=done.holes,
            problems=done.problems,
        )

    def _put_in_place(self, manifest: Manifest, folder: Path) -> None:
        prefix, key = manifest.partition.prefix, manifest.partition.manifest_key
        before = {info.key for info in self.store.list(prefix)}
        kept = set[str]()
        if manifest.files:
            for file in manifest.files:
                self.store.put_file(prefix + file.name, folder / file.name)
            self.store.put(key, manifest.to_json())
            kept = {prefix + file.name for file in manifest.files} | {key}
        # The manifest first: files without one are no partition.
        for name in sorted(before - kept, key=lambda name: name != key):
            self.store.delete(name)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="partition-", dir=self.scratch) as name:
            yield Path(name)
