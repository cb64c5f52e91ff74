"""A Docker root in a folder for tests of links: containers write files there, a keeper keeps links."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from onecollector_resources.discovery.links_model import LinkRow
from onecollector_resources.discovery.log_links import LinkKeeper
from onecollector_resources.records import Gap, ObservedSource
from onecollector_resources.settings import AgentSettings

ID = "ab" * 32
LIVE = frozenset({("default", "docker"), ("default", "plain")})


class MemoryJournal:
    def __init__(self) -> None:
        self.links: dict[tuple[str, int], LinkRow] = {}
        self.values: dict[str, str] = {}

    def load_links(self) -> list[LinkRow]:
        return list(self.links.values())

    def save_link(self, row: LinkRow) -> None:
        self.links[(row.source_id, row.segment)] = row

    def forget_link(self, source_id: str, segment: int) -> None:
        self.links.pop((source_id, segment), None)

    def load_value(self, key: str) -> str | None:
        return self.values.get(key)

    def save_value(self, key: str, value: str) -> None:
        self.values[key] = value

    def forget_value(self, key: str) -> None:
        self.values.pop(key, None)


class Host:
    """A Docker root in a folder: containers write files there, a keeper keeps links."""

    def __init__(self, root: Path) -> None:
        self.root, self.journal, self.gaps, self.positions = (
            root,
            MemoryJournal(),
            list[Gap](),
            dict[tuple[int, int], int](),
        )
        (root / "containers").mkdir()
        self.settings = AgentSettings(free_space_floor_bytes=0)
        self.keeper = self.new_keeper()

    def new_keeper(self, **changes: object) -> LinkKeeper:
        keeper = LinkKeeper(
            host="h",
            docker_links=self.root / "links",
            file_links=self.root / "files",
            journal=self.journal,
            read_positions=lambda: self.positions,
            report_gap=self.gaps.append,
            settings=self.settings,
            docker_containers=self.root / "containers",
            **changes,  # type: ignore[arg-type]
        )
        keeper.set_live_pipelines(LIVE)
        return keeper

    def observed(self, source_id: str = ID, **changes: object) -> ObservedSource:
        one = ObservedSource(
            source_id,
            "container",
            "fox",
            "fox",
            "default",
            "web",
            "web",
            "docker",
            None,
            "json-file",
            str(self.root / "containers" / source_id / f"{source_id}-json.log"),
            True,
            datetime.now(UTC),
        )
        return replace(one, **changes)  # type: ignore[arg-type]

    def write(self, text: str, source_id: str = ID) -> Path:
        path = self.root / "containers" / source_id / f"{source_id}-json.log"
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(text)
        return path

    def claims(self) -> list[Path]:
        return list((self.root / "links" / ".pending").glob(f"{ID}.claim.*"))

    def placed(self) -> list[Path]:
        return sorted(p for tree in ("links", "files") for p in (self.root / tree).glob("*/*/*/*.log"))


def record(text: str) -> str:
    return f'{{"log":"{text}\\n","stream":"stdout","time":"2026-01-01T00:00:00.000000001Z"}}\n'
