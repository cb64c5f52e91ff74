"""The store and the senders as the settings have them."""

from __future__ import annotations

from collections.abc import Sequence

from onecollector_resources.findings.loki_lines import LokiSender
from onecollector_resources.findings.records import Channel
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.findings.webhook import WebhookSender
from onecollector_resources.settings import Settings


def finding_store(settings: Settings) -> FindingStore:
    """The registry's findings. Messages are written for the channels that are set."""
    channels: tuple[Channel, ...] = ("webhook", "loki") if settings.models.webhook_url else ("loki",)
    return FindingStore(settings.registry_url, channels=channels)


def senders_of(settings: Settings, loki_url: str) -> Sequence[LokiSender | WebhookSender]:
    """Loki first: it is near, and a webhook may be slow."""
    models = settings.models
    loki = LokiSender(lambda tenant: settings.loki.access(loki_url, tenant))
    if models.webhook_url is None:
        return (loki,)
    return (loki, WebhookSender(models.webhook_url, models.webhook_secret_env))
