"""Chunk objects made from the description of their format, and what Loki would answer for their lines.

The writer is the tests' own and shares nothing with the reader, so that the two check each other.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import cramjam
import crc32c
import orjson

from onecollector_resources.loki.lines import label_text
from onecollector_resources.storage.objects import ObjectInfo, ObjectMissing

Entry = tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]
"""Time in ns, line, structured metadata as stored."""

FINGERPRINTS = {
    "gzip": 1,
    "lz4-64k": 3,
    "snappy": 4,
    "lz4-256k": 5,
    "lz4-1M": 6,
    "lz4": 7,
    "flate": 8,
    "zstd": 9,
    "none": 0,
}
TENANT = "default"


def squeeze(encoding: str, raw: bytes) -> bytes:
    """Compressed as Loki does."""
    if encoding in ("gzip", "flate"):
        deflate = zlib.compressobj(wbits=31 if encoding == "gzip" else -15)
        return deflate.compress(raw) + deflate.flush()
    if encoding == "none":
        return raw
    codec = cramjam.lz4 if encoding.startswith("lz4") else {"snappy": cramjam.snappy, "zstd": cramjam.zstd}[encoding]
    return bytes(codec.compress(raw))


def uvarint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def varint(number: int) -> bytes:
    return uvarint(number << 1 if number >= 0 else (-number << 1) - 1)


def checked(part: bytes) -> bytes:
    return part + struct.pack(">I", crc32c.crc32c(part))


def inner_block(entries: Sequence[Entry], symbol: Callable[[bytes], int]) -> bytes:
    """A block before it is compressed."""
    raw = b""
    for time_ns, line, pairs in entries:
        symbols = uvarint(len(pairs)) + b"".join(uvarint(symbol(text)) for pair in pairs for text in pair)
        raw += varint(time_ns) + uvarint(len(line)) + line + uvarint(len(symbols)) + symbols
    return raw


@dataclass(frozen=True)
class Made:
    """An object with its key."""

    key: str
    data: bytes
    labels: Mapping[str, str]
    entries: tuple[Entry, ...]


def make_chunk(
    labels: Mapping[str, str],
    blocks: Sequence[Sequence[Entry]],
    *,
    encoding: str = "snappy",
    version: int = 4,
    number: int | None = None,
    fingerprint: int | None = None,
    inner: Callable[[int, bytes], bytes] = lambda place, raw: raw,
) -> Made:
    """An object of one stream. ``inner`` may change a block before it is compressed; ``number`` is the encoding's."""
    symbols: dict[bytes, int] = {}

    def symbol(text: bytes) -> int:
        return symbols.setdefault(text, len(symbols))

    raw = [inner(place, inner_block(block, symbol)) for place, block in enumerate(blocks)]
    table = b"".join(uvarint(len(text)) + text for text in symbols)
    body = struct.pack(">IBB", 0x012EE56A, version, FINGERPRINTS[encoding] if number is None else number)
    table = uvarint(len(symbols)) + squeeze(encoding, table)
    table_at = len(body)
    body += checked(table)
    metas = uvarint(len(blocks))
    for entries, one in zip(blocks, raw, strict=True):
        packed = squeeze(encoding, one)
        times = [time_ns for time_ns, _, _ in entries]
        lines = sum(len(line) for _, line, _ in entries)
        metas += uvarint(len(entries)) + varint(min(times)) + varint(max(times))
        metas += uvarint(len(body)) + uvarint(lines) + uvarint(len(packed))
        body += checked(packed)
    metas_at = len(body)
    body += checked(metas) + struct.pack(">QQQQ", len(table), table_at, len(metas), metas_at)
    every = tuple(entry for block in blocks for entry in block)
    first, last = (bound(time_ns for time_ns, _, _ in every) // 10**6 for bound in (min, max))
    stream = (
        fingerprint if fingerprint is not None else zlib.crc32(orjson.dumps(labels, option=orjson.OPT_SORT_KEYS)) + 1
    )
    header = {
        "fingerprint": stream,
        "userID": TENANT,
        "from": first / 1e3,
        "through": last / 1e3,
        "metric": {"__name__": "logs", **labels},
        "encoding": 129,
    }
    head = bytes(cramjam.snappy.compress(orjson.dumps(header) + b"\n"))
    data = struct.pack(">I", len(head) + 4) + head + struct.pack(">I", len(body)) + body
    return Made(f"{TENANT}/{stream:x}/{first:x}:{last:x}:{crc32c.crc32c(data):x}", data, labels, every)


def shown(data: bytes) -> str:
    """Go's way with bytes that are no UTF-8: each becomes U+FFFD."""
    text, at = "", 0
    while at < len(data):
        for length in (1, 2, 3, 4):
            try:
                text += data[at : at + length].decode()
            except UnicodeDecodeError:
                continue
            at += length
            break
        else:
            text, at = text + "\ufffd", at + 1
    return text


def answered(labels: Mapping[str, str], entry: Entry) -> tuple[int, str, str, tuple[tuple[str, str], ...]]:
    """What Loki's API says of a stored line."""
    time_ns, line, stored = entry
    pairs: dict[str, str] = {}
    for name, value in stored:
        known = shown(name)
        pairs[f"{known}_extracted" if known in labels else known] = shown(value)
    for name in ("__error__", "__error_details__"):
        pairs.pop(name, None)
    return time_ns, label_text(labels), shown(line), tuple(sorted(pairs.items()))


@dataclass
class MemoryStore:
    """Objects in a dictionary; counts what is asked of it."""

    objects: dict[str, bytes] = field(default_factory=dict)
    url: str = "memory:"
    asked: list[tuple[str, int]] = field(default_factory=list)
    """Key and bytes of every read."""
    on_get: Callable[[str], None] = lambda key: None

    def put_all(self, made: Iterable[Made]) -> MemoryStore:
        self.objects.update((one.key, one.data) for one in made)
        return self

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield ObjectInfo(key, len(self.objects[key]), datetime.fromtimestamp(0, UTC), "")

    def get(self, key: str) -> bytes:
        self.on_get(key)
        return self.get_range(key, 0, 1 << 40)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if key not in self.objects:
            raise ObjectMissing(f"{self.url}: expected the object {key}, found none")
        found = self.objects[key][start : start + length]
        self.asked.append((key, len(found)))
        return found
