"""Objects in a bucket, by boto3.

Checksums are end to end: a put sends the MD5 that the store checks, and keeps the sha256 with the object; a get checks
it. Trailing checksums are off: some stores take their framing for content. A put whose answer was lost is known again
by a mark of its own, so a retry of a conditional put does not lose against itself.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from onecollector_resources.storage.objects import (
    ObjectCorrupt,
    ObjectInfo,
    ObjectMissing,
    PutConflict,
    S3Access,
    StoreDenied,
    StoreError,
    StoreGone,
    checked_key,
)
from onecollector_resources.storage.s3_errors import said_by, store_error

SHA256, PUT = "oc-sha256", "oc-put"
"""Metadata of each object of ours: its checksum, and which put wrote it."""

MULTIPART_BYTES = 64 << 20
PART_BYTES = 16 << 20
MOST_PARTS = 9_000
"""S3 takes 10,000."""

ATTEMPTS = 5
CONNECT_S, READ_S = 5, 60


def s3_client(access: S3Access, environment: Mapping[str, str], *, attempts: int = ATTEMPTS) -> Any:
    """A boto3 client. Raises StoreDenied where a variable that holds a key is not set."""
    import boto3
    from botocore.config import Config

    missing = [name for name in (access.access_key_env, access.secret_key_env) if not environment.get(name)]
    if missing:
        raise StoreDenied(
            f"the S3 store at {access.endpoint} needs its keys; not set: {', '.join(missing)}. Export them"
        )
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url(access),
        region_name=access.region,
        aws_access_key_id=environment[access.access_key_env],
        aws_secret_access_key=environment[access.secret_key_env],
        config=Config(
            retries={"mode": "standard", "max_attempts": attempts},
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
            max_pool_connections=32,
        ),
    )


def endpoint_url(access: S3Access) -> str:
    """The endpoint with its scheme."""
    if re.match(r"https?://", access.endpoint):
        return access.endpoint
    return f"{'http' if access.insecure else 'https'}://{access.endpoint}"


class S3Store:
    """Objects of ``bucket`` whose key begins with ``prefix``. Raises StoreDenied where the keys are not set."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        access: S3Access,
        *,
        environment: Mapping[str, str],
        attempts: int = ATTEMPTS,
        multipart_bytes: int = MULTIPART_BYTES,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.bucket, self._before = bucket, f"{prefix}/" if prefix else ""
        self.access, self.environment = access, environment
        self._multipart_bytes, self._part_bytes = multipart_bytes, part_bytes
        self._s3 = s3_client(access, environment, attempts=attempts)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self._before}".rstrip("/")

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with ``prefix``, a page of 1,000 at a time."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._before + prefix)
        with self._told("listed", prefix or "its root"):
            for page in pages:
                for row in page.get("Contents", ()):
                    key = row["Key"][len(self._before) :]
                    if not key.endswith("/"):
                        yield ObjectInfo(key, row["Size"], row["LastModified"].astimezone(UTC), _etag(row))

    def head(self, key: str) -> ObjectInfo:
        """Raises ObjectMissing."""
        answer = self._head(key)
        return ObjectInfo(key, answer["ContentLength"], answer["LastModified"].astimezone(UTC), _etag(answer))

    def _head(self, key: str) -> Any:
        with self._told("read", key):
            return self._s3.head_object(**self._at(key))

    def get(self, key: str) -> bytes:
        """Raises ObjectMissing, ObjectCorrupt."""
        parts: list[bytes] = []
        self._read(key, parts.clear, parts.append)
        return b"".join(parts)

    def get_file(self, key: str, path: Path) -> None:
        """Raises ObjectMissing, ObjectCorrupt, OSError."""
        beside = path.with_name(f".oc-{secrets.token_hex(8)}")
        try:
            with beside.open("xb") as out:

                def again() -> None:
                    out.seek(0)
                    out.truncate()

                self._read(key, again, out.write)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def _read(self, key: str, begin: Callable[[], object], take: Callable[[bytes], object]) -> None:
        """Stream an object and check it; where the stream breaks off ``begin`` is called and it starts again."""
        import stamina

        with self._told("read", key):
            for attempt in stamina.retry_context(on=_broken_off, attempts=3, timeout=None, wait_initial=0.2):
                with attempt:
                    begin()
                    answer = self._s3.get_object(**self._at(key))
                    digest, size = hashlib.sha256(), 0
                    for part in answer["Body"].iter_chunks(1 << 20):
                        digest.update(part)
                        size += len(part)
                        take(part)
                    expected = answer.get("Metadata", {}).get(SHA256)
                    if expected is not None and digest.hexdigest() != expected:
                        raise ObjectCorrupt(
                            f"{self.url}: {key}: expected sha256 {expected}, found {digest.hexdigest()} "
                            f"({size:,} bytes); bring it back from a copy"
                        )

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Raises ObjectMissing."""
        import stamina

        if length <= 0:
            self.head(key)
            return b""
        with self._told("read", key):
            for attempt in stamina.retry_context(on=_broken_off, attempts=3, timeout=None, wait_initial=0.2):
                with attempt:
                    try:
                        answer = self._s3.get_object(**self._at(key), Range=f"bytes={start}-{start + length - 1}")
                    except self._s3.exceptions.ClientError as error:
                        if said_by(error)[0] == 416:
                            return b""
                        raise
                    if answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
                        raise StoreError(
                            f"{self.url}: {key}: expected a part of it (206), found the store's answer "
                            f"{answer['ResponseMetadata']['HTTPStatusCode']}: it does not do range reads; use another store"
                        )
                    return answer["Body"].read()
        raise AssertionError("unreachable")

    def put(self, key: str, data: bytes, *, only_if_absent: bool = False, only_if_match: str | None = None) -> str:
        """Raises PutConflict, ConditionUnsupported, StoreDenied, StoreGone, StoreFull."""
        mark = secrets.token_hex(8)
        condition = {"IfNoneMatch": "*"} if only_if_absent else {}
        if only_if_match is not None:
            condition["IfMatch"] = f'"{only_if_match}"'
        try:
            with self._told("written", key):
                answer = self._s3.put_object(
                    **self._at(key),
                    Body=data,
                    ContentMD5=_md5(data),
                    Metadata={SHA256: hashlib.sha256(data).hexdigest(), PUT: mark},
                    **condition,
                )
        except PutConflict:
            # Perhaps of our own earlier try, whose answer did not arrive.
            with suppress(ObjectMissing):
                there = self._head(key)
                if there.get("Metadata", {}).get(PUT) == mark:
                    return _etag(there)
            raise
        except ObjectMissing:
            if only_if_match is None:
                raise
            raise PutConflict(f"{self.url}: {key}: expected version {only_if_match}, found no object") from None
        return _etag(answer)

    def put_file(self, key: str, path: Path) -> str:
        """In parts from 64 MiB on. Raises as ``put``; OSError for the file that is read."""
        size = path.stat().st_size
        if size < self._multipart_bytes:
            return self.put(key, path.read_bytes())
        with path.open("rb") as file:
            expected = hashlib.file_digest(file, "sha256").hexdigest()
        metadata = {SHA256: expected, PUT: secrets.token_hex(8)}
        part_bytes = max(self._part_bytes, math.ceil(size / MOST_PARTS))
        with self._told("written", key):
            upload = self._s3.create_multipart_upload(**self._at(key), Metadata=metadata)["UploadId"]
            try:
                with path.open("rb") as file:
                    parts = self._upload_parts(key, upload, file.read, part_bytes, expected)
                return _etag(
                    self._s3.complete_multipart_upload(
                        **self._at(key), UploadId=upload, MultipartUpload={"Parts": parts}
                    )
                )
            except BaseException:
                # Parts without their end cost money and are shown by no listing.
                with suppress(self._s3.exceptions.ClientError):
                    self._s3.abort_multipart_upload(**self._at(key), UploadId=upload)
                raise

    def _upload_parts(
        self, key: str, upload: str, read: Callable[[int], bytes], part_bytes: int, expected: str
    ) -> list[dict[str, Any]]:
        parts, digest = [], hashlib.sha256()
        while data := read(part_bytes):
            digest.update(data)
            answer = self._s3.upload_part(
                **self._at(key), UploadId=upload, PartNumber=len(parts) + 1, Body=data, ContentMD5=_md5(data)
            )
            parts.append({"PartNumber": len(parts) + 1, "ETag": answer["ETag"]})
        if digest.hexdigest() != expected:
            raise StoreError(
                f"{self.url}: {key}: the file changed while it was read; nothing was written; run it again"
            )
        return parts

    def delete(self, key: str) -> None:
        with self._told("deleted", key), suppress(ObjectMissing):
            self._s3.delete_object(**self._at(key))

    def sweep(self, before: datetime) -> int:
        """Abort uploads in parts that began before then; answers how many."""
        removed = 0
        with self._told("listed", "its unfinished uploads"):
            pages = self._s3.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._before):
                for row in page.get("Uploads", ()):
                    if row["Initiated"] < before:
                        self._s3.abort_multipart_upload(Bucket=self.bucket, Key=row["Key"], UploadId=row["UploadId"])
                        removed += 1
        return removed

    def server_time(self) -> datetime | None:
        """The store's clock, to the second; None where it does not tell."""
        with self._told("asked for", "the time"):
            answer = self._s3.head_bucket(Bucket=self.bucket)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date) if date else None

    def in_parts(self, part_bytes: int) -> S3Store:
        """The same store that writes every file in parts of this size; S3 takes none under 5 MiB but the last."""
        return S3Store(
            self.bucket,
            self._before.rstrip("/"),
            self.access,
            environment=self.environment,
            multipart_bytes=0,
            part_bytes=part_bytes,
        )

    def at(self, key: str) -> str:
        """The key in the bucket. Raises ObjectKeyError."""
        return self._before + checked_key(key)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.at(key)}

    @contextmanager
    def _told(self, done: str, what: str) -> Iterator[None]:
        """boto3's errors as ours."""
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (BotoCoreError, ClientError, HTTPError) as error:
            raise self._translated(error, done, what) from error

    def _translated(self, error: Exception, done: str, what: str) -> StoreError:
        found = store_error(error, f"{self.url}: {what} cannot be {done}", self.access)
        if isinstance(found, ObjectMissing) and not self._bucket_there():
            # A HEAD's 404 has no body that tells a missing object from a missing bucket.
            return StoreGone(
                f"{self.url}: expected the bucket {self.bucket}, found none at {self.access.endpoint}; make it"
            )
        return found

    def _bucket_there(self) -> bool:
        try:
            self._s3.head_bucket(Bucket=self.bucket)
        except self._s3.exceptions.ClientError as error:
            return said_by(error)[0] != 404
        return True


def _broken_off(error: Exception) -> bool:
    """Whether the stream of an answer ended too early: boto3 retries requests, not bodies."""
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError
    from urllib3.exceptions import HTTPError

    return isinstance(error, IncompleteReadError | ReadTimeoutError | ResponseStreamingError | HTTPError)


def _etag(answer: Mapping[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
