"""A chunk object taken apart: whose lines it holds, where its blocks lie, what is in its table of symbols.

An object is a length and a snappy-framed JSON header, then a length and the chunk. A chunk (version 4) is a magic
number, version and encoding, a section of symbols, blocks of lines, a section that describes the blocks, and a footer
with the places of the two sections; every section and every block is followed by its crc32c. All is big endian, numbers
in sections are varints. Nothing is inflated here but the header.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import crc32c
import orjson

from onecollector_resources.loki.chunks.faults import ChunkDamaged, ChunkUnsupported

MAGIC = 0x012EE56A
VERSION = 4

ENCODINGS = {
    0: "none",
    1: "gzip",
    3: "lz4",
    4: "snappy",
    5: "lz4",
    6: "lz4",
    7: "lz4",
    8: "flate",
    9: "zstd",
}
"""The numbers that Loki 3.7 writes for its ``chunk_encoding``; four are lz4, with blocks of 64 kB, 256 kB, 1 MB, 4 MB."""

LENGTH = struct.Struct(">I")
START = struct.Struct(">IBB")
FOOTER = struct.Struct(">QQQQ")
CRC_BYTES = 4

METADATA_OWN = "__name__"
"""A label that every chunk's header has and that no stream has."""


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of one chunk that were compressed together.

    First and last time inclusive, in ns. ``offset`` and ``length`` are the compressed bytes' place in the chunk;
    ``line_bytes`` is about what the lines and their metadata take when inflated.
    """

    entries: int
    first_ns: int
    last_ns: int
    offset: int
    length: int
    line_bytes: int

    def touches(self, start_ns: int, end_ns: int) -> bool:
        """Whether a line of [start_ns, end_ns) can be in it."""
        return self.first_ns < end_ns and self.last_ns >= start_ns


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the chunk that is followed by its checksum."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What a chunk's frame says: ``labels`` of its stream, how it is compressed, where everything is.

    ``start`` is the chunk's place in the object; offsets of blocks and sections count from there.
    """

    key: str
    labels: Mapping[str, str]
    encoding: str
    start: int
    blocks: Sequence[Block]
    symbols: Section

    @property
    def entries(self) -> int:
        """Lines in the chunk."""
        return sum(block.entries for block in self.blocks)


class _Part(Protocol):
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...


def read_labels(key: str, head: bytes | memoryview) -> dict[str, str] | int:
    """The stream's labels from an object's first bytes, or how many bytes that takes if ``head`` is too short.

    Raises ChunkDamaged.
    """
    import cramjam

    if len(head) < LENGTH.size:
        raise ChunkDamaged(key, f"truncated: expected a header, found {len(head)} bytes")
    (length,) = LENGTH.unpack_from(head)
    if length <= LENGTH.size or length > 1 << 24:
        raise ChunkDamaged(key, f"expected the length of a header, found {length}")
    if len(head) < length:
        return length
    try:
        header = orjson.loads(bytes(cramjam.snappy.decompress(head[LENGTH.size : length])))
        labels = {str(name): str(value) for name, value in header["metric"].items() if name != METADATA_OWN}
    except (cramjam.DecompressionError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ChunkDamaged(key, f"expected a header with labels, found what cannot be read ({error})") from None
    return labels


def parse(key: str, data: bytes | memoryview) -> Layout:
    """The layout of an object. Raises ChunkDamaged, ChunkUnsupported; blocks and symbols are not checked yet."""
    labels = read_labels(key, data)
    if isinstance(labels, int):
        raise ChunkDamaged(key, f"truncated: expected a header of {labels} bytes, found {len(data)} bytes")
    (head,) = LENGTH.unpack_from(data)
    start = head + LENGTH.size
    length = LENGTH.unpack_from(data, head)[0] if len(data) >= start else 0
    if len(data) - start != length or length < START.size + FOOTER.size:
        raise ChunkDamaged(
            key,
            f"truncated: expected a chunk of {length} bytes after byte {start}, found {max(0, len(data) - start)}",
        )
    magic, version, encoding = START.unpack_from(data, start)
    if magic != MAGIC:
        raise ChunkDamaged(key, f"expected the magic number {MAGIC:08x}, found {magic:08x}")
    if version != VERSION:
        raise ChunkUnsupported(f"{key}: expected a chunk of version {VERSION}, found version {version}")
    if encoding not in ENCODINGS:
        known = ", ".join(f"{number} ({name})" for number, name in ENCODINGS.items())
        raise ChunkUnsupported(f"{key}: expected one of the encodings {known}, found {encoding}")
    symbols_length, symbols_at, metas_length, metas_at = FOOTER.unpack_from(data, len(data) - FOOTER.size)
    symbols, metas = Section(symbols_at, symbols_length), Section(metas_at, metas_length)
    room = length - FOOTER.size - CRC_BYTES
    for name, section in (("symbols", symbols), ("blocks", metas)):
        if section.offset + section.length > room or section.length == 0:
            raise ChunkDamaged(
                key, f"footer: expected {name} within {room} bytes, found {section.offset}+{section.length}"
            )
    check(key, data, start, metas, "list of blocks")
    blocks = _blocks(key, data[start + metas_at : start + metas_at + metas_length], room)
    return Layout(key, labels, ENCODINGS[encoding], start, blocks, symbols)


def check(key: str, data: bytes | memoryview, start: int, part: _Part, name: str) -> memoryview:
    """The part's bytes. Raises ChunkDamaged where its checksum does not fit."""
    begin, end = start + part.offset, start + part.offset + part.length
    view = memoryview(data)[begin:end]
    (expected,) = LENGTH.unpack_from(data, end)
    found = crc32c.crc32c(view)
    if found != expected:
        raise ChunkDamaged(key, f"{name}: expected crc32c {expected:08x}, found {found:08x}")
    return view


def block_name(layout: Layout, block: Block) -> str:
    """How an error names a block: its number and what would be lost with it."""
    number = layout.blocks.index(block) + 1
    return f"block {number} of {len(layout.blocks)} ({block.entries} lines, {block.first_ns} to {block.last_ns} ns)"


def read_symbols(layout: Layout, data: bytes | memoryview) -> tuple[int, memoryview]:
    """How many symbols there are, and their compressed bytes. Raises ChunkDamaged."""
    section = check(layout.key, data, layout.start, layout.symbols, "symbols")
    count, at = _uvarint(layout.key, section, 0)
    return count, section[at:]


def _blocks(key: str, section: bytes | memoryview, room: int) -> tuple[Block, ...]:
    count, at = _uvarint(key, section, 0)
    blocks = []
    for _ in range(count):
        numbers = []
        for _ in range(6):
            number, at = _uvarint(key, section, at)
            numbers.append(number)
        entries, first, last, offset, line_bytes, length = numbers
        if offset + length > room:
            raise ChunkDamaged(key, f"list of blocks: expected a block within {room} bytes, found {offset}+{length}")
        blocks.append(Block(entries, _signed(first), _signed(last), offset, length, line_bytes))
    return tuple(blocks)


def _uvarint(key: str, data: bytes | memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ChunkDamaged(key, f"expected a number at byte {at} of a section of {len(data)}, found none")


def _signed(number: int) -> int:
    """Times are written with the sign in the lowest bit."""
    return (number >> 1) ^ -(number & 1)
