"""Run by drain3's own interpreter: lines by system in, groups and CPU seconds out. The masks are those of its example."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from drain3.masking import MaskingInstruction  # pyright: ignore[reportMissingImports]
from drain3.template_miner import TemplateMiner  # pyright: ignore[reportMissingImports]
from drain3.template_miner_config import TemplateMinerConfig  # pyright: ignore[reportMissingImports]

BEFORE, BEHIND = r"((?<=[^A-Za-z0-9])|^)", r"((?=[^A-Za-z0-9])|$)"
MASKS = (
    (rf"{BEFORE}(([0-9a-f]{{2,}}:){{3,}}([0-9a-f]{{2,}})){BEHIND}", "ID"),
    (rf"{BEFORE}(\d{{1,3}}\.\d{{1,3}}\.\d{{1,3}}\.\d{{1,3}}){BEHIND}", "IP"),
    (rf"{BEFORE}([0-9a-f]{{6,}} ?){{3,}}{BEHIND}", "SEQ"),
    (rf"{BEFORE}([0-9A-F]{{4}} ?){{4,}}{BEHIND}", "SEQ"),
    (rf"{BEFORE}(0x[a-f0-9A-F]+){BEHIND}", "HEX"),
    (rf"{BEFORE}([\-\+]?\d+){BEHIND}", "NUM"),
    (r"(?<=executed cmd )(\".+?\")", "CMD"),
)


def main(given: Path, told: Path) -> None:
    config = TemplateMinerConfig()
    config.profiling_enabled = False
    config.masking_instructions = [MaskingInstruction(pattern, name) for pattern, name in MASKS]
    groups, seconds = {}, 0.0
    for system, lines in json.loads(given.read_text(encoding="utf-8")).items():
        miner = TemplateMiner(config=config)
        began = time.process_time()
        groups[system] = [miner.add_log_message(line)["cluster_id"] for line in lines]
        seconds += time.process_time() - began
    told.write_text(json.dumps({"groups": groups, "seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
