"""Templates beside drain3 with the masks it ships as its example: accuracy on Loghub-2k, lines per CPU-second, a minute.

drain3 pins old packages, so it gets an environment of its own in the cache folder. Loghub is free for research and
academic work alone: it is not part of the project, give its folder with --loghub (``SYSTEM/SYSTEM_2k.log_structured.csv``).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# CPU time is counted over all threads, and more of them do the same work in more of it.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import polars as pl
from platformdirs import user_cache_path

from bench.grouping import grouping
from bench.report import report
from ml.templates import TemplateMiner

DRAIN3 = "drain3==0.9.11"
RIVAL = Path(__file__).parent / "drain3_lines.py"

LINES = 2_000_000
RIVAL_LINES = 100_000
"""drain3's rate does not depend on how many lines it has had, and two million take it two minutes."""

SERVICES, PER_MINUTE = 500, 200
ROUNDS = 5

ID = re.compile(
    r"(?<=user )(?!from\b)[\w-]+|(?<=user=)[\w-]+|(?<=for )[a-z]+(?= from)|(?<=blk_)-?\d+|(?<=/home/)\w+|(?<=hdfs://)[\w-]+"
    r"|\b[a-z][\w-]*\.[\w.-]*\.(?:com|net|org|edu|cn|br|tw|jp|it|de|kr)\b"
)
"""Names of users, hosts and blocks: what varies in these systems and is or may be a word."""


def rival_python() -> Path:
    """An interpreter with drain3, made once."""
    folder = user_cache_path("onecollector") / "bench" / "drain3-0.9.11"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", DRAIN3], check=True)
        (folder / ".installed").touch()
    return python


