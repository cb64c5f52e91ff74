"""Reading a million lines out of Loki into Parquet, by both engines, beside logcli in the same run: five rounds each."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import orjson

from bench.loki import private_loki
from bench.report import report
from onecollector.parts.locate import locate
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.flush import flush

HOUR_NS = 3600 * 10**9
STREAMS, HOURS = 20, 2
QUERY = '{service_name=~".+"}'
VERBS = ("GET", "PUT", "POST", "DELETE")


def line_of(chance: random.Random, number: int) -> str:
    """About 140 bytes, as a service would write it."""
    return (
        f"level=info method={VERBS[number % 4]} path=/api/v1/orders/{chance.randrange(10**6)} status={200 + number % 3} "
        f"user={chance.randrange(10**5):05d} duration={chance.random() * 100:.3f}ms bytes={chance.randrange(10**5)} seq={number}"
    ).ljust(138, ".")


def push_lines(url: str, lines: int, start_ns: int) -> int:
    """In order within each stream; answers the bytes of all lines."""
    chance = random.Random(7)
    step = HOURS * HOUR_NS // lines
    batch, total = 5_000, 0
    with httpx.Client(timeout=120, headers={"X-Scope-OrgID": "default"}) as http, ThreadPoolExecutor(2) as pool:
        waiting = []
        for first in range(0, lines, batch * STREAMS):
            values: list[list[list[object]]] = [[] for _ in range(STREAMS)]
            for number in range(first, min(first + batch * STREAMS, lines)):
                text = line_of(chance, number)
                total += len(text)
                row: list[object] = [str(start_ns + number * step), text]
                if number % 5 == 0:
                    row.append({"trace_id": f"{chance.getrandbits(128):032x}"})
                values[number % STREAMS].append(row)
            for stream, rows in enumerate(values):
                labels = {"service_name": f"service-{stream % 4}", "pod": f"pod-{stream}"}
                body = orjson.dumps({"streams": [{"stream": labels, "values": rows}]})
                waiting.append(
                    pool.submit(
                        http.post, f"{url}/loki/api/v1/push", content=body, headers={"Content-Type": "application/json"}
                    )
                )
            for future in waiting:
                future.result().raise_for_status()
            waiting.clear()
    return total


def run(command: list[str], environment: dict[str, str] | None = None, out: Path | None = None) -> tuple[float, float]:
    """Seconds and the largest resident memory (MB) of a whole process that must succeed."""
    began = time.perf_counter()
    with (out or Path(os.devnull)).open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.PIPE, env=environment)
        assert process.stderr is not None
        trouble = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[:3]} failed: {trouble.decode()[-2000:]}")
    return time.perf_counter() - began, usage.ru_maxrss / 1000


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--lines", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--engines", default="logcli,api,chunks")
    options.add_argument("--name", default="export", help="of the JSON with the results")
    options.add_argument("--once", action="store_true", help="no warm-up: for ranges that take minutes")
    chosen = options.parse_args()
    logcli = locate("logcli")
    if logcli is None:
        raise SystemExit("logcli is missing; run: onecollector install logcli")
    lines = chosen.lines
    start_ns = (time.time_ns() - 20 * HOUR_NS) // HOUR_NS * HOUR_NS
    ends = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((start_ns + h * HOUR_NS) // 10**9)) for h in (0, HOURS)]
    with private_loki() as loki:
        line_bytes = push_lines(loki.url, lines, start_ns)
        flush(LokiAccess(loki.url, "default"), clock=time.monotonic, sleep=time.sleep)
        folder = loki.config.parent
        took: dict[str, list[float]] = {name: [] for name in chosen.engines.split(",")}
        settings = {
            "state_dir": str(folder / "state"),
            "loki": {"url": loki.url},
            **({"export": {"chunk_store": f"file://{loki.data_dir}/objects"}} if "chunks" in took else {}),
        }
        (folder / "onecollector.yaml").write_text(json.dumps(settings))
        environment = {**os.environ, "ONECOLLECTOR_CONFIG": str(folder / "onecollector.yaml")}
        memory: dict[str, float] = {}
        size = 0
        for turn in range(1 if chosen.once else 0, chosen.rounds + 1):
            for name, seconds_of_name in took.items():
                work = folder / "work"
                work.mkdir()
                if name == "logcli":
                    command = [
                        *(str(logcli), f"--addr={loki.url}", "--org-id=default", "-q", "-o", "jsonl", "query", QUERY),
                        *(f"--from={ends[0]}", f"--to={ends[1]}", "--limit=0", "--forward", "--batch=5000"),
                        *("--parallel-duration=15m", "--parallel-max-workers=4"),
                        *(f"--part-path-prefix={work}/part", "--merge-parts"),
                    ]
                    seconds, peak = run(command, out=work / "out.jsonl")
                    with (work / "out.jsonl").open("rb") as result:
                        found = sum(chunk.count(b"\n") for chunk in iter(lambda: result.read(1 << 20), b""))
                else:
                    command = [
                        *(sys.executable, "-m", "onecollector.cli.main", "export", QUERY, "--engine", name, "--json"),
                        *("--from", ends[0], "--to", ends[1], "--out", str(work / "out")),
                    ]
                    seconds, peak = run(command, environment, out=work / "report.json")
                    told = json.loads((work / "report.json").read_text())
                    assert all(row["engine"] == name for row in told["partitions"]), told["partitions"][0]
                    found, size = told["rows"], told["bytes"]
                assert found == lines, f"{name}: {found} of {lines} lines"
                # The first round is for compiled code and the page cache.
                if turn:
                    seconds_of_name.append(seconds)
                    memory[name] = max(memory.get(name, 0), peak)
                shutil.rmtree(work)
    rows = []
    for name, reach in (("logcli", None), ("api", 1.3), ("chunks", 8)):
        if name not in took:
            continue
        middle = statistics.median(took[name])
        rows.append(
            {
                "what": f"{name}: {lines:,} lines, whole process, median of {chosen.rounds}",
                "value": round(middle, 2),
                "unit": "s",
                "reach": None,
                "better": "lower",
            }
        )
        if reach and "logcli" in took:
            ratio = statistics.median(a / b for a, b in zip(took["logcli"], took[name], strict=True))
            rows.append(
                {
                    "what": f"{name}: times as fast as logcli, median of pairs",
                    "value": round(ratio, 2),
                    "unit": "x",
                    "reach": reach,
                    "better": "higher",
                }
            )
        if reach:
            rows.append(
                {
                    "what": f"{name}: largest resident memory",
                    "value": round(memory[name]),
                    "unit": "MB",
                    "reach": 600,
                    "better": "lower",
                }
            )
    rows.append(
        {
            "what": "bytes of lines / bytes of Parquet",
            "value": round(line_bytes / size, 2),
            "unit": "x",
            "reach": 4,
            "better": "higher",
        }
    )
    report(chosen.name, rows)


if __name__ == "__main__":
    main()
