"""Names with a meaning in Loki's labels and structured metadata. By themselves, for readers that need no Arrow."""

INNER_LABELS = ("__time_shard__", "__stream_shard__", "__name__")
"""Labels that Loki adds for itself; they are no part of a line's identity."""

SEVERITY_KEYS = ("severity_text", "detected_level", "level")
"""Structured metadata that says how bad a line is, the first that is there; else the stream's label ``level``."""
