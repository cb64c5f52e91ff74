"""Discovery: containers that live a moment, files that start alike, and many files at once."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.report import report
from bench.stack import Stack, private_stack, unique, wait_until

SHORT = 200
ALIKE = 20
FILES = 200


def short_lived(stack: Stack) -> list[dict[str, object]]:
    """`docker run --rm` containers that print three lines and are gone."""
    service = unique("blink")

    def one(index: int) -> None:
        try:
            stack.run(f"echo a{index}; echo b{index}; echo c{index}", service=service, remove=True)
        except Exception as error:
            if "No such container" not in str(error):
                raise

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(SHORT)))
    wanted = {f"{letter}{index}" for index in range(SHORT) for letter in "abc"}
    found: Counter[str] = Counter()

    def complete() -> bool:
        found.clear()
        found.update(line for _, line, _ in stack.rows(f'{{service_name="{service}"}}', 900))
        return wanted <= set(found)

    with contextlib.suppress(TimeoutError):
        wait_until("all short-lived containers", complete, 60, 1)
    captured = sum(1 for index in range(SHORT) if {f"{letter}{index}" for letter in "abc"} <= set(found))
    doubled = sum(count - 1 for count in found.values())
    return [
        {
            "what": f"`docker run --rm` containers captured of {SHORT}",
            "value": captured,
            "unit": "",
            "reach": SHORT,
            "better": "higher",
        },
        {"what": "their lines doubled", "value": doubled, "unit": "", "reach": 0, "better": "lower"},
    ]


def same_head(stack: Stack) -> list[dict[str, object]]:
    """Containers whose first line is the same 3 kB: one file to a reader that looks at the first 1,000 bytes."""
    service = unique("alike")
    script = (
        "h=$(head -c 3000 /dev/zero | tr '\\0' x); echo $h; for i in $(seq 1 99); do echo line $i of $HOSTNAME; done"
    )
    for _ in range(ALIKE):
        stack.run(script, service=service)
    wanted = ALIKE * 100
    rows: list[object] = []

    def complete() -> bool:
        rows[:] = stack.rows(f'{{service_name="{service}"}}', 900)
        return len(rows) >= wanted

    with contextlib.suppress(TimeoutError):
        wait_until("all lines of containers that start alike", complete, 60, 1)
    return [
        {
            "what": f"lines of {ALIKE} containers that start with the same 3 kB line",
            "value": len(rows),
            "unit": "lines",
            "reach": wanted,
            "better": "higher",
        }
    ]


def many_files(stack: Stack, folder: Path) -> list[dict[str, object]]:
    """200 plain files created within a second: how many Dagster runs, and when the last is materialised."""
    os.environ["DAGSTER_HOME"] = str(stack.layout.dagster_home)
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        before = instance.get_runs_count()
        for index in range(FILES):
            (folder / f"files-app{index}.log").write_text(f"first line of file {index}\n", encoding="utf-8")
        last = time.time()

        def materialised() -> bool:
            return (
                len(
                    {
                        p
                        for p in instance.get_materialized_partitions(dg.AssetKey("log_sources"))
                        if p.startswith("files-app")
                    }
                )
                >= FILES
            )

        wait_until("200 files materialised", materialised, 120, 0.5)
        took = time.time() - last
        wait_until(
            "runs at rest",
            lambda: (
                instance.get_runs_count(
                    dg.RunsFilter(
                        statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
                    )
                )
                == 0
            ),
            60,
            0.5,
        )
        runs = instance.get_runs_count() - before
    rows: list[object] = []

    def arrived() -> bool:
        rows[:] = stack.rows('{service_name=~"files-app.*"}', 900)
        return len(rows) >= FILES

    wait_until("their lines", arrived, 60, 1)
    return [
        {
            "what": f"Dagster runs for {FILES} files created at once",
            "value": runs,
            "unit": "",
            "reach": 3,
            "better": "lower",
        },
        {
            "what": "last of them to all materialised",
            "value": round(took, 1),
            "unit": "s",
            "reach": 20,
            "better": "lower",
        },
        {"what": "their lines in Loki", "value": len(rows), "unit": "lines", "reach": FILES, "better": "higher"},
    ]


def main() -> None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="oc-files-") as folder:
        files = [{"glob": f"{folder}/*.log", "service_from": r"(?P<service>files-app\d+)\.log$"}]
        with private_stack({"files": files}) as stack:
            rows = short_lived(stack) + same_head(stack)
            rows += many_files(stack, Path(folder))
    report("discovery", rows)


if __name__ == "__main__":
    main()
