"""The settings of Loki: one of yours and the way in, or our own and where it keeps its chunks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from onecollector_resources.settings_section import Section, SettingsError

if TYPE_CHECKING:
    from onecollector_resources.loki.access import LokiAccess


class S3Settings(Section):
    endpoint: str = Field(description="host:port or URL.")
    bucket: str = Field(default="loki-chunks", description="Bucket for chunks; it must exist.")
    rules_bucket: str = Field(default="loki-rules", description="Bucket for rules; it must exist.")
    region: str = Field(default="us-east-1", description="Region.")
    access_key_env: str = Field(default="OC_S3_KEY", description="Variable that holds the access key.")
    secret_key_env: str = Field(default="OC_S3_SECRET", description="Variable that holds the secret key.")
    insecure: bool = Field(default=False, description="Plain HTTP.")


class LokiSettings(Section):
    url: str | None = Field(default=None, description="A Loki of yours; empty: `up` runs one.")
    port: int | None = Field(default=None, description="HTTP port of our own Loki; empty: chosen.")
    store: Literal["filesystem", "s3"] = Field(default="filesystem", description="Where our own Loki keeps chunks.")
    s3: S3Settings | None = Field(default=None, description="S3 store, with store: s3.")
    retention: str = Field(default="744h", description="Retention of our own Loki, as a duration.")
    bearer_env: str | None = Field(default=None, description="Variable that holds a bearer token for Loki.")
    username: str | None = Field(default=None, description="User for basic authentication at Loki.")
    password_env: str | None = Field(default=None, description="Variable that holds the password of `username`.")
    authority: Path | None = Field(
        default=None, description="File of certificates (PEM) to trust at Loki; empty: the system's."
    )
    certificate: Path | None = Field(default=None, description="Our certificate (PEM) for a Loki that asks for one.")
    key: Path | None = Field(default=None, description="Private key (PEM) of `certificate`.")
    grafana_url: str | None = Field(default=None, description="Grafana whose Explore the links in Dagster open.")
    grafana_datasource: str = Field(default="loki", description="Uid of Grafana's data source for Loki.")
    alertmanager_url: str | None = Field(default=None, description="Alertmanager that the ruler notifies.")
    overrides: dict[str, Any] = Field(default_factory=dict, description="Merged into our own Loki's config, last.")
    tenant_overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Limits of single tenants of our own Loki, taken in without a restart."
    )

    @property
    def bearer(self) -> str | None:
        """The bearer token, read from the variable that ``bearer_env`` names."""
        return os.environ.get(self.bearer_env) if self.bearer_env else None

    @model_validator(mode="after")
    def _one_way_in(self) -> LokiSettings:
        if self.url and "@" in self.url.partition("://")[2].partition("/")[0]:
            raise ValueError("`url` holds a login, and addresses are shown: give `username` and `password_env`")
        if self.bearer_env and self.username:
            raise ValueError("give at most one of `bearer_env` and `username`")
        if (self.username is None) != (self.password_env is None):
            raise ValueError("`username` and `password_env` go together")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("`certificate` and `key` go together")
        return self

    def access(self, url: str, tenant: str, *, timeout_s: float = 30) -> LokiAccess:
        """Access to the Loki at ``url`` as ``tenant``, with what these settings say of authentication and trust.

        Raises SettingsError where a variable is not set or a file is not there.
        """
        from onecollector_resources.loki.access import LokiAccess

        for name in ("bearer_env", "password_env"):
            variable = getattr(self, name)
            if variable and not os.environ.get(variable):
                raise SettingsError(
                    f"loki.{name}: expected a value in the variable {variable}; it is not set: export it"
                )
        for name in ("authority", "certificate", "key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise SettingsError(f"loki.{name}: expected a file, found none at {path}")
        return LokiAccess(
            url,
            tenant,
            bearer=self.bearer,
            username=self.username,
            password=os.environ.get(self.password_env) if self.password_env else None,
            authority=self.authority,
            certificate=self.certificate,
            key=self.key,
            timeout_s=timeout_s,
        )
