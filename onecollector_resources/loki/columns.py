"""From the JSON of a page of lines to columns.

The decoded page is hundreds of thousands of small objects that live for a moment: with the garbage collector on, half of
the time goes into looking through them in vain, so it rests meanwhile. Only one page is decoded at a time, for it takes
several times the memory of the answer, and two would not be faster.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from onecollector_resources.loki.lines import LineBlock, empty_metadata, label_text

if TYPE_CHECKING:
    import pyarrow as pa

_one_at_a_time = threading.Lock()
NONE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Lines:
    """A page's lines; ``labels`` are those of the block's streams with all that Loki adds for itself."""

    block: LineBlock
    labels: tuple[Mapping[str, str], ...]


@contextmanager
def _undisturbed() -> Iterator[None]:
    with _one_at_a_time:
        was_on = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_on:
                gc.enable()


def decode(body: bytes) -> Lines:
    """The lines of an answer to query_range. Raises ValueError, KeyError, TypeError for an answer of another shape."""
    with _undisturbed():
        try:
            data = orjson.loads(body)["data"]
        except orjson.JSONDecodeError:
            # Lines that are no UTF-8 may be in the store, and JSON that holds them is none.
            data = orjson.loads(body.decode("utf-8", "replace"))["data"]
        if data["resultType"] != "streams":
            raise ValueError(f"expected lines, found {data['resultType']!r}: is it a metric query?")
        return _lines(data["result"])


def _lines(result: Sequence[Any]) -> Lines:
    import numpy as np
    import pyarrow as pa

    labels = tuple(stream["stream"] for stream in result)
    counts = [len(stream["values"]) for stream in result]
    values = list(chain.from_iterable(stream["values"] for stream in result))
    times = pa.array(list(map(itemgetter(0), values)), pa.string()).cast(pa.int64())
    block = LineBlock(
        streams=[label_text(one) for one in labels],
        stream=np.repeat(np.arange(len(labels), dtype=np.int32), counts),
        time_ns=times.to_numpy(),
        line=pa.array(list(map(itemgetter(1), values)), pa.string()),
        metadata=_metadata(values),
    )
    return Lines(block, labels)


def _metadata(values: Sequence[Any]) -> pa.MapArray:
    """Pairs of each row, names in order. What the query itself made of a line (``parsed``) is not stored, and left out."""
    import numpy as np
    import pyarrow as pa

    rows = [value[2].get("structuredMetadata") or NONE if len(value) > 2 else NONE for value in values]
    counts = np.fromiter(map(len, rows), np.int64, len(rows))
    if not counts.any():
        return empty_metadata(len(rows))
    names = pa.array(list(chain.from_iterable(rows)), pa.string()).dictionary_encode()
    texts = pa.array(list(chain.from_iterable(row.values() for row in rows)), pa.string())
    known = names.dictionary.to_pylist()
    rank_of = {name: rank for rank, name in enumerate(sorted(known))}
    rank = np.fromiter((rank_of[name] for name in known), np.int64, len(known))[names.indices.to_numpy()]
    # One number for both: pairs that are in order already, which is usual, are seen by one comparison.
    key = np.repeat(np.arange(len(rows)), counts) * len(known) + rank
    names = names.dictionary_decode()
    if (key[1:] < key[:-1]).any():
        order = pa.array(np.argsort(key, kind="stable"))
        names, texts = names.take(order), texts.take(order)
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.MapArray.from_arrays(pa.array(offsets), names, texts)


def between(block: LineBlock, start_ns: int, end_ns: int) -> LineBlock:
    """The block's rows in [start_ns, end_ns)."""
    import pyarrow as pa

    kept = (block.time_ns >= start_ns) & (block.time_ns < end_ns)
    if kept.all():
        return block
    mask = pa.array(kept)
    return LineBlock(
        block.streams, block.stream[kept], block.time_ns[kept], block.line.filter(mask), block.metadata.filter(mask)
    )


def joined(blocks: Sequence[LineBlock]) -> LineBlock:
    """All rows of the blocks."""
    import numpy as np
    import pyarrow as pa

    if not blocks:
        return _lines([]).block
    if len(blocks) == 1:
        return blocks[0]
    first = np.cumsum([0, *(len(block.streams) for block in blocks)])
    return LineBlock(
        [text for block in blocks for text in block.streams],
        np.concatenate([block.stream + shift for block, shift in zip(blocks, first, strict=False)]).astype(np.int32),
        np.concatenate([block.time_ns for block in blocks]),
        pa.concat_arrays([block.line for block in blocks]),
        pa.concat_arrays([block.metadata for block in blocks]),
    )
