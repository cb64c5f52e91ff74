"""Where things lie on one machine: every path under the state folder, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Paths under one state folder. Nothing is created here; whoever writes a folder makes it (0700)."""

    root: Path

    @property
    def registry_db(self) -> Path:
        return self.root / "registry.db"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def supervisor(self) -> Path:
        return self.root / "supervisor"

    @property
    def secrets(self) -> Path:
        """What a Loki of the user's own asks for, as lines of a shell (0600); not there where it asks for nothing."""
        return self.root / "secrets.sh"

    @property
    def agent(self) -> Path:
        """The agent's own: ``token`` (0600) and ``journal.db``."""
        return self.root / "agent"

    @property
    def agent_token(self) -> Path:
        return self.agent / "token"

    @property
    def agent_journal(self) -> Path:
        return self.agent / "journal.db"

    @property
    def collector(self) -> Path:
        """``active.yaml``, ``last_good.yaml``, ``pid``, ``offsets/`` and ``queue/``: also $OC_STATE of the collector."""
        return self.root / "collector"

    @property
    def active_config(self) -> Path:
        return self.collector / "active.yaml"

    @property
    def last_good_config(self) -> Path:
        return self.collector / "last_good.yaml"

    @property
    def collector_pid(self) -> Path:
        return self.collector / "pid"

    @property
    def file_links(self) -> Path:
        """Second link tree, for plain files, spools and probes: the agent's own folder ($OC_FILE_LINKS)."""
        return self.root / "links"

    @property
    def loki(self) -> Path:
        return self.root / "loki"

    @property
    def exports(self) -> Path:
        """Exported Parquet, where no other place is set."""
        return self.root / "exports"

    @property
    def models(self) -> Path:
        """Templates and models, where no other place is set."""
        return self.root / "models"

    @property
    def scorer(self) -> Path:
        """What the scorer keeps from minute to minute."""
        return self.root / "scorer"

    @property
    def scorer_status(self) -> Path:
        return self.scorer / "status.json"

    @property
    def catalogues(self) -> Path:
        """What is known of chunk stores: which objects there are, and whose lines they hold."""
        return self.root / "catalogues"

    @property
    def restores(self) -> Path:
        """Scratch Lokis with days out of the archive, a folder for each."""
        return self.root / "restores"

    @property
    def dagster_home(self) -> Path:
        return self.root / "dagster"

    @property
    def docker(self) -> Path:
        """An engine of our own, where no other answers: ``data/``, ``exec/``, ``docker.sock``, ``pid``."""
        return self.root / "docker"
