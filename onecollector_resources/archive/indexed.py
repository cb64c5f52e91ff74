"""Which chunks Loki's index still names: retention and deletion take a chunk out of the index first, and out of the store
two hours later.

A day's index holds the checksum of each of its chunks as four bytes, so whether they stand in it says whether the chunk
is named, without reading the format around them.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Sequence

from onecollector_resources.archive.keys import parse_chunk_key


def unindexed(keys: Iterable[str], index: Sequence[bytes]) -> frozenset[str]:
    """Those of the chunks that no index file names; ``index`` as Loki stores it, gzipped or not.

    None where not a single one is named: then it is an index of a kind that is not known here.
    """
    files = [_plain(data) for data in index]
    absent: set[str] = set()
    named = 0
    for key in keys:
        chunk = parse_chunk_key(key)
        if chunk is None:
            continue
        checksum = chunk.checksum.to_bytes(4, "big")
        if any(checksum in file for file in files):
            named += 1
        else:
            absent.add(key)
    return frozenset(absent) if named else frozenset()


def _plain(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return data
