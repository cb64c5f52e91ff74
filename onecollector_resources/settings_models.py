"""The settings of templates, models and the scorer: what is learned, how much is told, and to whom."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from onecollector_resources.settings_loki import S3Settings
from onecollector_resources.settings_section import Section
from onecollector_resources.time_zones import check_zone


class ServiceTuning(Section):
    masks: tuple[str, ...] = Field(
        default=(), description="Regular expressions (RE2) of what is a value in this service's lines; they come first."
    )
    evidence: float = Field(
        default=35.0,
        gt=0,
        description="How many texts it takes until they are one template, as a factor: less joins sooner, more keeps apart.",
    )
    alert_budget: float | None = Field(
        default=None, gt=0, le=100, description="Findings a day of this service; empty: `models.alert_budget`."
    )

    @field_validator("masks")
    @classmethod
    def _compile(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for mask in value:
            try:
                if re.compile(mask).match(""):
                    raise ValueError(f"{mask!r} matches nothing at all, and so everywhere")
            except re.error as error:
                raise ValueError(f"{mask!r} is not a regular expression: {error}") from error
        return value


class ModelSettings(Section):
    enabled: bool = Field(
        default=False, description="Whether `up` runs the code location ml, which counts days and trains models."
    )
    url: str | None = Field(
        default=None,
        description="Where templates and models are kept: `file:///folder` or `s3://bucket/prefix`; empty: `models` under the state folder.",
    )
    s3: S3Settings | None = Field(
        default=None, description="How the bucket of `url` is reached; empty: as `export.s3`, else as `loki.s3`."
    )
    start_date: str = Field(default="2026-01-01", description="First day of the asset log_templates' partitions, UTC.")
    alert_budget: float = Field(default=0.5, gt=0, le=100, description="Findings per service and day at most.")
    train_days: int = Field(default=14, ge=1, le=60, description="Days that a model is learned from.")
    learning_days: float = Field(
        default=7, ge=2, le=30, description="With fewer days a service is learning: only new errors are findings."
    )
    train_workers: int = Field(default=2, ge=1, le=64, description="Processes that a model is fitted in.")
    examined_services: int = Field(
        default=20, ge=0, le=200, description="Services whose last 48 hours are examined with faults put into them."
    )
    shadow_hours: float = Field(
        default=24,
        ge=0,
        le=47,
        description="Hours that a candidate scores live lines beside the model that serves, told to nobody, before it serves; 0: it serves at once.",
    )
    time_zone: str = Field(
        default="UTC",
        description="Whose clocks the hours and weekends go by that a model learns, such as `Europe/Berlin`: people's, where they are set twice a year.",
    )
    keep: int = Field(default=14, ge=2, description="Models kept beside those that serve.")
    webhook_url: str | None = Field(
        default=None, description="Where findings are posted as JSON: `https://host/path`; empty: nowhere."
    )
    webhook_secret_env: str | None = Field(
        default=None,
        description="Variable that holds the secret with which posted findings are signed; empty: unsigned.",
    )
    findings_per_hour: int = Field(
        default=12, ge=1, description="Findings of a tenant posted in an hour; the others are counted in one message."
    )
    grace_s: float = Field(
        default=20, ge=0, le=300, description="Seconds after its end that a minute is read: late lines are in by then."
    )
    services: dict[str, ServiceTuning] = Field(
        default_factory=dict,
        description="Services whose lines need masks or a threshold of their own, or that may have more or fewer findings, by name.",
    )

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return check_zone(value)

    @field_validator("webhook_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/\s]+", value):
            raise ValueError("expected http:// or https:// and a host in front")
        return value
