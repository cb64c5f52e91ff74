"""What a disk does to a file at times."""

from __future__ import annotations

from pathlib import Path


def flip_a_bit(file: Path) -> None:
    """One bit in the middle of the file is another."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
