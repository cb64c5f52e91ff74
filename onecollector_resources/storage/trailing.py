"""An upload with its checksum behind the body, as newer AWS SDKs send it, to see what a store makes of it.

boto3 itself does so on HTTPS alone, so the request is built here: the body in one frame, then the checksum, signed as
a payload that is not signed. A store that does not know the form keeps the frame as content, and answers 200.
"""

from __future__ import annotations

import base64
import zlib
from urllib.parse import quote

import httpx

from onecollector_resources.storage.objects import ObjectMissing, StoreGone
from onecollector_resources.storage.s3_store import S3Store, endpoint_url

CHECKSUM = "x-amz-checksum-crc32"


def framed(body: bytes) -> bytes:
    """The body as ``aws-chunked`` with a trailing crc32."""
    checksum = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    return b"%x\r\n%b\r\n0\r\n%b:%b\r\n\r\n" % (len(body), body, CHECKSUM.encode(), checksum.encode())


def try_trailing(store: S3Store, key: str, body: bytes) -> tuple[int, bytes | None]:
    """Status of the upload, and what a read gives after it; None where it was refused. Raises StoreError."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    data, access = framed(body), store.access
    url = f"{endpoint_url(access).rstrip('/')}/{store.bucket}/{quote(store.at(key), safe='/~')}"
    request = AWSRequest(
        "PUT",
        url,
        {
            "Content-Encoding": "aws-chunked",
            "Content-Length": str(len(data)),
            "X-Amz-Decoded-Content-Length": str(len(body)),
            "X-Amz-Trailer": CHECKSUM,
        },
        data,
    )
    request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    keys = Credentials(store.environment[access.access_key_env], store.environment[access.secret_key_env])
    S3SigV4Auth(keys, "s3", access.region).add_auth(request)
    try:
        answer = httpx.put(url, content=data, headers=dict(request.headers.items()), timeout=60)
    except httpx.HTTPError as error:
        raise StoreGone(f"{store.url}: an upload with a trailing checksum broke off: {error}") from error
    if answer.status_code >= 300:
        return answer.status_code, None
    try:
        return answer.status_code, store.get(key)
    except ObjectMissing:
        return answer.status_code, b""
