"""TemplateMiner: every line of every service gets one template, or is counted as overflow.

Lines are masked a column at a time; of the distinct texts that remain, known ones are looked up, and only the unseen go
through Drain. So what a line costs does not depend on how many templates there are, and what is learned is bounded: a
service that writes ten million different lines fills its own limits and nothing else. A template's id is the hash of
the text that founded it: it stays when the template grows wider, and another process gives the same text the same id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, Protocol

from ml.drain import EVIDENCE
from ml.masking import lightly_masked, masked, masked_by_own, matching, may_match_inside, settled, without_escapes
from ml.service_templates import Bounds, ServiceTemplates, Template
from ml.structured import candidates, shaped
from ml.tokens import SHAPE, tokenized

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


class Tuned(Protocol):
    """A service's tuning as settings have it."""

    @property
    def masks(self) -> tuple[str, ...]: ...
    @property
    def evidence(self) -> float: ...


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
    _numbers: Iterator[int] = field(default_factory=count)
    _calls: int = 0

    def service(self, name: str) -> ServiceTemplates:
        """The templates of a service, none at first."""
        found = self.services.get(name)
        if found is None:
            evidence = self.tuning.get(name, Tuning()).evidence
            found = self.services[name] = ServiceTemplates(self.bounds, evidence, self._numbers.__next__)
        return found

    def mine(
        self,
        lines: pl.Series,
        service: str | pl.Series = "",
        *,
        minutes: float = 1.0,
        learned: Counter[str] | None = None,
    ) -> Mined:
        """Templates for lines (strings), in order, of one service or of one for each line.

        ``minutes`` is how long a time they are of: how many texts may be learned is bounded per minute. Where a minute comes
        in several calls, ``learned`` says how many texts of each service were, and is added to. A null is an empty line.
        """
        import numpy as np

        self._calls += 1
        texts, code, cut = self._masked(lines, service)
        names, of_line = ([service], None) if isinstance(service, str) else _named(service)
        services = [self.service(name) for name in names]
        evicted = sum(one.evicted for one in services)
        of_pair, text_code, pair_of = _pairs(code, of_line, len(texts))
        keys = texts.hash().to_numpy()[text_code].tolist()
        caches = [one.cache for one in services]
        numbers = np.array([caches[s].get(key, -1) for s, key in zip(of_pair.tolist(), keys, strict=True)], np.int64)
        numbers = _living(numbers, of_pair, services)
        most = int(self.bounds.learned_per_minute * max(minutes, 1.0))
        before = Counter[str]() if learned is None else learned
        left = [most - before[name] for name in names]
        looked_at = self._learn(numbers, of_pair, texts, text_code, keys, services, left)
        before.update({name: n for name, n in zip(names, looked_at, strict=True) if n})
        if any(looked_at):
            # What was known may have been swallowed meanwhile.
            numbers = _living(numbers, of_pair, services)
        known, first, where = np.unique(numbers, return_index=True, return_inverse=True)
        overflow = int(len(known) > 0 and known[0] < 0)
        index = (where - overflow)[pair_of]
        owners = of_pair[first[overflow:]]
        self._touch(known[overflow:], owners, services)
        templates = [
            (names[s], services[s].templates[number])
            for s, number in zip(owners.tolist(), known[overflow:].tolist(), strict=True)
        ]
        counts = np.bincount(index + 1, minlength=len(templates) + 1)
        evicted = sum(one.evicted for one in services) - evicted
        return Mined(
            index, templates, counts[1:], Tally(len(index), len(keys), sum(looked_at), int(counts[0]), evicted, cut)
        )

    def _touch(
        self, numbers: np.ndarray[Any, Any], owners: np.ndarray[Any, Any], services: list[ServiceTemplates]
    ) -> None:
        """These templates, each with its service, have lines now."""
        import numpy as np

        by_owner = np.argsort(owners, kind="stable")
        for begin, end in pairwise([*np.flatnonzero(np.diff(owners[by_owner], prepend=-1)).tolist(), len(owners)]):
            services[owners[by_owner[begin]]].touch(numbers[by_owner[begin:end]].tolist(), self._calls)

    def _learn(
        self,
        numbers: np.ndarray[Any, Any],
        of_pair: np.ndarray[Any, Any],
        texts: pl.Series,
        text_code: np.ndarray[Any, Any],
        keys: list[int],
        services: list[ServiceTemplates],
        left: list[int],
    ) -> list[int]:
        """Fill in ``numbers`` where they are not known yet; answers how many texts of each service were looked at one by one.

        There may be so many ``left`` of each.
        """
        import numpy as np

        looked_at = [0] * len(services)
        unseen = np.flatnonzero(numbers < 0)
        if not len(unseen):
            return looked_at
        # What has lines here is not forgotten for what is new beside it.
        known = numbers >= 0
        self._touch(numbers[known], of_pair[known], services)
        wanted, row = np.unique(text_code[unseen], return_inverse=True)
        tokens = tokenized(texts.gather(wanted), self.bounds.tokens)
        by_service = np.argsort(of_pair[unseen], kind="stable")
        owners = of_pair[unseen][by_service]
        for begin, end in pairwise([*np.flatnonzero(np.diff(owners, prepend=-1)).tolist(), len(owners)]):
            at = by_service[begin:end]
            pairs = unseen[at]
            owner = int(owners[begin])
            services[owner].touch((), self._calls)
            numbers[pairs], looked_at[owner] = services[owner].learn(
                tokens, row[at], [keys[pair] for pair in pairs.tolist()], left[owner]
            )
        return looked_at

    def _masked(self, lines: pl.Series, service: str | pl.Series) -> tuple[pl.Series, np.ndarray[Any, Any], int]:
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
            return pl.Series([], dtype=pl.String), code, 0
        # Numbered by where their first lines are, whichever part they came by.
        texts = pl.concat(parts)
        order = np.argsort(_first_rows(code, len(texts)))
        texts, same = _distinct(texts.gather(order))
        place = np.empty(len(order), np.int64)
        place[order] = same
        return texts, place[code], cut

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
    if not masks:
        return sentences + shapes, code
    return _with_own_masks(lines, masks, sentences, shapes, code)


