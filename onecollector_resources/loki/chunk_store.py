"""Where Loki keeps its chunks, by the settings: one answer for all who read them there."""

from __future__ import annotations

from onecollector_resources.settings import Settings
from onecollector_resources.storage.objects import ObjectStore, as_url, open_store


def chunk_store(settings: Settings) -> ObjectStore | None:
    """The store that Loki writes to; None for a Loki of others of which it is not known. Raises StoreError."""
    s3 = settings.loki.s3
    if settings.export.chunk_store is not None:
        return open_store(as_url(settings.export.chunk_store), settings.export.s3 or s3)
    if settings.loki.store == "s3" and s3 is not None:
        return open_store(f"s3://{s3.bucket}", s3)
    if settings.loki.url is not None:
        return None
    # A Loki of ours that has not written a chunk yet has no folder for them.
    return open_store(as_url(str(settings.layout.loki / "objects")), create=True)
