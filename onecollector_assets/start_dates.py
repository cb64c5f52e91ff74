"""Where partitions begin: as the settings say, and somewhere where they cannot be read, so that a location always loads."""

from __future__ import annotations

from typing import Literal

from onecollector_resources.settings import SettingsError, load_settings


def start_date(section: Literal["archive", "export", "models"]) -> str:
    """``start_date`` of a section. Settings that are wrong are said when something runs, not while definitions load."""
    try:
        return getattr(load_settings(), section).start_date
    except SettingsError:
        return "2026-01-01"
