"""What lines are mined with: the model's templates, and what was learned since, which is kept on disk.

The model's vocabularies are of its own templates, so those are never forgotten, whatever a flood brings, and have to stay
apart: where a new text would make two of them one, the service begins again with the model's, and loses what it had learned
by itself. A new model brings its own; what was learned since and seen of late is put beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ml.service_templates import Template
from ml.template_store import StoredTemplates, of_table, to_table
from ml.templates import TemplateMiner

if TYPE_CHECKING:
    import polars as pl


class LiveTemplates:
    """A miner of one model's templates. ``new_miner`` gives an empty one with the services' tuning."""

    def __init__(self, stored: StoredTemplates, new_miner: Callable[[], TemplateMiner]) -> None:
        self._stored, self._new_miner = stored, new_miner
        self.miner = new_miner()
        stored.fill(self.miner)
        self._known = {service: frozenset(one.id for one in known) for service, known in stored.services.items()}
        for service, ids in self._known.items():
            self.miner.service(service).lasting = ids
        self._merged = {service: len(one.merged_into) for service, one in self.miner.services.items()}
        self._saved = {service: list(one.templates.values()) for service, one in self.miner.services.items()}
        self._unsaved: dict[str, list[Template]] = {}
        self._learned: set[str] = set()

    def texts(self, service: str) -> dict[str, str]:
        """Templates of a service by id, as people read them."""
        return {one.id: one.text for one in self.miner.service(service).templates.values()}

    def ids_of(self, service: str, lines: Sequence[str]) -> list[str]:
        """The id of each line's template."""
        import polars as pl

        return self.miner.mine(pl.Series(lines, dtype=pl.String), service).ids()

    def apart_again(self) -> list[str]:
        """Services in which templates of the model had become one, and are apart again."""
        mended = []
        for service, known in list(self.miner.services.items()):
            if len(known.merged_into) <= self._merged.get(service, 0):
                continue
            mine = self._known.get(service, frozenset())
            was = self._stored.merged_into.get(service, {})
            if any(swallowed in mine for swallowed in known.merged_into.keys() - was.keys()):
                self._restore(service, self._stored.services.get(service, []))
                mended.append(service)
            self._merged[service] = len(self.miner.service(service).merged_into)
        return mended

    def changed(self) -> pl.DataFrame | None:
        """All services that know other templates than the model, as a table to keep; None where nothing changed of late.

        Once the table is kept, say so to ``kept``: until then the next one has the same services.
        """
        now = self._unsaved = {
            service: templates
            for service, one in self.miner.services.items()
            if (templates := list(one.templates.values())) != self._saved.get(service, [])
        }
        if not now:
            return None
        learned = self._learned | now.keys()
        state = StoredTemplates(
            {service: now.get(service, self._saved.get(service, [])) for service in learned},
            {service: dict(one.merged_into) for service in learned if (one := self.miner.service(service)).merged_into},
        )
        return to_table(state)

    def kept(self) -> None:
        """What ``changed`` answered is on disk."""
        self._saved.update(self._unsaved)
        self._learned |= self._unsaved.keys()
        self._unsaved = {}

    def take(self, table: pl.DataFrame) -> None:
        """Know what was kept, and what the model has. Services that it does not name stay as they are."""
        kept = of_table(table)
        for service, templates in kept.services.items():
            now = {one.id: one for one in templates}
            own = [now.pop(one.id, one) for one in self._stored.services.get(service, [])]
            self._restore(service, [*own, *now.values()], kept.merged_into.get(service, {}))
            self._saved[service] = list(self.miner.service(service).templates.values())
            self._merged[service] = len(self.miner.service(service).merged_into)
            self._learned.add(service)

    def adopt(self, before: LiveTemplates, seen: Iterable[tuple[str, str]]) -> None:
        """Put beside the model's what an earlier model's miner had learned, of the pairs (service, id) that were seen."""
        wanted: dict[str, set[str]] = {}
        for service, identity in seen:
            wanted.setdefault(service, set()).add(identity)
        for service, ids in wanted.items():
            known = self._known.get(service, frozenset()) | self._stored.merged_into.get(service, {}).keys()
            theirs = before.miner.service(service).templates.values()
            extra = [one for one in theirs if one.id in ids and one.id not in known]
            if extra:
                self._restore(service, [*self._stored.services.get(service, []), *extra])

    def _restore(self, service: str, templates: list[Template], merged: Mapping[str, str] | None = None) -> None:
        self.miner.services.pop(service, None)
        new = self.miner.service(service)
        new.lasting = self._known.get(service, frozenset())
        new.restore(templates, self._stored.merged_into.get(service, {}) if merged is None else merged)
