"""What a scorer keeps of a tenant on disk, so that one that was killed goes on with the next minute.

A minute is one file that is written beside and renamed; ``state.json`` says up to which minute all is told. Between the
two a process may end: the minute is then scored once more, and gives the same findings under the same keys. Every file
carries its sha256. What is damaged is not mended: all of it goes, the reason is told, and the scorer starts as if for the
first time. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ml.drift import Sightings
from ml.live_window import Blind, KeptMinute
from ml.minute_tally import MinuteTally, schema
from ml.quarters import Quarters

if TYPE_CHECKING:
    import polars as pl

FORMAT = 1
DIGEST = 64


class Damaged(ValueError):
    """A file is not what was written; the message names it."""


@dataclass(frozen=True, slots=True)
class Told:
    """Up to which minute everything was told, with which model, and what has to be remembered from minute to minute.

    ``quiet_until``: minutes up to it are history and not scored. ``begun`` are minutes in which incidents began, ``ran_out``
    services whose findings ran out, with their last unusual minute; ``held`` keys of findings that were held back in the
    hour ``held_hour`` (since 1970).
    """

    model_id: str
    scored: int
    quiet_until: int = 0
    begun: tuple[int, ...] = ()
    ran_out: Mapping[str, int] = field(default_factory=dict)
    held_hour: int = 0
    held: tuple[str, ...] = ()
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """What was found on disk."""

    told: Told
    start: int
    before: Mapping[str, Sightings]
    minutes: tuple[KeptMinute, ...]
    templates: pl.DataFrame | None


class ScorerState:
    """The folder of one tenant. Writing raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._minutes = folder / "minutes"

    def load(self) -> Kept | None:
        """Everything, or None where nothing was kept. Raises Damaged."""
        if not (self.folder / "state.json").exists():
            return None
        try:
            told = _told(orjson.loads(_read(self.folder / "state.json")))
            base = orjson.loads(_read(self.folder / "before.json"))
            start = int(base["start"])
            before = {
                service: Sightings(
                    {name: at[0] for name, at in seen.items()},
                    {name: at[1] for name, at in seen.items()},
                    # What an earlier version wrote has none: then a day is not known, and is from now on.
                    Quarters.of_plain(base["quarters"][service]) if "quarters" in base else Quarters(),
                )
                for service, seen in base["seen"].items()
            }
            names = sorted(int(path.stem) for path in self._minutes.glob("*.parquet"))
            minutes = tuple(self._minute(minute) for minute in names if minute >= start)
            if [one.minute for one in minutes] != list(range(start, start + len(minutes))):
                raise Damaged(f"{self._minutes}: expected minutes without a hole from {start} on")
            if start + len(minutes) not in (told.scored + 1, told.scored + 2):
                raise Damaged(
                    f"{self._minutes}: expected minutes up to {told.scored}, found {start + len(minutes) - 1}"
                )
            path = self.folder / "templates.parquet"
            templates = _table(_read(path), path)[0] if path.exists() else None
        except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError, FileNotFoundError) as error:
            raise Damaged(f"{self.folder}: expected a scorer's state, found something else ({error!r})") from None
        return Kept(told, start, before, minutes, templates)

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def save_told(self, told: Told) -> None:
        """All is told up to ``told.scored``."""
        self._write(self.folder / "state.json", orjson.dumps({"format": FORMAT, **asdict(told)}))

    def save_minute(self, kept: KeptMinute) -> None:
        """A minute, in the place of one that was kept of it."""
        facts = {"minute": kept.minute, "lines": dict(kept.tally.lines), "blind": asdict(kept.blind)}
        self._write(self._minutes / f"{kept.minute}.parquet", _bytes(kept.tally.table, facts))

    def save_templates(self, table: pl.DataFrame) -> None:
        """What was learned since the model."""
        self._write(self.folder / "templates.parquet", _bytes(table, {}))

    def drop_templates(self) -> None:
        """Another model serves: what was learned beside the earlier one is of no use."""
        (self.folder / "templates.parquet").unlink(missing_ok=True)

    def save_before(self, start: int, before: Mapping[str, Sightings]) -> None:
        """When templates had been seen before ``start``, and how much in the day before; no earlier minute is needed any more."""
        seen = {
            service: {name: [one.appeared.get(name, at), at] for name, at in one.last.items()}
            for service, one in before.items()
        }
        quarters = {service: one.quarters.plain() for service, one in before.items()}
        self._write(self.folder / "before.json", orjson.dumps({"start": start, "seen": seen, "quarters": quarters}))
        for path in self._minutes.glob("*.parquet"):
            if int(path.stem) < start:
                path.unlink(missing_ok=True)

    def _minute(self, minute: int) -> KeptMinute:
        path = self._minutes / f"{minute}.parquet"
        table, facts = _table(_read(path), path)
        if facts.get("minute") != minute or table.schema != schema():
            raise Damaged(f"{path}: expected the tally of minute {minute}, found another table")
        return KeptMinute(MinuteTally(minute, table, facts["lines"]), Blind(**facts["blind"]))

    def _write(self, path: Path, body: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_name(path.name + ".new")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        beside.replace(path)


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    digest, body = data[:DIGEST], data[DIGEST + 1 :]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise Damaged(f"{path}: expected the checksum in its first line, found another: it is damaged")
    return body


def _bytes(table: pl.DataFrame, facts: Mapping[str, Any]) -> bytes:
    opened = io.BytesIO()
    table.write_parquet(opened, compression="lz4", statistics=False)
    text = orjson.dumps(facts)
    return len(text).to_bytes(8, "big") + text + opened.getvalue()


def _table(body: bytes, path: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    import polars as pl

    size = int.from_bytes(body[:8], "big")
    facts = orjson.loads(body[8 : 8 + size])
    try:
        return pl.read_parquet(io.BytesIO(body[8 + size :])), facts
    except pl.exceptions.PolarsError as error:
        raise Damaged(f"{path}: expected a table, found something else ({error})") from None


def _told(body: dict[str, Any]) -> Told:
    if body.pop("format") != FORMAT:
        raise Damaged(f"expected a scorer's state of format {FORMAT}, found another")
    return Told(**{**body, "begun": tuple(body["begun"]), "held": tuple(body["held"])})
