"""What an S3 server says, as errors that say what to do. Servers differ in codes: status and code are both looked at."""

from __future__ import annotations

from onecollector_resources.storage.objects import (
    ConditionUnsupported,
    ObjectKeyError,
    ObjectMissing,
    PutConflict,
    S3Access,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreGone,
)

FULL = (
    "QuotaExceeded",
    "EntityTooLargeForQuota",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "ServiceQuotaExceeded",
)
"""Codes of several servers for: no room."""

DENIED = (
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "XAdminUserNotFound",
)

NO_KEY = ("KeyTooLongError", "InvalidURI", "XMinioInvalidObjectName", "ExistingObjectIsDirectory", "ObjectParentIsFile")
"""The last two: a server on a file system cannot have both an object a and an object a/b."""

LACKS = ("NotImplemented", "MethodNotAllowed")


def said_by(error: Exception) -> tuple[int, str, str]:
    """Status, code and message of a ClientError; 0 and empty where there was no answer."""
    answer = getattr(error, "response", None)
    if not isinstance(answer, dict):
        return 0, "", str(error)
    found = answer.get("Error", {})
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return status, str(found.get("Code", "")), str(found.get("Message", ""))


def store_error(error: Exception, what: str, access: S3Access) -> StoreError:
    """The error to raise: ``what`` says which thing could not be done to which key of which bucket."""
    status, code, message = said_by(error)
    said = f"{what}: {code} ({status}) {message}".rstrip()
    if not status:
        return StoreGone(
            f"{what}: no answer from {access.endpoint}: {type(error).__name__}: {error}; is it up, and is the endpoint right?"
        )
    if status == 507 or code in FULL:
        return StoreFull(f"{said}; nothing was written; make room and run it again")
    if code == "RequestTimeTooSkewed":
        return StoreDenied(f"{said}; this host's clock is off: timedatectl set-ntp true")
    if code == "NoSuchBucket":
        return StoreGone(f"{said}; make the bucket, or mend its name")
    if status == 412 or code in ("PreconditionFailed", "ConditionalRequestConflict"):
        return PutConflict(f"{said}; somebody else wrote it; read it and decide anew")
    if status == 501 or code in LACKS:
        return ConditionUnsupported(f"{said}; this store does not do that request; see: onecollector storage check")
    if status in (401, 403) or code in DENIED:
        return StoreDenied(
            f"{said}; check the keys in ${access.access_key_env} and ${access.secret_key_env}, and what the bucket lets them do"
        )
    if status == 404 or code in ("NoSuchKey", "NotFound"):
        return ObjectMissing(said)
    if code in NO_KEY:
        return ObjectKeyError(f"{said}; choose another key")
    if status >= 500:
        return StoreGone(f"{said}; the store is not well, or its disk is full; run it again when it is")
    return StoreError(said)