def rival(lines: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """drain3 over the lines of each system: groups by system and CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        given, told = Path(folder, "lines.json"), Path(folder, "groups.json")
        given.write_text(json.dumps(lines), encoding="utf-8")
        subprocess.run([str(rival_python()), str(RIVAL), str(given), str(told)], check=True)
        return json.loads(told.read_text(encoding="utf-8"))


def loghub(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Lines and their true kinds by system."""
    systems = {}
    for path in sorted(folder.glob("*/*_2k.log_structured.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            systems[path.parent.name] = [(row["Content"], row["EventId"]) for row in csv.DictReader(file)]
    if not systems:
        raise SystemExit(
            f"expected SYSTEM/SYSTEM_2k.log_structured.csv under {folder}, found none; get them from logpai/loghub"
        )
    return systems


def varied(lines: Sequence[str], count: int, chance: random.Random, names: Sequence[str]) -> list[str]:
    """So many lines drawn from these, with other digits, and other words where a word is a name."""

    def digit(_: re.Match[str]) -> str:
        return chance.choice("0123456789")

    return [
        re.sub(r"\d", digit, ID.sub(lambda _: chance.choice(names), line)) for line in chance.choices(lines, k=count)
    ]


def accuracy(systems: Mapping[str, Sequence[tuple[str, str]]], what: str) -> list[dict[str, Any]]:
    """GA and FGA by system, and their means against drain3's."""
    lines = {name: [line for line, _ in rows] for name, rows in systems.items()}
    ours = {name: TemplateMiner().mine(pl.Series(some), name).index.tolist() for name, some in lines.items()}
    theirs = rival(lines)["groups"]
    rows, sums = [], [0.0] * 4
    for name, labelled in systems.items():
        true = [kind for _, kind in labelled]
        figures = (*grouping(ours[name], true), *grouping(theirs[name], true))
        sums = [a + b for a, b in zip(sums, figures, strict=True)]
        print(
            f"{what:<10} {name:<12} GA {figures[0]:.4f}  FGA {figures[1]:.4f}   drain3 {figures[2]:.4f}  {figures[3]:.4f}"
        )
    means = [value / len(systems) for value in sums]
    aims = (0.95, 0.86, None, None) if what == "as it is" else (None,) * 4
    whats = (
        "mean grouping accuracy",
        "mean F1 of groups",
        "drain3: mean grouping accuracy",
        "drain3: mean F1 of groups",
    )
    for name, mean, aim in zip(whats, means, aims, strict=True):
        rows.append(figure(f"{name}, Loghub-2k {what}, {len(systems)} systems", round(mean, 4), "", aim, "higher"))
    return rows


def throughput(systems: Mapping[str, Sequence[tuple[str, str]]], lines: int) -> list[dict[str, Any]]:
    """Lines per CPU-second of both on the same lines, in turn."""
    chance = random.Random(7)
    names = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(4, 10))) for _ in range(5_000)]
    texts = {
        name: varied([line for line, _ in rows], lines // len(systems), chance, names) for name, rows in systems.items()
    }
    part = {name: some[: RIVAL_LINES // len(systems)] for name, some in texts.items()}
    columns = {name: pl.Series(some) for name, some in texts.items()}
    TemplateMiner().mine(pl.Series(["warm 1", '{"a":1}']))
    ours, theirs = [], []
    for _ in range(3):
        theirs.append(sum(map(len, part.values())) / rival(part)["seconds"])
        ours.append(lines / cpu_seconds(lambda: [TemplateMiner().mine(some, name) for name, some in columns.items()]))
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return [
        figure(
            "templates: lines per CPU-second, 2 million lines, median of 3",
            round(sorted(ours)[1]),
            "lines/s",
            None,
            "higher",
        ),
        figure(
            "drain3 with its example masks: lines per CPU-second", round(sorted(theirs)[1]), "lines/s", None, "higher"
        ),
        figure("templates: times as fast as drain3, median of pairs", round(ratios[1], 1), "x", 20, "higher"),
    ]


def minute(systems: Mapping[str, Sequence[tuple[str, str]]]) -> list[dict[str, Any]]:
    """CPU of one closed minute of many services whose kinds of lines are known, and of the very first."""
    chance = random.Random(3)
    pool = [[line for line, _ in rows] for rows in systems.values()]
    rows = []
    for service in range(SERVICES):
        own = pool[service % len(pool)]
        begin = chance.randrange(len(own) - 60)
        some = varied(own[begin : begin + 60], PER_MINUTE, chance, ["-"])
        rows += [(f"service-{service}", line) for line in some]
    chance.shuffle(rows)
    lines, services = pl.Series([line for _, line in rows]), pl.Series([name for name, _ in rows])
    miner = TemplateMiner()
    first = cpu_seconds(lambda: miner.mine(lines, services))
    warm = sorted(cpu_seconds(lambda: miner.mine(lines, services)) for _ in range(ROUNDS))
    what = f"{SERVICES} services x {PER_MINUTE} lines"
    return [
        figure(
            f"templates: {what}, kinds known, median of {ROUNDS}", round(warm[ROUNDS // 2], 3), "CPU s", 0.15, "lower"
        ),
        figure(f"templates: {what}, nothing known", round(first, 3), "CPU s", None, "lower"),
    ]


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of all threads that ``work`` takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def figure(what: str, value: float, unit: str, reach: float | None, better: str) -> dict[str, Any]:
    """A row of the report."""
    return {"what": what, "value": value, "unit": unit, "reach": reach, "better": better}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--loghub", type=Path, default=os.environ.get("ONECOLLECTOR_LOGHUB"))
    options.add_argument("--lines", type=int, default=LINES)
    chosen = options.parse_args()
    if chosen.loghub is None:
        raise SystemExit("give the folder of Loghub-2k with --loghub or $ONECOLLECTOR_LOGHUB")
    systems = loghub(chosen.loghub)
    chance = random.Random(11)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(4, 9))) for _ in range(200)]
    renamed = {
        name: [(line, kind) for (_, kind), line in zip(rows, _each_varied(rows, chance, words), strict=True)]
        for name, rows in systems.items()
    }
    report(
        "templates",
        [
            *accuracy(systems, "as it is"),
            *accuracy(renamed, "renamed"),
            *throughput(systems, chosen.lines),
            *minute(systems),
        ],
    )


def _each_varied(rows: Sequence[tuple[str, str]], chance: random.Random, names: Sequence[str]) -> list[str]:
    return [varied([line], 1, chance, names)[0] for line, _ in rows]


if __name__ == "__main__":
    main()
