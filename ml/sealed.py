"""Small JSON documents that carry the checksum of themselves in their first line: one flipped bit, and nobody reads them.

What a document says is only looked at after its checksum, so everything that reads one may rely on what wrote it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

HEAD, TAIL = b'{"sha256": "%s",\n "body": ', b"}\n"
LARGEST = 64 << 20
"""Bytes."""


class Unsealed(ValueError):
    """Bytes that are no sealed document; the message says what was expected and what was found."""


def seal(body: Mapping[str, Any]) -> bytes:
    """Equal bodies give equal bytes."""
    text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
    return HEAD % hashlib.sha256(text).hexdigest().encode() + text + TAIL


def unseal(data: bytes) -> dict[str, Any]:
    """The body. Raises Unsealed."""
    if len(data) > LARGEST:
        raise Unsealed(f"expected at most {LARGEST:,} bytes, found {len(data):,}")
    text = data[len(HEAD) + 62 : -len(TAIL)]
    if data != HEAD % hashlib.sha256(text).hexdigest().encode() + text + TAIL:
        raise Unsealed("expected a document that has the checksum in its first line, found another: it is damaged")
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Unsealed(f"expected JSON, found something else ({error})") from None
    if not isinstance(body, dict):
        raise Unsealed(f"expected a JSON object, found {type(body).__name__}")
    return body
