"""Whether the collector can tell a file from all others: it knows a file by its first 1,000 bytes and nothing else.

A Docker JSON line holds its time, so a newline within these bytes makes the head unique. A longer first line, or a plain
file without times, has to be compared with the heads that are in the tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

FINGERPRINT = 1_000
"""Bytes: file_log's fingerprint_size. A larger one costs a core on hosts with many idle files."""

Judgement = Literal["unique", "wait", "tie"]


def judge_timed(head: bytes, known: Iterable[bytes], *, finished: bool) -> Judgement:
    """For lines that bring their own time (Docker, CRI). ``known``: heads of placed files whose first line was as long."""
    head = head[:FINGERPRINT]
    if b"\n" in head:
        return "unique"
    if len(head) < FINGERPRINT:
        return "unique" if finished and head else "wait"
    return "tie" if head in known else "unique"


def judge_plain(head: bytes, known: Iterable[bytes]) -> Judgement:
    """For lines without a time: one head that begins with the other is one file to the collector."""
    head = head[:FINGERPRINT]
    if not head:
        return "wait"
    return "tie" if any(other and (head.startswith(other) or other.startswith(head)) for other in known) else "unique"
