"""One service's templates within their bounds: what was seen, what is known, what is forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ml.drain import NOBODY, Drain, Rows
from ml.tokens import WILDCARD, Tokens, kind_of, numbers_of

if TYPE_CHECKING:
    import numpy as np


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

    def __init__(self, bounds: Bounds, evidence: float, next_number: Callable[[], int]) -> None:
        self.bounds = bounds
        self.templates: dict[int, Template] = {}
        self.merged_into: dict[str, str] = {}
        """Of templates that others swallowed: from id to id, perhaps through several."""
        self.evicted = 0
        """Templates forgotten since the beginning."""
        self.cache: dict[int, int] = {}
        """From a text's hash to its template's number, which may be swallowed or forgotten: ask ``living``."""
        self.lasting: Set[str] = frozenset()
        """Ids of templates that are never forgotten. Beside them there is room for half of ``bounds.templates`` at least."""
        self._drain = Drain(self._create, evidence)
        self._next_number = next_number
        self._root: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self._call = 0
        self._shape = ""
        self._full = False
        """Nothing can be forgotten any more in the call of ``learn`` that is at work."""

    def current(self, template_id: str) -> str:
        """The id of what a template has become part of; itself where it has not."""
        return followed(template_id, self.merged_into)

    def restore(
        self, templates: Sequence[Template], merged_into: Mapping[str, str], last_seen: Sequence[int] = ()
    ) -> None:
        """Take over what was stored, oldest first; those with the least ``last_seen`` are forgotten first."""
        import numpy as np
        import polars as pl

        order = sorted(range(len(templates)), key=lambda at: last_seen[at] if last_seen else at)
        rank = {at: place - len(order) for place, at in enumerate(order)}
        for at, template in enumerate(templates):
            number = self._number(template)
            self._used[number] = rank[at]
            words = ["" if token is None else token for token in template.tokens]
            kinds = np.array([kind_of(word) for word in words], np.uint8)
            bucket = self._drain.bucket(template.shape, len(words))
            bucket.add(number, numbers_of(pl.Series(words, dtype=pl.String)), kinds, template.tokens)
        alive = {template.id for template in templates}
        self.merged_into.update((id_, into) for id_, into in merged_into.items() if id_ not in alive)

    def living(self, number: int) -> int:
        """The number of the template that this one is, or has become part of; NOBODY where it was forgotten."""
        while number in self._root:
            number = self._root[number]
        return number if number in self.templates else NOBODY

    def touch(self, numbers: Sequence[int], call: int) -> None:
        """These were seen in call number ``call`` of the miner."""
        self._call = call
        self._used.update(dict.fromkeys(numbers, call))

    def learn(
        self, tokens: Tokens, rows: np.ndarray[Any, Any], keys: Sequence[int], most: int
    ) -> tuple[np.ndarray[Any, Any], int]:
        """Numbers of the templates of texts (``rows`` of ``tokens``, in order), NOBODY beyond the limits.

        ``keys`` are the texts' hashes. At most ``most`` texts are looked at one by one; also answers how many were.
        """
        import numpy as np

        budget = [most]
        self._full = False
        found = np.full(len(rows), NOBODY, np.int64)
        kind = tokens.shape[rows] * (self.bounds.tokens + 1) + tokens.lengths[rows]
        order = np.argsort(kind, kind="stable")
        begins = np.flatnonzero(np.diff(kind[order], prepend=-1))
        sizes = np.diff(begins, append=len(order))
        groups: list[tuple[np.ndarray[Any, Any], str, int]] = []
        # A flood is mostly of one kind; the few of other kinds come first, so that it does not use up their share.
        for group in np.argsort(sizes, kind="stable").tolist():
            at = order[begins[group] : begins[group] + sizes[group]]
            shape, length = divmod(int(kind[at[0]]), self.bounds.tokens + 1)
            groups.append((at, tokens.shapes[shape], length))
        # What has lines here is not forgotten for what comes with it.
        for at, shape, length in groups if self.templates else ():
            if self._drain.has(shape, length):
                found[at] = self._drain.bucket(shape, length).match(tokens.matrix(rows[at], length))
        self.touch(np.unique(found[found >= 0]).tolist(), self._call)
        for at, shape, length in groups:
            if not self._drain.has(shape, length) and not (budget[0] > 0 and self._has_room()):
                # There may be as many kinds as lines.
                continue
            some, self._shape = rows[at], shape
            texts = Rows(
                tokens.matrix(some, length),
                words=lambda row, some=some: tokens.words_of(some[row]),
                text=lambda row, some=some: tokens.texts[int(some[row])],
            )
            found[at] = self._drain.assign((shape, length), texts, found[at], budget, self._merge)
        # A text may have joined a template that was swallowed later on.
        numbers, where = np.unique(found, return_inverse=True)
        found = np.array([self.living(number) for number in numbers.tolist()], np.int64)[where]
        self._refresh()
        self._remember(keys, found)
        return found, most - budget[0]

    def _create(self, text: str) -> int | None:
        if not self._has_room():
            return None
        identity = id_of(text)
        # The text of a template that others swallowed founds one again: it is itself.
        self.merged_into.pop(identity, None)
        return self._number(Template(identity, text, self._shape, ()))

    def _number(self, template: Template) -> int:
        number = self._next_number()
        self.templates[number] = template
        self._used[number] = self._call
        return number

    def _has_room(self) -> bool:
        """Whether there may be one more template, in the place of others where it must be."""
        if len(self.templates) < max(self.bounds.templates, len(self.lasting) + self.bounds.templates // 2):
            return True
        # What was seen in this call stays: where nothing could be forgotten, asking again is in vain.
        self._full = self._full or not self._evict()
        return not self._full

    def _evict(self) -> bool:
        """Forget a twentieth of the templates, those not seen for longest; whether any could be."""
        idle = sorted(
            (used, number)
            for number, used in self._used.items()
            if used != self._call and self.templates[number].id not in self.lasting
        )
        if not idle:
            return False
        gone = {number for _, number in idle[: max(1, self.bounds.templates // 20)]}
        for number in gone:
            del self.templates[number], self._used[number]
        self._drain.forget(gone)
        self.evicted += len(gone)
        return True

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

    def _remember(self, keys: Sequence[int], found: np.ndarray[Any, Any]) -> None:
        most = self.bounds.cached
        self.cache.update(pair for pair in zip(keys[-most:], found[-most:].tolist(), strict=True) if pair[1] >= 0)
        if len(self.cache) > most:
            self.cache = dict(list(self.cache.items())[-(most // 2) :])

    def _refresh(self) -> None:
        """Templates with their tokens as they are now."""
        for _, number, tokens in self._drain.tokens():
            if self.templates[number].tokens != tokens:
                self.templates[number] = replace(self.templates[number], tokens=tokens)


def followed(template_id: str, merged_into: Mapping[str, str]) -> str:
    """What a template became part of, and that one, and so on; a chain that leads back into itself ends where it does."""
    passed = set[str]()
    while template_id in merged_into and template_id not in passed:
        passed.add(template_id)
        template_id = merged_into[template_id]
    return template_id


def id_of(text: str) -> str:
    """A template's id: 16 hexadecimal digits of the text that founded it (BLAKE2b)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
