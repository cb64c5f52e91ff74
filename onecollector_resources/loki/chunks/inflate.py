"""From a block's compressed bytes to those that it was made of, for every encoding that Loki writes.

The libraries are those that let other threads run meanwhile: isal for gzip and flate, cramjam for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onecollector_resources.loki.chunks.faults import ChunkDamaged

if TYPE_CHECKING:
    import numpy as np

GZIP_BITS, FLATE_BITS = 31, -15


def inflate(key: str, name: str, encoding: str, data: memoryview, expected: int) -> np.ndarray[Any, Any]:
    """The bytes as an array that cannot be written to. ``expected`` is about how many there will be.

    Raises ChunkDamaged for ``name`` of the object ``key``, KeyError for an encoding that ``format`` does not name.
    """
    import cramjam
    import numpy as np
    from isal import isal_zlib

    if not len(data):
        raw = b""
    elif encoding == "none":
        raw = data
    else:
        try:
            if encoding in ("gzip", "flate"):
                raw = isal_zlib.decompress(
                    data, wbits=GZIP_BITS if encoding == "gzip" else FLATE_BITS, bufsize=expected + expected // 8 + 64
                )
            else:
                codec = {"snappy": cramjam.snappy, "lz4": cramjam.lz4, "zstd": cramjam.zstd}[encoding]
                raw = codec.decompress(data)
        except (cramjam.DecompressionError, isal_zlib.error) as error:  # pyright: ignore[reportGeneralTypeIssues]
            raise ChunkDamaged(key, f"{name}: expected {encoding}, found what cannot be inflated ({error})") from None
    array = np.frombuffer(raw, np.uint8) if len(raw) else np.zeros(0, np.uint8)
    array.flags.writeable = False
    return array
