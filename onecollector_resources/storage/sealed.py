"""Small JSON documents that carry the checksum of themselves in their first line: one flipped bit, and nobody reads them.

What a document says is only looked at after its checksum, so everything that reads one may rely on what wrote it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

LARGEST = 64 << 20
"""Bytes."""


class Unsealed(ValueError):
    """Bytes that are no sealed document; the message says what was expected and what was found."""


def seal(body: Mapping[str, Any], name: str = "body") -> bytes:
    """The body under ``name``, below its checksum. Equal bodies give equal bytes."""
    return _around(orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2), name)


def unseal(data: bytes, name: str = "body", largest: int | None = LARGEST) -> dict[str, Any]:
    """The body under ``name`` of a document of at most ``largest`` bytes (None: of any size). Raises Unsealed."""
    if largest is not None and len(data) > largest:
        raise Unsealed(f"expected at most {largest:,} bytes, found {len(data):,}")
    # What stands around a body is as long around every body of that name.
    front = len(_around(b"", name)) - len(_TAIL)
    text = data[front : -len(_TAIL)]
    if data != _around(text, name):
        raise Unsealed("expected a document that has the checksum in its first line, found another: it is damaged")
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Unsealed(f"expected JSON, found something else ({error})") from None
    if not isinstance(body, dict):
        raise Unsealed(f"expected a JSON object, found {type(body).__name__}")
    return body


_TAIL = b"}\n"


def _around(text: bytes, name: str) -> bytes:
    return b'{"sha256": "%s",\n "%s": ' % (hashlib.sha256(text).hexdigest().encode(), name.encode()) + text + _TAIL
