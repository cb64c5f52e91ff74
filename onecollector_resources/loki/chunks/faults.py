"""What can be wrong with a chunk: its bytes are not those that Loki wrote, or they are of a kind that is not read here.

The two are kept apart because they are answered differently: damage is skipped and named, an unknown kind is no damage
and Loki's own API reads it.
"""

from __future__ import annotations


class ChunkError(RuntimeError):
    """A chunk, or what is kept about chunks, cannot be used."""


class ChunkDamaged(ChunkError):
    """An object's bytes are not what Loki wrote. ``key`` is the object's, ``reason`` what was expected and found."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason


class ChunkUnsupported(ChunkError):
    """A chunk of a version or an encoding that is not read here; Loki's query API reads it."""
