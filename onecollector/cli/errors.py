"""The errors that a command may meet, and how they are told."""

from __future__ import annotations

from onecollector.cli.invocation import as_pasted
from onecollector.cli.visible import visible


def KNOWN() -> tuple[type[Exception], ...]:
    """Errors that have a message for people. Imported late: most commands never need them."""
    import httpx

    from ml.model_channels import MovedMeanwhile, NotPassed
    from ml.model_manifest import ModelRefused
    from ml.shard_arrays import BadShard
    from ml.tally_store import TallyRefused
    from ml.template_store import TemplateStoreError
    from onecollector.local.engine import EngineFailed, EngineUnreachable
    from onecollector.local.ports import PortTaken
    from onecollector.local.stack import UpFailed
    from onecollector.local.supervisor import SupervisorError
    from onecollector_assets.tallying import NothingToLearn
    from onecollector_resources.archive.copy import DayOpen
    from onecollector_resources.archive.manifest import ManifestError
    from onecollector_resources.archive.plan import SchemaUnsupported
    from onecollector_resources.archive.restore import RestoreFailed
    from onecollector_resources.archive.scratch import ScratchMissing
    from onecollector_resources.archive.shelf import NotArchived
    from onecollector_resources.exports.dataset import DatasetError
    from onecollector_resources.exports.plan import PlanError
    from onecollector_resources.loki.config import LokiConfigError
    from onecollector_resources.loki.effort import ReadFailed
    from onecollector_resources.loki.lifecycle import LokiLifecycleError
    from onecollector_resources.loki.logql import LogqlError
    from onecollector_resources.loki.querier import LokiError
    from onecollector_resources.registry.store import RegistryError
    from onecollector_resources.retention.policies import RetentionError
    from onecollector_resources.runtime import RuntimeMissing
    from onecollector_resources.settings import SettingsError
    from onecollector_resources.storage.objects import StoreError

    return (
        SettingsError,
        RuntimeMissing,
        RegistryError,
        LokiError,
        LokiConfigError,
        ReadFailed,
        LogqlError,
        DatasetError,
        PlanError,
        StoreError,
        RetentionError,
        UpFailed,
        PortTaken,
        SupervisorError,
        EngineFailed,
        EngineUnreachable,
        DayOpen,
        ManifestError,
        SchemaUnsupported,
        NotArchived,
        RestoreFailed,
        ScratchMissing,
        LokiLifecycleError,
        TemplateStoreError,
        TallyRefused,
        ModelRefused,
        BadShard,
        MovedMeanwhile,
        NotPassed,
        NothingToLearn,
        httpx.HTTPError,
    )


def explain(error: Exception) -> str:
    """One message for stderr."""
    import httpx

    if isinstance(error, httpx.HTTPError):
        request = getattr(error, "_request", None)
        where = f" at {request.url}" if request is not None else ""
        return visible(as_pasted(f"no answer{where}: {error}; is everything up? run: onecollector status"))
    return visible(as_pasted(str(error)))
