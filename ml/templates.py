"""TemplateMiner: every line of every service gets one template, or is counted as overflow.

Lines are masked a column at a time; of the distinct texts that remain, known ones are looked up, and only the unseen go
through Drain. So what a line costs does not depend on how many templates there are, and what is learned is bounded: a
service that writes ten million different lines fills its own limits and nothing else. A template's id is the hash of
the text that founded it: it stays when the template grows wider, and another process gives the same text the same id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml.drain import EVIDENCE
from ml.masking import lightly_masked, masked, settled, without_escapes
from ml.service_templates import SHAPE, Bounds, ServiceTemplates, Template
from ml.structured import candidates, shaped

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

OVERFLOW = "overflow"
"""Id of lines without a template of their own, because a limit was reached."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a service may have otherwise than the rest: masks of its own (RE2), and how much evidence joins texts."""

    masks: tuple[str, ...] = ()
    evidence: float = EVIDENCE


@dataclass(frozen=True, slots=True)
class Tally:
    """What came in and what happened to it. ``lines`` is the sum of all templates' lines and ``overflow``."""

    lines: int = 0
    distinct: int = 0
    learned: int = 0
    overflow: int = 0
    evicted: int = 0
    cut: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Mined:
    """The outcome for a batch: line i has template ``templates[index[i]]``, or overflow where ``index[i]`` is -1."""

    index: np.ndarray[Any, Any]
    templates: list[tuple[str, Template]]
    """Service and template."""
    lines: np.ndarray[Any, Any]
    """Lines of each of ``templates``."""
    tally: Tally

    def ids(self) -> list[str]:
        """The id of each line's template."""
        names = [*(template.id for _, template in self.templates), OVERFLOW]
        return [names[at] for at in self.index.tolist()]


@dataclass(slots=True)
class TemplateMiner:
    """Templates of many services. Not safe for several threads."""

    bounds: Bounds = field(default_factory=Bounds)
    tuning: Mapping[str, Tuning] = field(default_factory=dict)
    services: dict[str, ServiceTemplates] = field(default_factory=dict)

    def service(self, name: str) -> ServiceTemplates:
        """The templates of a service, none at first."""
        found = self.services.get(name)
        if found is None:
            evidence = self.tuning.get(name, Tuning()).evidence
            found = self.services[name] = ServiceTemplates(self.bounds, evidence)
        return found

    def mine(self, lines: pl.Series, service: str | pl.Series = "", *, minutes: float = 1.0) -> Mined:
        """Templates for lines (strings), in order, of one service or of one for each line.

        ``minutes`` is how long a time they are of: how many texts may be learned is bounded per minute. A null is an
        empty line.
        """
        import numpy as np

        texts, code, tally = self._masked(lines, service)
        names = [service] if isinstance(service, str) else service.unique(maintain_order=True).to_list()
        of_text, text_code, number_of = _pairs(code, service, names)
        index = np.full(len(code), -1, np.int64)
        templates: list[tuple[str, Template]] = []
        place = np.full(len(of_text), -1, np.int64)
        hashes = texts.hash().to_numpy()[text_code]
        learned = evicted = 0
        # In one piece per service, each text where its first line is.
        for at, name in enumerate(names):
            rows = np.flatnonzero(of_text == at)
            mine = self.service(name)
            numbers = mine.numbers(
                hashes[rows], lambda picked, rows=rows: texts.gather(text_code[rows[picked]]), minutes
            )
            learned, evicted = learned + mine.learned, evicted + mine.evicted
            known, where = np.unique(numbers, return_inverse=True)
            places = np.array([-1 if n < 0 else len(templates) + i for i, n in enumerate(known.tolist())], np.int64)
            if len(known) and known[0] < 0:
                places[1:] -= 1
            templates += [(name, mine.templates[n]) for n in known.tolist() if n >= 0]
            place[rows] = places[where]
        index = place[number_of]
        counted = np.bincount(index[index >= 0], minlength=len(templates))
        tally = Tally(len(index), len(of_text), learned, int((index < 0).sum()), evicted, tally.cut)
        return Mined(index, templates, counted, tally)

    def _masked(self, lines: pl.Series, service: str | pl.Series) -> tuple[pl.Series, np.ndarray[Any, Any], Tally]:
        """Distinct texts, which of them each line has, and how many lines were cut."""
        import numpy as np
        import polars as pl

        raw = lines.cast(pl.String).fill_null("")
        limit = self.bounds.line_chars
        longer = raw.str.len_bytes() > limit
        cut = int((raw.filter(longer).str.len_chars() > limit).sum()) if longer.any() else 0
        if cut:
            raw = raw.str.slice(0, limit)
        raw = without_escapes(raw)
        structured = candidates(raw)
        parts: list[pl.Series] = []
        code = np.zeros(len(raw), np.int64)
        before = 0
        for where, light in ((~structured, False), (structured, True)):
            for rows, masks in self._by_masks(where, service):
                texts, codes = _texts(raw if rows is None else raw.gather(rows), light, masks)
                code[slice(None) if rows is None else rows] = codes + before
                before += len(texts)
                parts.append(texts)
        if not parts:
            return pl.Series([], dtype=pl.String), code, Tally()
        # Numbered by where their first lines are, whichever part they came by.
        texts = pl.concat(parts)
        first = np.full(len(texts), len(code))
        np.minimum.at(first, code, np.arange(len(code)))
        order = np.argsort(first)
        texts, same = _distinct(texts.gather(order))
        place = np.empty(len(order), np.int64)
        place[order] = same
        return texts, place[code], Tally(cut=cut)

    def _by_masks(
        self, where: pl.Series, service: str | pl.Series
    ) -> Iterator[tuple[np.ndarray[Any, Any] | None, tuple[str, ...]]]:
        """Rows of ``where`` (None: all) by the masks that apply to them."""
        import numpy as np

        if isinstance(service, str):
            if where.any():
                yield (None if where.all() else where.to_numpy().nonzero()[0]), self.tuning.get(service, Tuning()).masks
            return
        own = [name for name, tuning in self.tuning.items() if tuning.masks]
        rest = where.to_numpy()
        for name in own:
            mine = rest & (service == name).to_numpy()
            if mine.any():
                yield np.flatnonzero(mine), self.tuning[name].masks
                rest = rest & ~mine
        if rest.any():
            yield (None if rest.all() else np.flatnonzero(rest)), ()


