"""The errors that a command may meet, and how they are told."""

from __future__ import annotations

from onecollector.cli.invocation import as_pasted


def KNOWN() -> tuple[type[Exception], ...]:
    """Errors that have a message for people. Imported late: most commands never need them."""
    import httpx

    from onecollector.local.engine import EngineFailed, EngineUnreachable
    from onecollector.local.ports import PortTaken
    from onecollector.local.stack import UpFailed
    from onecollector.local.supervisor import SupervisorError
    from onecollector_resources.loki.config import LokiConfigError
    from onecollector_resources.loki.querier import LokiError
    from onecollector_resources.registry.store import RegistryError
    from onecollector_resources.runtime import RuntimeMissing
    from onecollector_resources.settings import SettingsError

    return (
        SettingsError,
        RuntimeMissing,
        RegistryError,
        LokiError,
        LokiConfigError,
        UpFailed,
        PortTaken,
        SupervisorError,
        EngineFailed,
        EngineUnreachable,
        httpx.HTTPError,
    )


def explain(error: Exception) -> str:
    """One message for stderr."""
    import httpx

    if isinstance(error, httpx.HTTPError):
        request = getattr(error, "_request", None)
        where = f" at {request.url}" if request is not None else ""
        return as_pasted(f"no answer{where}: {error}; is everything up? run: onecollector status")
    return as_pasted(str(error))
