"""What a reading of chunks came upon, counted by all of its threads: nothing that was left out is left unsaid."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Damage:
    """An object of which lines are missing: its key, and what was expected and found there."""

    key: str
    reason: str


@dataclass(slots=True)
class ReadReport:
    """Figures of a reading, final when it is exhausted.

    ``entries`` counts lines before the same line from several chunks is made one; ``objects`` counts reads of objects,
    ``object_bytes`` their bytes, ``inflated_bytes`` those of their blocks; ``chunks`` are different ones. ``vanished``
    are keys of chunks that were listed and not there, without others in their place; ``replaced`` those with.
    """

    entries: int = 0
    chunks: int = 0
    objects: int = 0
    object_bytes: int = 0
    inflated_bytes: int = 0
    damaged: list[Damage] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, **figures: int) -> None:
        """Add to figures by name."""
        with self._lock:
            for name, more in figures.items():
                setattr(self, name, getattr(self, name) + more)

    def damage(self, key: str, reason: str) -> None:
        """Name damage, once however often it is met."""
        with self._lock:
            found = Damage(key, reason)
            if found not in self.damaged:
                self.damaged.append(found)

    def missing(self, key: str, *, replaced: bool) -> None:
        """Name an object that is not there any more, once."""
        with self._lock:
            keys = self.replaced if replaced else self.vanished
            if key not in keys:
                keys.append(key)

    def problems(self) -> tuple[str, ...]:
        """Why lines of the range may be missing, one sentence each; none: all of them were read."""
        with self._lock:
            return (
                *(f"{found.key} is damaged: {found.reason}" for found in sorted(self.damaged, key=lambda d: d.key)),
                *(f"{key} was listed and is gone; read it again" for key in sorted(self.vanished)),
            )