def _texts(lines: pl.Series, light: bool, masks: tuple[str, ...]) -> tuple[pl.Series, np.ndarray[Any, Any]]:
    """Texts that are mined (masked; structured lines as sentence and keys), and which of them each line has."""
    import polars as pl

    if not light:
        texts, code = _distinct(masked(lines, masks))
        return settled(texts), code
    texts, code = _distinct(lightly_masked(lines))
    pairs = [shaped(text) for text in texts.to_list()]
    sentences = settled(masked(pl.Series([pair.message for pair in pairs], dtype=pl.String), masks))
    shapes = pl.Series([SHAPE + pair.shape if pair.shape else "" for pair in pairs], dtype=pl.String)
    return sentences + shapes, code


def _distinct(texts: pl.Series) -> tuple[pl.Series, np.ndarray[Any, Any]]:
    """Texts by first appearance, and which of them each row has."""
    import numpy as np
    import polars as pl
    import pyarrow as pa

    encoded: Any = texts.rechunk().to_arrow().cast(pa.large_string()).dictionary_encode()
    return pl.Series(pl.from_arrow(encoded.dictionary)).cast(pl.String), encoded.indices.to_numpy().astype(np.int64)


def _pairs(
    code: np.ndarray[Any, Any], service: str | pl.Series, names: list[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Distinct (service, text) by first appearance: service and text of each, and which of them each line has."""
    import numpy as np
    import polars as pl

    if isinstance(service, str):
        texts = int(code.max()) + 1 if len(code) else 0
        return np.zeros(texts, np.int64), np.arange(texts), code
    place = pl.DataFrame({"s": names, "n": np.arange(len(names))})
    of_line = service.to_frame("s").join(place, on="s", how="left", maintain_order="left")["n"].to_numpy()
    texts = int(code.max()) + 1 if len(code) else 1
    keys, first, inverse = np.unique(of_line * texts + code, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return keys[order] // texts, keys[order] % texts, rank[inverse]
