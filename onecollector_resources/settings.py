"""Settings: ``onecollector.yaml`` and ``ONECOLLECTOR_*`` variables, one model, every field described.

The YAML file is looked for at ``$ONECOLLECTOR_CONFIG``, else ``./onecollector.yaml``, else in the XDG config folder.
Variables win over the file; ``__`` separates levels (``ONECOLLECTOR_LOKI__URL``). The two largest sections stand in modules
of their own, ``settings_loki.py`` and ``settings_models.py``.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from platformdirs import user_config_path, user_state_path
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from onecollector_resources.layout import StateLayout
from onecollector_resources.settings_loki import LokiSettings, S3Settings
from onecollector_resources.settings_models import ModelSettings
from onecollector_resources.settings_section import Section, SettingsError

SAFE_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


class MultilineRule(Section):
    first_line: str = Field(description="Regular expression (RE2) that the first line of an entry matches.")
    max_lines: int = Field(default=1000, ge=2, le=10000, description="An entry is cut after this many lines.")
    flush_ms: int = Field(
        default=500, ge=50, le=60_000, description="An unfinished entry is sent after this silence, in ms."
    )

    @field_validator("first_line")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class TenantSettings(Section):
    queue_mib: int = Field(default=256, ge=16, description="Size of the tenant's queue on disk, in MiB.")


class FileSource(Section):
    glob: str = Field(description="Absolute glob of log files, ** allowed.")
    tenant: str = Field(default="default", description="A tenant of the allow list.")
    service: str | None = Field(default=None, description="Service of all these files.")
    service_from: str | None = Field(
        default=None,
        description="Regular expression over the path; its group 'service' is the service. Instead of `service`.",
    )
    profile: Literal["plain", "cri", "docker"] = Field(default="plain", description="How lines are framed.")
    multiline: str | None = Field(default=None, description="Name of a rule under `multiline`.")

    @model_validator(mode="after")
    def _one_service(self) -> FileSource:
        if (self.service is None) == (self.service_from is None):
            raise ValueError("give exactly one of `service` and `service_from`")
        if self.service_from is not None and "(?P<service>" not in self.service_from:
            raise ValueError("`service_from` needs a group (?P<service>...)")
        if not self.glob.startswith("/"):
            raise ValueError(f"`glob` must be an absolute path, found {self.glob!r}")
        return self


class DockerSettings(Section):
    enabled: bool = Field(default=True, description="Collect from a Docker engine.")
    host: str | None = Field(default=None, description="Engine address; empty: $DOCKER_HOST, else the default socket.")
    own_engine: Literal["auto", "never", "always"] = Field(
        default="auto",
        description="Whether `up` may start an engine of its own; auto: where none answers and we are root.",
    )


class AgentSettings(Section):
    host_name: str = Field(default_factory=socket.gethostname, description="Name of this host in registry and Loki.")
    port: int | None = Field(
        default=None, description="Loopback port of the agent's API; empty: chosen and remembered."
    )
    link_root: Path | None = Field(
        default=None,
        description="Folder of the link tree; empty: <DockerRootDir>/onecollector/links. Must be inside Docker's root.",
    )
    listing_interval_s: float = Field(default=5.0, ge=0.5, le=300, description="Seconds between full listings.")
    finished_max_age_s: float = Field(
        default=86_400.0, ge=0, description="Links of finished containers are kept this long."
    )
    links_max_bytes: int = Field(default=8 << 30, ge=1 << 20, description="Most bytes that finished links may hold.")
    free_space_floor_bytes: int = Field(
        default=1 << 30, ge=0, description="Finished links go, oldest first, below this free space."
    )
    backfill_horizon_s: float = Field(
        default=86_400.0,
        ge=0,
        description="Lines older than this at the first start of a state folder are left out, with a gap row; 0: none.",
    )
    confirm_within_s: float = Field(
        default=10.0, ge=1, le=300, description="A new config that is not confirmed in time is taken back."
    )


class CollectorSettings(Section):
    memory_limit_mib: int = Field(default=400, ge=100, description="Memory limit of the collector, in MiB.")
    min_free_mib: int = Field(
        default=64, ge=0, description="The collector waits while its disk has less room than this, in MiB."
    )
    queue_total_mib: int = Field(default=4096, ge=64, description="Host-wide limit over all tenants' queues, in MiB.")
    poll_interval_ms: int | None = Field(
        default=None, description="Poll interval of log files; empty: by number of live links."
    )
    health_port: int | None = Field(default=None, description="Loopback port of health_check; empty: chosen.")
    metrics_port: int | None = Field(
        default=None, description="Loopback port of the collector's metrics; empty: chosen."
    )


class DagsterSettings(Section):
    port: int | None = Field(default=None, description="Port of the web UI; empty: 3000 where free, else chosen.")
    postgres_url: str | None = Field(
        default=None, description="Dagster's storage; empty: sqlite under the state folder."
    )
    reconcile_every_s: int = Field(default=300, ge=30, description="Seconds between full reconciles.")


class RegistrySettings(Section):
    url: str | None = Field(
        default=None,
        description="SQLAlchemy URL (`postgresql://user:password@host/name`); empty: sqlite under the state folder.",
    )
    history_days: float = Field(default=30, gt=0, description="Days that history is kept.")


class ExportSettings(Section):
    out: str | None = Field(
        default=None,
        description="Where the asset log_exports writes Parquet: `file:///folder` or `s3://bucket/prefix`; empty: `exports` under the state folder.",
    )
    s3: S3Settings | None = Field(
        default=None, description="How the buckets of `out` and `chunk_store` are reached; empty: as `loki.s3`."
    )
    query: str = Field(default='{service_name=~".+"}', description="Which lines log_exports takes, of every tenant.")
    chunk_store: str | None = Field(
        default=None,
        description="Where a Loki of yours keeps its chunks, to read them there; empty: known for our own, else through the API.",
    )
    settle: str = Field(
        default="150m",
        description="In a Loki of yours lines are in the store after this long: its max_chunk_age and half an hour.",
    )
    start_date: str = Field(default="2026-01-01", description="First day of log_exports' partitions, UTC.")
    look_back_hours: int = Field(
        default=26, ge=0, le=744, description="Each hourly run looks for late lines in so many hours before its own."
    )


class ArchiveSettings(Section):
    url: str | None = Field(
        default=None,
        description="Where closed days are kept: `s3://bucket/prefix` or `file:///folder`; empty: no archive.",
    )
    s3: S3Settings | None = Field(default=None, description="How the bucket of `url` is reached; empty: as `loki.s3`.")
    closed_after_h: float = Field(
        default=4,
        ge=0,
        description="Hours after its end (UTC) that a day is archived; more than Loki's max_chunk_age (2 h by default).",
    )
    start_date: str = Field(default="2026-01-01", description="First day of the asset archive's partitions, UTC.")


class RetentionSettings(Section):
    policies_dir: Path | None = Field(
        default=None,
        description="Folder of retention policies, `<tenant>.yaml`; empty: `policies` beside the settings file, where there is one.",
    )


class RuleSettings(Section):
    enabled: bool = Field(default=True, description="Write default alert rules for every service.")
    error_lines_per_minute: float = Field(
        default=10, gt=0, description="Error burst: more error lines a minute than this."
    )
    silent_after: str = Field(default="15m", description="Gone silent: no line for this long.")


class Settings(BaseSettings):
    """All settings. See docs/settings.md, which is generated from this model."""

    model_config = SettingsConfigDict(
        env_prefix="ONECOLLECTOR_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    state_dir: Path = Field(
        default_factory=lambda: user_state_path("onecollector"), description="Folder for all state on this machine."
    )
    environment: str = Field(default="local", description="deployment.environment.name of every line.")
    usual_ports: bool = Field(
        default=True, description="Try 3000, 3100 and so on first; false: any free ports, for several on one machine."
    )
    tenants: dict[str, TenantSettings] = Field(
        default_factory=lambda: {"default": TenantSettings()}, description="Allow list of tenants."
    )
    multiline: dict[str, MultilineRule] = Field(default_factory=dict, description="Multiline rules by name.")
    files: tuple[FileSource, ...] = Field(default=(), description="Plain log files to collect.")
    docker: DockerSettings = Field(default_factory=DockerSettings, description="Docker engine.")
    agent: AgentSettings = Field(default_factory=AgentSettings, description="Agent.")
    collector: CollectorSettings = Field(default_factory=CollectorSettings, description="Collector.")
    loki: LokiSettings = Field(default_factory=LokiSettings, description="Loki.")
    registry: RegistrySettings = Field(default_factory=RegistrySettings, description="Registry.")
    dagster: DagsterSettings = Field(default_factory=DagsterSettings, description="Dagster.")
    export: ExportSettings = Field(default_factory=ExportSettings, description="Exports to Parquet.")
    models: ModelSettings = Field(default_factory=ModelSettings, description="Templates and models.")
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings, description="Archive of closed days.")
    retention: RetentionSettings = Field(default_factory=RetentionSettings, description="How long lines are kept.")
    rules: RuleSettings = Field(default_factory=RuleSettings, description="Default alert rules.")

    @property
    def layout(self) -> StateLayout:
        """Paths under ``state_dir``."""
        return StateLayout(self.state_dir)

    @property
    def registry_url(self) -> str:
        """SQLAlchemy URL of the registry."""
        return self.registry.url or f"sqlite:///{self.layout.registry_db}"

    @field_validator("tenants", mode="before")
    @classmethod
    def _tenant_list(cls, value: Any) -> Any:
        # A plain list of names is the common case.
        return {name: {} for name in value} if isinstance(value, list) else value

    @field_validator("tenants", "multiline")
    @classmethod
    def _safe_keys(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not SAFE_NAME.fullmatch(name) or name.startswith("."):
                raise ValueError(f"{name!r}: expected 1 to 100 of A-Z a-z 0-9 . _ - and no dot in front")
        return value

    @model_validator(mode="after")
    def _names_exist(self) -> Settings:
        if "default" not in self.tenants:
            raise ValueError("tenants: one must be called `default`")
        for index, source in enumerate(self.files):
            if source.tenant not in self.tenants:
                raise ValueError(f"files[{index}].tenant: {source.tenant!r} is not one of {sorted(self.tenants)}")
            if source.multiline is not None and source.multiline not in self.multiline:
                raise ValueError(
                    f"files[{index}].multiline: {source.multiline!r} is not one of {sorted(self.multiline)}"
                )
        if self.loki.store == "s3" and self.loki.s3 is None:
            raise ValueError("loki.s3: needed with loki.store: s3")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Variables win over what load_settings() read from the file and passes as init arguments.
        return (env_settings, init_settings)


def config_file(environ: dict[str, str] | None = None) -> Path | None:
    """The settings file in force, or None: $ONECOLLECTOR_CONFIG, ./onecollector.yaml, XDG config folder."""
    environ = dict(os.environ) if environ is None else environ
    named = environ.get("ONECOLLECTOR_CONFIG")
    if named:
        return Path(named)
    for candidate in (Path("onecollector.yaml"), user_config_path("onecollector") / "onecollector.yaml"):
        if candidate.is_file():
            return candidate.resolve()
    return None


def load_settings(path: Annotated[Path | None, "settings file; None looks for one"] = None) -> Settings:
    """Read the settings.

    Raises SettingsError with file, key, what was expected and what was found.
    """
    path = path or config_file()
    data: Any = {}
    if path is not None:
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise SettingsError(f"{path}: not YAML: {error}") from error
        if not isinstance(data, dict):
            raise SettingsError(f"{path}: expected keys and values, found {type(data).__name__}")
    try:
        return Settings(**data)
    except ValidationError as error:
        where = path or "ONECOLLECTOR_* variables"
        lines = [f"{where}: {'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise SettingsError("\n".join(lines)) from error
