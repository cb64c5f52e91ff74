"""The names of chunk objects, which say what a chunk holds before it is read: stream, span of time, checksum.

A key is ``<tenant>/<fingerprint>/<from>:<through>:<crc32c>``, numbers in hexadecimal, times in milliseconds; on a file
system the last part is base64. Anything else under a tenant's prefix is no chunk.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

FINGERPRINT = re.compile(r"[0-9a-f]{1,16}")
SPAN = re.compile(r"([0-9a-f]{1,15}):([0-9a-f]{1,15}):([0-9a-f]{1,8})")


@dataclass(frozen=True, slots=True)
class ChunkKey:
    """What a key says. ``from_ms`` and ``through_ms`` are of the first and the last line, rounded down."""

    fingerprint: str
    name: str
    from_ms: int
    through_ms: int
    crc: int


def parse_key(key: str) -> ChunkKey | None:
    """What the key of a chunk says; None for the key of another object."""
    _, _, rest = key.partition("/")
    fingerprint, _, name = rest.partition("/")
    if not FINGERPRINT.fullmatch(fingerprint):
        return None
    text = name
    if ":" not in name:
        try:
            text = base64.b64decode(name, validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
    match = SPAN.fullmatch(text)
    if match is None:
        return None
    return ChunkKey(fingerprint, name, int(match[1], 16), int(match[2], 16), int(match[3], 16))
