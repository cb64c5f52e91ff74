"""What a store does and does not do, tried out before anything depends on it: each row one thing, found by doing it.

Only what was seen counts: some stores answer 200 to a conditional put and write all the same, or keep the framing of an
upload as its content. What is written lies under one prefix of its own and is removed.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onecollector_resources.storage.objects import (
    ConditionUnsupported,
    ObjectCorrupt,
    ObjectMissing,
    ObjectStore,
    PutConflict,
    StoreDenied,
    StoreError,
    StoreGone,
)
from onecollector_resources.storage.s3_store import S3Store
from onecollector_resources.storage.trailing import try_trailing

SKEW_WARN_S, SKEW_FAIL_S = 60.0, 15 * 60.0
"""S3 refuses requests that are signed 15 minutes off."""

BODY = bytes(range(256)) * 64
MULTIPART_BYTES = 5 << 20
"""The least size of a part that is not the last."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried: what was found and, unless it is ok, what to do."""

    name: str
    level: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def preflight(
    store: ObjectStore, *, now: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic
) -> list[Check]:
    """Try everything out. Never raises StoreError: a store that is away or refuses is a finding."""
    prefix = f"oc-preflight-{secrets.token_hex(8)}"
    checks: list[Check] = []
    try:
        for check in _tried(store, prefix, now, clock):
            checks.append(check)
    finally:
        _clean(store, prefix)
    return checks


def _tried(store: ObjectStore, prefix: str, now: Callable[[], float], clock: Callable[[], float]) -> Iterator[Check]:
    key = f"{prefix}/object"
    began = clock()
    try:
        store.head(key)
    except StoreGone as error:
        yield Check("reach", "fail", str(error), "start it, make the bucket or mend the URL")
        return
    except StoreError:
        # It answers; what it refuses is told by the rows that follow.
        pass
    yield Check("reach", "ok", f"answers in {1000 * (clock() - began):.0f} ms")
    rights = (
        _right("put", lambda: store.put(key, BODY), "an object of 16 kB"),
        _right("get", lambda: _same(store.get(key), BODY, store, key), "came back as it was written"),
        _right("head", lambda: store.head(key), "size and version"),
        _right("list", lambda: list(store.list(f"{prefix}/")), "a prefix"),
    )
    yield from rights
    if any(check.level == "fail" for check in rights):
        yield _right("delete", lambda: store.delete(key), "an object")
        return
    yield _listing(store, prefix)
    yield _ranges(store, key)
    yield _conditions(store, f"{prefix}/condition")
    yield _clock_skew(store, key, now())
    if isinstance(store, S3Store):
        yield _multipart(store, f"{prefix}/multipart")
        yield try_trailing_check(store, f"{prefix}/trailing")
    yield _deleting(store, key, prefix)


def _right(name: str, do: Callable[[], object], found: str) -> Check:
    """Whether these keys may do it."""
    try:
        do()
    except ObjectMissing:
        # It could not be put; that it may be asked for is all that there is to see.
        return Check(name, "ok", "allowed; there was no object")
    except StoreDenied as error:
        return Check(name, "fail", str(error), f"give the user of these keys the right to {name} objects in the bucket")
    except StoreError as error:
        return Check(name, "fail", str(error), "mend what it says and run this again")
    return Check(name, "ok", found)


def _same(found: bytes, expected: bytes, store: ObjectStore, key: str) -> None:
    if found != expected:
        raise ObjectCorrupt(
            f"{store.url}: {key}: expected {len(expected):,} bytes as written, found {len(found):,} others"
        )


def _listing(store: ObjectStore, prefix: str) -> Check:
    """What was just written must be listed, in order: else a day would be archived without its newest chunks."""
    names = [f"{prefix}/listed/{name}" for name in ("a-b", "a/b", "a0", "b/1", "b/10", "b/2")]
    try:
        for name in names:
            store.put(name, b"x")
        found = [info.key for info in store.list(f"{prefix}/listed/")]
    except StoreError as error:
        return Check("list after write", "fail", str(error), "mend what it says and run this again")
    missing = sorted(set(names) - set(found))
    if missing:
        return Check(
            "list after write",
            "fail",
            f"{len(missing)} of {len(names)} objects are not listed right after they were written",
            "use a store whose listings are consistent: an archive of this one could miss chunks",
        )
    if found != sorted(names):
        return Check(
            "list after write", "warn", "all are listed, but not in the order of their keys", "nothing: we sort"
        )
    return Check("list after write", "ok", f"{len(names)} of {len(names)} at once, in order")


def _ranges(store: ObjectStore, key: str) -> Check:
    try:
        parts = (
            store.get_range(key, 10, 20),
            store.get_range(key, len(BODY) - 5, 100),
            store.get_range(key, len(BODY), 1),
        )
    except StoreError as error:
        return Check("range reads", "fail", str(error), "use a store that does them: large objects are read in parts")
    if parts != (BODY[10:30], BODY[-5:], b""):
        return Check("range reads", "fail", "parts of an object came back as other bytes", "use another store")
    return Check("range reads", "ok", "in the middle, over the end, behind it")