def _with_own_masks(
    lines: pl.Series, masks: tuple[str, ...], sentences: pl.Series, shapes: pl.Series, code: np.ndarray[Any, Any]
) -> tuple[pl.Series, np.ndarray[Any, Any]]:
    """Texts of structured lines and which each line has, where masks may match digits: they see sentences as they were written.

    ``sentences`` and ``shapes`` are of the lines' texts after digits were masked, ``code`` says which each line has.
    """
    import numpy as np
    import polars as pl

    rows = np.flatnonzero(may_match_inside(lines, masks).to_numpy())
    written = [shaped(line) for line in lines.gather(rows).to_list()]
    messages = pl.Series([one.message for one in written], dtype=pl.String)
    alike = pl.Series([bool(one.shape) for one in written], dtype=pl.Boolean) == (shapes.gather(code[rows]) != "")
    here = np.flatnonzero((matching(messages, masks) & alike).to_numpy())
    own, of_row = _distinct(settled(masked_by_own(messages.gather(here), masks)) + shapes.gather(code[rows[here]]))
    code = code.copy()
    code[rows[here]] = len(sentences) + of_row
    used, code = np.unique(code, return_inverse=True)
    return pl.concat([sentences + shapes, own]).gather(used), code


def _distinct(texts: pl.Series) -> tuple[pl.Series, np.ndarray[Any, Any]]:
    """Texts by first appearance, and which of them each row has. Equal 64-bit hashes count as equal texts."""
    code, codes = _coded(texts.hash().to_numpy())
    return texts.gather(_first_rows(code, codes)), code


def _coded(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int]:
    """Each value's number by first appearance, and how many there are. By hashing: a sort takes ten times as long."""
    import numpy as np
    import pyarrow as pa

    encoded: Any = pa.array(values).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)


def _first_rows(code: np.ndarray[Any, Any], codes: int) -> np.ndarray[Any, Any]:
    """The first row of each code."""
    import numpy as np

    first = np.zeros(codes, np.int64)
    # Of several values for one place the last that is written stays.
    first[code[::-1]] = np.arange(len(code) - 1, -1, -1)
    return first


def _named(service: pl.Series) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Services by first appearance, and which of them each line is of."""
    import polars as pl

    names, code = _distinct(service.cast(pl.String).fill_null(""))
    return names.to_list(), code


def _pairs(
    code: np.ndarray[Any, Any], of_line: np.ndarray[Any, Any] | None, texts: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Distinct (service, text) by first appearance: service and text of each, and which of them each line has."""
    import numpy as np

    if of_line is None:
        return np.zeros(texts, np.int64), np.arange(texts), code
    pair_of, pairs = _coded(of_line * max(texts, 1) + code)
    first = _first_rows(pair_of, pairs)
    return of_line[first], code[first], pair_of


def _living(
    numbers: np.ndarray[Any, Any], of_pair: np.ndarray[Any, Any], services: list[ServiceTemplates]
) -> np.ndarray[Any, Any]:
    """Numbers as they are now: templates are swallowed and forgotten."""
    import numpy as np

    known, first, where = np.unique(numbers, return_index=True, return_inverse=True)
    now = [
        services[s].living(number) if number >= 0 else -1
        for s, number in zip(of_pair[first].tolist(), known.tolist(), strict=True)
    ]
    return np.array(now, np.int64)[where]


def tuned_miner(services: Mapping[str, Tuned]) -> TemplateMiner:
    """An empty miner with each service's tuning."""
    return TemplateMiner(tuning={name: Tuning(one.masks, one.evidence) for name, one in services.items()})
