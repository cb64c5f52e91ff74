"""Bytes that should be UTF-8 as Arrow strings: what is not becomes U+FFFD, byte by byte, as in Loki's own answers.

Python's own replacement takes a cut-off character's bytes together for one U+FFFD; Loki answers one for each byte.
"""

# pyarrow makes the functions of its compute module at import, where a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PER_BYTE = "onecollector-per-byte"


def _one_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd", error.start + 1


codecs.register_error(PER_BYTE, _one_byte)


def text_of(data: bytes) -> str:
    """The text that Loki shows for these bytes."""
    return data.decode("utf-8", PER_BYTE)


def strings(ends: np.ndarray[Any, Any], data: np.ndarray[Any, Any]) -> pa.StringArray:
    """Texts from Arrow offsets (int32, one more than there are texts) and bytes, without copying where all are UTF-8."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
    found = pa.Array.from_buffers(pa.string(), len(ends) - 1, buffers)
    try:
        found.validate(full=True)
    except pa.ArrowInvalid:
        whole = pa.Array.from_buffers(pa.binary(), len(ends) - 1, buffers)
        found = pa.array([text_of(one) for one in whole.to_pylist()], pa.string())
    return found