def _conditions(store: ObjectStore, key: str) -> Check:
    fix = "use a store that does conditional puts, and one archiver at a time until then"
    try:
        etag = store.put(key, b"one", only_if_absent=True)
        ignored = []
        if not _conflicts(lambda: store.put(key, b"two", only_if_absent=True)):
            ignored.append("If-None-Match")
        etag = store.put(key, b"three", only_if_match=store.head(key).etag) if ignored else etag
        newer = store.put(key, b"four", only_if_match=etag)
        if not _conflicts(lambda: store.put(key, b"five", only_if_match=etag)):
            ignored.append("If-Match")
        elif not newer or store.get(key) != b"four":
            ignored.append("If-Match (it wrote and refused)")
    except ConditionUnsupported as error:
        return Check("conditional puts", "fail", str(error), fix)
    except StoreError as error:
        return Check("conditional puts", "fail", str(error), "mend what it says and run this again")
    if ignored:
        return Check(
            "conditional puts", "fail", f"it ignores {' and '.join(ignored)}: the second of two writers wins", fix
        )
    return Check("conditional puts", "ok", "If-None-Match and If-Match are kept")


def _conflicts(do: Callable[[], object]) -> bool:
    try:
        do()
    except PutConflict:
        return True
    return False


def _clock_skew(store: ObjectStore, key: str, now: float) -> Check:
    try:
        theirs = store.server_time() if isinstance(store, S3Store) else store.head(key).modified
    except StoreError as error:
        return Check("clock", "fail", str(error), "mend what it says and run this again")
    if theirs is None:
        return Check("clock", "warn", "the store does not say what time it is", "see to it that its host uses NTP")
    return judge_skew(theirs.timestamp() - now)


def judge_skew(skew_s: float) -> Check:
    """The store's clock against ours, in seconds."""
    found = f"the store's clock is {skew_s:+.0f} s off this host's"
    fix = "synchronise both with NTP: timedatectl set-ntp true"
    if abs(skew_s) >= SKEW_FAIL_S:
        return Check("clock", "fail", f"{found}: signed requests are refused", fix)
    if abs(skew_s) >= SKEW_WARN_S:
        return Check("clock", "warn", found, fix)
    return Check("clock", "ok", found)


def _multipart(store: S3Store, key: str) -> Check:
    body = BODY * (MULTIPART_BYTES // len(BODY)) + b"the last part is short"
    small = store.in_parts(MULTIPART_BYTES)
    try:
        with tempfile.TemporaryDirectory(prefix="oc-preflight-") as folder:
            path = Path(folder, "body")
            path.write_bytes(body)
            small.put_file(key, path)
        _same(store.get(key), body, store, key)
    except StoreError as error:
        return Check(
            "multipart", "fail", str(error), "give the right to upload in parts, or use a store that does them"
        )
    return Check("multipart", "ok", "two parts, came back as they were written")


def try_trailing_check(store: S3Store, key: str) -> Check:
    """Whether uploads with trailing checksums arrive as they were meant."""
    try:
        status, found = try_trailing(store, key, BODY)
    except StoreError as error:
        return Check("trailing checksums", "warn", str(error), "nothing for us: we do not use them")
    return judge_trailing(status, found, BODY)


def judge_trailing(status: int, found: bytes | None, expected: bytes) -> Check:
    """``status`` of the upload, and what a read gave after it (None where it was refused)."""
    if status >= 300 or found is None:
        return Check(
            "trailing checksums",
            "warn",
            f"refused ({status}): programs with a newer AWS SDK cannot write here by default",
            "run Loki 3.7.8 or newer, which does not use them; set request_checksum_calculation to when_required elsewhere",
        )
    if found != expected:
        framed = b"x-amz-checksum" in found or b"\r\n" in found
        what = "the framing of the upload is kept as content" if framed else "other bytes came back"
        return Check(
            "trailing checksums",
            "fail",
            f"{what}: {len(found):,} bytes for {len(expected):,}; Loki 3.7.3 to 3.7.6 corrupts its chunks on such a store",
            "upgrade the store, and run Loki 3.7.8 or newer before it writes here",
        )
    return Check("trailing checksums", "ok", "came back as they were written")


def _deleting(store: ObjectStore, key: str, prefix: str) -> Check:
    right = _right("delete", lambda: store.delete(key), "gone from get and list at once")
    if right.level != "ok":
        return right
    if any(info.key == key for info in store.list(f"{prefix}/")):
        return Check("delete", "warn", "a deleted object is still listed", "nothing: it is asked for again before use")
    return right


def _clean(store: ObjectStore, prefix: str) -> None:
    try:
        for info in list(store.list(f"{prefix}/")):
            store.delete(info.key)
    except StoreError:
        # That it cannot be listed or deleted is among the rows.
        return
