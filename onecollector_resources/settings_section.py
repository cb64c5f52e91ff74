"""What every section of the settings is, and the error that tells what is wrong in one."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SettingsError(ValueError):
    """The settings cannot be used; the message names the key, what was expected and what was found."""


class Section(BaseModel):
    """Keys that are not known are refused; what was read does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
