"""The loops that see every byte of every line, compiled by numba.

Nothing imports this module but ``decode``, when the first line is decoded: importing numba takes a third of a second.
Each function has one signature, so it is compiled once for a machine and then loaded; none holds Python's lock, so
threads decode side by side. Sizes are checked here and not trusted: numba checks no bounds.
"""

# ruff: noqa: TID253
# pyright: reportIndexIssue=false

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numba

BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
U8, I32, I64 = numba.uint8[::1], numba.int32[::1], numba.int64[::1]

FAILED = -1


def compiled(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile for one signature, once for a machine, or once for a process where no folder for it can be written."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(signature, cache=True, nogil=True)(function)
        except (RuntimeError, OSError, EOFError, pickle.PickleError):
            # Neither the folder of this file nor the user's cache is writable, or a full disk broke what was in it.
            return numba.njit(signature, nogil=True)(function)

    return wrap


@compiled(numba.types.UniTuple(numba.int64, 2)(BYTES, numba.int64, numba.int64))
def uvarint(raw: Any, at: Any, end: Any) -> Any:
    """The number at ``at`` and the place after it; a place of -1 where there is none."""
    value = numba.uint64(0)
    shift = numba.uint64(0)
    while at < end and shift < 64:
        byte = raw[at]
        at += 1
        value |= numba.uint64(byte & 127) << shift
        if byte < 128:
            return numba.int64(value), at
        shift += numba.uint64(7)
    return 0, FAILED


@compiled(numba.int64(BYTES, I32, U8))
def split_symbols(raw: Any, ends: Any, data: Any) -> Any:
    """Texts with their lengths before them, into offsets and bytes. Answers how many bytes were read, -1 for damage.

    ``ends`` has one place more than there are symbols, ``data`` as many as ``raw``.
    """
    at = 0
    size = 0
    ends[0] = 0
    for symbol in range(len(ends) - 1):
        length, at = uvarint(raw, at, len(raw))
        if at < 0 or length < 0 or length > len(raw) - at:
            return FAILED
        for byte in range(length):
            data[size + byte] = raw[at + byte]
        at += length
        size += length
        ends[symbol + 1] = size
    return at


@compiled(numba.int64(BYTES, numba.int64, numba.int64, numba.int64, numba.int64, I64, I32, U8, I32, I32, I32, U8, I64))
def walk(
    raw: Any,
    entries: Any,
    start_ns: Any,
    end_ns: Any,
    first_symbol: Any,
    times: Any,
    line_ends: Any,
    data: Any,
    pair_ends: Any,
    names: Any,
    values: Any,
    used: Any,
    at: Any,
) -> Any:
    """An inflated block's lines of [start_ns, end_ns), appended to the columns.

    ``at`` holds rows, bytes and pairs so far and is moved on. ``used`` has a place for each symbol of the chunk and is
    set to 1 for names; symbols are counted from ``first_symbol`` on. The columns must have room for ``entries`` rows,
    for ``len(raw)`` bytes and for half as many pairs. Answers how many bytes were read, -1 for damage.
    """
    rows, size, pairs = at[0], at[1], at[2]
    place = 0
    whole = len(raw)
    for _ in range(entries):
        zigzag, place = uvarint(raw, place, whole)
        if place < 0:
            return FAILED
        time_ns = ((zigzag >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(zigzag & 1)
        length, place = uvarint(raw, place, whole)
        if place < 0 or length < 0 or length > whole - place:
            return FAILED
        line = place
        place += length
        section, place = uvarint(raw, place, whole)
        if place < 0 or section < 0 or section > whole - place:
            return FAILED
        section_end = place + section
        if time_ns < start_ns or time_ns >= end_ns:
            place = section_end
            continue
        for byte in range(length):
            data[size + byte] = raw[line + byte]
        size += length
        times[rows] = time_ns
        count, place = uvarint(raw, place, section_end)
        if place < 0 or count < 0 or count > section:
            return FAILED
        for _ in range(count):
            name, place = uvarint(raw, place, section_end)
            if place < 0 or name < 0 or name >= len(used):
                return FAILED
            value, place = uvarint(raw, place, section_end)
            if place < 0 or value < 0 or value >= len(used):
                return FAILED
            used[name] = 1
            names[pairs] = first_symbol + name
            values[pairs] = first_symbol + value
            pairs += 1
        if place != section_end:
            return FAILED
        rows += 1
        line_ends[rows] = size
        pair_ends[rows] = pairs
    at[0], at[1], at[2] = rows, size, pairs
    return place


@compiled(numba.int64(I64, I64, I32, U8, I32, I32, I32, I32, I32, I64, I32, U8, I32, I32, I32, I32))
def gather(
    order: Any,
    times: Any,
    line_ends: Any,
    data: Any,
    stream: Any,
    pair_ends: Any,
    names: Any,
    values: Any,
    rank_of: Any,
    out_times: Any,
    out_line_ends: Any,
    out_data: Any,
    out_stream: Any,
    out_pair_ends: Any,
    out_names: Any,
    out_values: Any,
) -> Any:
    """The rows in another order, the pairs within each row by the rank of their names. Answers how many pairs there are.

    Of pairs with equal names the last stays; a name of rank -1 is left out.
    """
    size = 0
    pairs = 0
    out_line_ends[0] = 0
    out_pair_ends[0] = 0
    for place in range(len(order)):
        row = order[place]
        begin, end = line_ends[row], line_ends[row + 1]
        length = end - begin
        for byte in range(length):
            out_data[size + byte] = data[begin + byte]
        size += length
        out_line_ends[place + 1] = size
        out_times[place] = times[row]
        out_stream[place] = stream[row]
        first = pairs
        for pair in range(pair_ends[row], pair_ends[row + 1]):
            rank = rank_of[names[pair]]
            if rank < 0:
                continue
            to = pairs
            while to > first and out_names[to - 1] > rank:
                to -= 1
            if to > first and out_names[to - 1] == rank:
                out_values[to - 1] = values[pair]
                continue
            for shifted in range(pairs, to, -1):
                out_names[shifted] = out_names[shifted - 1]
                out_values[shifted] = out_values[shifted - 1]
            out_names[to] = rank
            out_values[to] = values[pair]
            pairs += 1
        out_pair_ends[place + 1] = pairs
    return pairs
