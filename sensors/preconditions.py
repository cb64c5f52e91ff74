"""What a schedule needs to be set before it does anything: without it a tick says what to set, and is no failure."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.settings import Settings, SettingsError


def settings_with(
    onecollector: OneCollectorResource, wanted: Callable[[Settings], object], unset: str
) -> Settings | dg.SkipReason:
    """The settings, once they can be read and what is ``wanted`` of them is not None; else why the tick is skipped."""
    try:
        settings = onecollector.settings()
    except SettingsError as error:
        return dg.SkipReason(str(error))
    return dg.SkipReason(unset) if wanted(settings) is None else settings
