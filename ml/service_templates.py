"""One service's templates within their bounds: what was seen, what is known, what is forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ml.drain import NOBODY, Drain, Rows
from ml.tokens import WILDCARD, kind_of, tokenized

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

SHAPE = "\x02"
"""Between a sentence and its keys; no masked text holds a control character."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of each service; what goes beyond is counted and never an error."""

    line_chars: int = 2_000
    tokens: int = 128
    templates: int = 2_000
    """Beyond, those that were not seen for longest are forgotten."""
    cached: int = 20_000
    """Texts whose template is remembered."""
    learned_per_minute: int = 2_000
    merged: int = 20_000
    """Ids of templates that became part of others."""


@dataclass(frozen=True, slots=True)
class Template:
    """``id`` is for ever; ``founded_by`` is the text it was made of; ``tokens`` have None for a wildcard.

    ``shape`` are the keys of a structured line, ``{level,msg}``; empty for running text.
    """

    id: str
    founded_by: str
    shape: str
    tokens: tuple[str | None, ...]

    @property
    def text(self) -> str:
        """As people read it."""
        words = [WILDCARD if token is None else token for token in self.tokens]
        return " ".join([*words, *([self.shape] if self.shape else [])])


class ServiceTemplates:
    """Templates by number; numbers are of this process, ids are for ever."""

    def __init__(self, bounds: Bounds, evidence: float) -> None:
        self.bounds = bounds
        self.templates: dict[int, Template] = {}
        self.merged_into: dict[str, str] = {}
        """Of templates that others swallowed: from id to id, perhaps through several."""
        self.learned = self.evicted = 0
        """Of the last call of ``numbers``."""
        self._drain = Drain(self._create, evidence)
        self._cache: dict[int, int] = {}
        self._root: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self._call = self._next = 0
        self._shape = ""

    def current(self, template_id: str) -> str:
        """The id of what a template has become part of; itself where it has not."""
        while template_id in self.merged_into:
            template_id = self.merged_into[template_id]
        return template_id

    def restore(self, templates: Sequence[Template], merged_into: dict[str, str]) -> None:
        """Take over what was stored, oldest first."""
        import numpy as np
        import polars as pl

        for template in templates:
            number = self._number(template)
            words = ["" if token is None else token for token in template.tokens]
            hashes = pl.Series(words, dtype=pl.String).hash().to_numpy()
            kinds = np.array([kind_of(word) for word in words], np.uint8)
            self._drain.bucket(template.shape, len(words)).add(number, hashes, kinds, template.tokens)
        self.merged_into.update(merged_into)

    def numbers(
        self, hashes: np.ndarray[Any, Any], texts: Callable[[np.ndarray[Any, Any]], pl.Series], minutes: float
    ) -> np.ndarray[Any, Any]:
        """The template's number of each distinct text, NOBODY beyond the limits.

        ``hashes`` are of the texts (uint64); ``texts`` fetches those of some rows, which is done for the unseen alone.
        """
        import numpy as np

        self._call += 1
        self.learned = self.evicted = 0
        keys = hashes.tolist()
        found = np.fromiter((self._known(key) for key in keys), np.int64, len(keys))
        unseen = np.flatnonzero(found == NOBODY)
        if len(unseen):
            budget = [int(self.bounds.learned_per_minute * max(minutes, 1.0))]
            before = budget[0]
            found[unseen] = self._assign(texts(unseen), budget)
            self.learned = before - budget[0]
            # A text may have joined a template that was swallowed later on.
            numbers, where = np.unique(found, return_inverse=True)
            found = np.array([self._living(number) for number in numbers.tolist()], np.int64)[where]
            self._refresh()
            self._remember(keys, found, unseen)
        for number in np.unique(found).tolist():
            if number >= 0:
                self._used[number] = self._call
        return found

    def _known(self, key: int) -> int:
        number = self._cache.get(key, NOBODY)
        return number if number in self.templates else self._living(number)

    def _living(self, number: int) -> int:
        while number in self._root:
            number = self._root[number]
        return number if number in self.templates else NOBODY

    def _assign(self, texts: pl.Series, budget: list[int]) -> np.ndarray[Any, Any]:
        """Numbers of texts that are not in the cache."""
        import numpy as np
        import polars as pl

        split = pl.DataFrame({"t": texts}).select(
            sentence=pl.col("t").str.split(SHAPE).list.first(),
            shape=pl.col("t").str.split(SHAPE).list.get(1, null_on_oob=True).fill_null(""),
        )
        tokens = tokenized(split["sentence"], self.bounds.tokens)
        lengths = np.diff(tokens.ends, prepend=0)
        found = np.full(len(texts), NOBODY, np.int64)
        groups: list[tuple[str, int, np.ndarray[Any, Any]]] = []
        shapes = split["shape"].unique(maintain_order=True).to_list()
        for shape in shapes:
            of_shape = np.ones(len(texts), bool) if len(shapes) == 1 else (split["shape"] == shape).to_numpy()
            for length in np.unique(lengths[of_shape]).tolist():
                groups.append((shape, length, np.flatnonzero(of_shape & (lengths == length))))
        # A flood is mostly of one kind; the few of other kinds come first, so that it does not use up their share.
        for shape, length, rows in sorted(groups, key=lambda group: len(group[2])):
            begin = tokens.ends[rows] - length
            numbers = tokens.numbers[begin[:, None] + np.arange(length)]
            self._shape = shape
            found[rows] = self._drain.assign(
                self._drain.bucket(shape, length),
                Rows(
                    numbers,
                    words=lambda row, begin=begin, length=length: tokens.words[int(begin[row]) :][:length].to_list(),
                    text=lambda row, rows=rows: texts[int(rows[row])],
                ),
                budget,
                self._merge,
            )
        return found

    def _create(self, text: str) -> int | None:
        if len(self.templates) >= self.bounds.templates and not self._evict():
            return None
        identity = id_of(text)
        # The text of a template that others swallowed founds one again: it is itself.
        self.merged_into.pop(identity, None)
        return self._number(Template(identity, text, self._shape, ()))

    def _number(self, template: Template) -> int:
        number, self._next = self._next, self._next + 1
        self.templates[number] = template
        self._used[number] = self._call
        return number

    def _evict(self) -> bool:
        """Forget a twentieth of the templates, those not seen for longest; whether any could be."""
        idle = sorted((used, number) for number, used in self._used.items() if used < self._call)
        gone = {number for _, number in idle[: max(1, self.bounds.templates // 20)]}
        for number in gone:
            del self.templates[number], self._used[number]
        self._drain.forget(gone)
        self.evicted += len(gone)
        return bool(gone)

    def _merge(self, number: int, swallowed: Sequence[int]) -> None:
        for other in swallowed:
            self._root[other] = number
            template = self.templates.pop(other)
            self._used.pop(other, None)
            if template.id != self.templates[number].id:
                self.merged_into[template.id] = self.templates[number].id
        while len(self._root) > self.bounds.merged:
            del self._root[next(iter(self._root))]
        while len(self.merged_into) > self.bounds.merged:
            del self.merged_into[next(iter(self.merged_into))]

    def _remember(self, keys: list[int], found: np.ndarray[Any, Any], unseen: np.ndarray[Any, Any]) -> None:
        for row in unseen[-self.bounds.cached :].tolist():
            if found[row] >= 0:
                self._cache[keys[row]] = int(found[row])
        if len(self._cache) > self.bounds.cached:
            keep = list(self._cache.items())[-self.bounds.cached // 2 :]
            self._cache = dict(keep)

    def _refresh(self) -> None:
        """Templates with their tokens as they are now."""
        for _, number, tokens in self._drain.tokens():
            if self.templates[number].tokens != tokens:
                self.templates[number] = replace(self.templates[number], tokens=tokens)


def id_of(text: str) -> str:
    """A template's id: 16 hexadecimal digits of the text that founded it (BLAKE2b)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
