"""Lines of made-up systems, each with the number of its kind: what a person would call the same message.

The formats are those of access logs, a kernel, an SSH server, schedulers, databases and applications; names, paths and
numbers are drawn anew for each line. ``{...}`` names what is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

_USERS = "root admin guest ann bob carl dora emil fay gus hana ivo jan kim lea mia nick olga paul rosa"
USERS = _USERS.split()

DRAWN: dict[str, Callable[[random.Random], str]] = {
    "n": lambda r: str(r.randrange(10 ** r.randint(1, 6))),
    "f": lambda r: f"{r.random() * 100:.{r.randint(1, 5)}f}",
    "ip": lambda r: ".".join(str(r.randint(1, 254)) for _ in range(4)),
    "hex": lambda r: f"{r.getrandbits(48):012x}",
    "word": lambda r: "".join(r.choice("abcdefghiklmnoprstuvw") for _ in range(r.randint(4, 9))),
    "user": lambda r: r.choice(USERS),
    "path": lambda r: "/" + "/".join(DRAWN["word"](r) for _ in range(r.randint(2, 4))),
    "url": lambda r: f"/{DRAWN['word'](r)}/{DRAWN['word'](r)}" + r.choice(["", "?page=2", f"/{r.randrange(999)}"]),
    "size": lambda r: r.choice([f"{r.randrange(1000)} B", f"{r.random() * 900:.1f} KB", f"{r.random() * 90:.2f} MB"]),
    "date": lambda r: (
        f"Tue Nov {r.randint(1, 28):2} {r.randrange(24):02}:{r.randrange(60):02}:{r.randrange(60):02} 2026"
    ),
    "bool": lambda r: r.choice(["true", "false"]),
    "agent": lambda r: r.choice(["curl/8.1", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101", "kube-probe/1.30"]),
    "list": lambda r: f"[{', '.join(DRAWN['word'](r) for _ in range(r.randint(2, 6)))}]",
}

SYSTEMS = {
    "access": (
        '{ip} - - [12/Nov/2026:10:{n}:01 +0000] "GET {url} HTTP/1.1" {n} {n} "-" "{agent}"',
        '{ip} - {user} [12/Nov/2026:10:{n}:01 +0000] "POST {url} HTTP/1.1" {n} {n} "https://shop.example/" "{agent}"',
        "{n}#{n}: *{n} connect() failed while connecting to upstream, client: {ip}, upstream: http://{ip}:{n}{url}",
    ),
    "sshd": (
        "Failed password for {user} from {ip} port {n} ssh2",
        "Accepted publickey for {user} from {ip} port {n} ssh2",
        "Invalid user {user} from {ip}",
        "session opened for user {user} by (uid={n})",
        "session closed for user {user}",
        "connection from {ip} () at {date}",
        "Received disconnect from {ip}: 11: Bye Bye [preauth]",
    ),
    "kernel": (
        "eth{n}: link up, {n} Mbps, full duplex",
        "eth{n}: link down",
        "Out of memory: killed process {n} ({word}) total-vm:{n}kB, anon-rss:{n}kB",
        "usb {n}-{n}: new high-speed USB device number {n} using xhci_hcd",
        "TCP: request_sock_TCP: Possible SYN flooding on port {n}. Sending cookies.",
    ),
    "cluster": (
        "Task {hex} moved from PENDING to RUNNING on host-{n}",
        "Task {hex} moved from RUNNING to FINISHED on host-{n}",
        "Task {hex} moved from RUNNING to FAILED on host-{n}",
        "Block blk_{hex} stored in memory (size {size}, free {size})",
        "Block blk_{hex} stored on disk (size {size}, free {size})",
        "Got allocated containers {n}",
        "Took {f} seconds to build instance {hex}",
        "Took {f} seconds to destroy instance {hex}",
    ),
    "database": (
        "connection received: host={ip} port={n}",
        "connection authorized: user={user} database={word} application_name={word}",
        'relation "{word}" does not exist at character {n}',
        "checkpoint complete: wrote {n} buffers ({f}%); write={f} s, sync={f} s",
        "checkpoint starting: time",
        "duration: {f} ms  statement: SELECT {word} FROM {word} WHERE {word} = {n}",
    ),
    "application": (
        "user {user} logged in from {ip}",
        "user {user} logged out",
        "order {n} shipped to {word} with tags {list}",
        "loaded {n} records from {path} in {n} ms",
        "feature {word} is {bool}",
        "cache miss for key {word}:{n}",
        "cache hit for key {word}:{n}",
        "circuit breaker opened after {n} failures",
        "circuit breaker closed after {n} probes",
    ),
    "json": (
        '{{"level":"info","ts":{f},"msg":"request done","path":"{url}","status":{n},"user":"{user}"}}',
        '{{"level":"error","ts":{f},"msg":"request failed","path":"{url}","error":"{word}"}}',
        '{{"level":"info","ts":{f},"msg":"cache of {word} warmed in {n} ms"}}',
    ),
    "logfmt": (
        'ts={f} level=info caller={word}.go:{n} msg="head block done" duration={f}s',
        'ts={f} level=info caller={word}.go:{n} msg="head block begun" tenant={word}',
        'ts={f} level=warn caller={word}.go:{n} msg="queue of {word} is {n} long" queue={word}',
    ),
}


def lines_of(system: str, count: int, seed: int = 1) -> list[tuple[str, int]]:
    """Lines and their kinds: each kind a few times in a row, the first kinds most often."""
    chance = random.Random(f"{system} {seed}")
    kinds = SYSTEMS[system]
    weights = [1 / (1 + number) for number in range(len(kinds))]
    lines: list[tuple[str, int]] = []
    while len(lines) < count:
        (kind,) = chance.choices(range(len(kinds)), weights)
        for _ in range(chance.randint(1, 4)):
            drawn = {name: _Drawn(draw, chance) for name, draw in DRAWN.items()}
            lines.append((kinds[kind].format(**drawn), kind))
    return lines[:count]


class _Drawn:
    """Another value each time that it is named."""

    def __init__(self, draw: Callable[[random.Random], str], chance: random.Random) -> None:
        self._draw, self._chance = draw, chance

    def __format__(self, _: str) -> str:
        return self._draw(self._chance)


def cut_at(lines: list[str], places: list[int]) -> list[list[str]]:
    """Lines in pieces."""
    borders = sorted({0, len(lines), *(place % (len(lines) + 1) for place in places)})
    return [lines[begin:end] for begin, end in pairwise(borders)]
