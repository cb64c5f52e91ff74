"""The stores that settings name, opened."""

from __future__ import annotations

from onecollector_resources.settings import Settings
from onecollector_resources.storage.objects import ObjectStore, as_url, open_store


def model_store(settings: Settings) -> ObjectStore:
    """Where templates, tallies and models are kept. Raises StoreError."""
    url = as_url(settings.models.url or str(settings.layout.models))
    return open_store(url, settings.models.s3 or settings.export.s3 or settings.loki.s3, create=True)
