"""What S3 refused, told apart: which setting, permission or clock it is, and what to do.

S3's own words differ by maker (Amazon, R2, B2, Google, MinIO, SeaweedFS); of its answers only Code and Message are
repeated, as the rest holds the access key's id and what was signed. No exception's text is: it may hold a signed URL.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import NameResolutionError

from storage.places import Place
from storage.providers import VIRTUAL
from worker.wire import UrlRefused

S3_ERRORS = (boto.ClientError, boto.BotoCoreError, ResponseParserError)


class S3Fault(Exception):
    """kind: one of KINDS. The text is for a person; it shows no secret."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.again = kind in AGAIN


AGAIN = ("unreachable", "slow", "busy")  # the same request may work a moment later
KINDS = (*AGAIN, "address", "name", "key", "signature", "permission", "region", "clock", "full", "tls", "other")


@dataclass(frozen=True)
class Action:
    """What was tried, and Amazon's word for the permission to do it; on objects, or on the S3 bucket itself."""

    verb: str
    permission: str
    on_objects: bool = True


WRITE, READ, DELETE, ABORT, LIST = (
    Action("write", "s3:PutObject"),
    Action("read", "s3:GetObject"),
    Action("delete", "s3:DeleteObject"),
    Action("drop uploads in parts", "s3:AbortMultipartUpload"),
    Action("list", "s3:ListBucket, s3:ListBucketMultipartUploads", on_objects=False),
)


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer of S3: its status, the tags of its error, its headers by lower-cased name."""

    status: int
    tags: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def tag(self, name: str) -> str:
        return "".join(char for char in str(self.tags.get(name) or "") if char.isprintable())[:200]

    @property
    def code(self) -> str:
        """ "" where it said none of its own: boto3 then gives the status."""
        code = self.tag("Code")
        return "" if code.isdigit() else code

    @property
    def region(self) -> str:
        message = self.tag("Message")
        expected = re.search(r"expecting '([A-Za-z0-9-]{1,50})'|should be '?([A-Za-z0-9-]{1,50})", message)
        told = self.tag("Region") or self.headers.get("x-amz-bucket-region", "")
        return told or (expected and (expected[1] or expected[2])) or ""

    def words(self) -> str:
        return f"{self.status} {self.code} {self.tag('Message')}".strip()


CODES = {
    "name": "NoSuchBucket InvalidBucketName",
    "key": "InvalidAccessKeyId Unauthorized UnauthorizedAccess NotSignedUp InvalidSecurity InvalidToken",
    "signature": "SignatureDoesNotMatch",
    "clock": "RequestTimeTooSkewed RequestExpired ExpiredRequest RequestNotYetValid",
    "region": "AuthorizationHeaderMalformed AuthorizationQueryParametersError PermanentRedirect TemporaryRedirect"
    " InvalidRegion InvalidRegionName IllegalLocationConstraintException",
    "permission": "AccessDenied AllAccessDisabled AccountProblem Forbidden",
    "full": "QuotaExceeded InsufficientStorage InsufficientStorageSpace StorageFull StorageCapExceeded"
    " XMinioStorageFull XMinioAdminBucketQuotaExceeded",
    "busy": "SlowDown InternalError ServiceUnavailable OperationAborted Busy RequestTimeout TooManyRequests",
}
KIND_OF = {code: kind for kind, codes in CODES.items() for code in codes.split()}
STATUSES = {301: "region", 307: "region", 308: "region", 401: "key", 403: "permission", 404: "name", 507: "full"}


@contextmanager
def told(place: Place, action: Action) -> Iterator[None]:
    """Raises what S3 refuses inside of it as S3Fault."""
    try:
        yield
    except S3_ERRORS as error:
        raise of_error(error, place, action) from error


def of_answer(answer: Any, place: Place, action: Action) -> S3Fault:
    """answer: botocore's AWSResponse of a signed URL."""
    body = answer.content[:64_000].decode(errors="replace")
    tags = dict(re.findall(r"<(Code|Message|Region|Endpoint)>([^<]{1,500})</\1>", body))
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return _of(Said(status=answer.status_code, tags=tags, headers=headers), place, action)


def of_error(error: Exception, place: Place, action: Action) -> S3Fault:
    """error: one of S3_ERRORS."""
    if not isinstance(error, boto.ClientError):
        return _of_connection(error, place)
    about = error.response.get("ResponseMetadata", {})
    headers = about.get("HTTPHeaders", {})
    return _of(
        Said(status=about.get("HTTPStatusCode", 0), tags=error.response["Error"], headers=headers), place, action
    )


def _of(said: Said, place: Place, action: Action) -> S3Fault:
    kind = _kind(said)
    return S3Fault(kind, _TEXTS[kind](said, place, action))


def _kind(said: Said) -> str:
    message = said.tag("Message").lower()
    if said.code == "AccessDenied" and (
        "expired" in message or "not valid yet" in message or "not yet valid" in message
    ):
        return "clock"
    if said.code == "InvalidArgument" and "region" in message:
        return "region"
    if said.code == "AuthorizationQueryParametersError" and "region" not in message:
        return "other"
    by_status = "busy" if said.status >= 500 or said.status in (408, 429) else "other"
    return KIND_OF.get(said.code) or STATUSES.get(said.status, by_status)


def _name(said: Said, place: Place, action: Action) -> str:
    if said.code != "NoSuchBucket":
        return (
            f"There is no S3 bucket {place.s3_bucket!r}, or no S3, at {place.endpoint_url} ({said.words()}): "
            "correct the endpoint or the S3 bucket's name."
        )
    return f"There is no S3 bucket {place.s3_bucket!r} at {place.endpoint_url}: correct its name, or make it there."


def _key(said: Said, place: Place, action: Action) -> str:
    return (
        f"{_host(place)} does not know the access key ({said.words()}): correct the access key ID, "
        "or the endpoint, if the key is of another account or region."
    )


def _signature(said: Said, place: Place, action: Action) -> str:
    return (
        "The secret access key is not the one of this access key: enter it anew. If it is right, something before "
        f"{_host(place)} changes requests: their host or path is not what was signed."
    )


def _permission(said: Said, place: Place, action: Action) -> str:
    objects = (place.prefix, "*") if action.on_objects else ()
    where = "/".join(part for part in (place.s3_bucket, *objects) if part)
    return (
        f"The access key may not {action.verb} in S3 bucket {place.s3_bucket!r}"
        + (f" below {place.prefix!r}" if place.prefix else "")
        + f" ({said.words()}): allow {action.permission} on arn:aws:s3:::{where}"
    )


def _region(said: Said, place: Place, action: Action) -> str:
    if said.region and said.region != place.region:
        return (
            f"The S3 bucket {place.s3_bucket!r} is in region {said.region!r}, not {place.region!r}: "
            f"set the region {said.region!r}, and the endpoint of that region."
        )
    there = f" It says: {said.tag('Endpoint')}." if said.tag("Endpoint") else ""
    return (
        f"The region {place.region!r} or the endpoint {place.endpoint_url} is not that of S3 bucket "
        f"{place.s3_bucket!r} ({said.words()}).{there} Set both to where the S3 bucket is."
    )


def _clock(said: Said, place: Place, action: Action) -> str:
    return f"{_host(place)} refused the time of the request: {_skew(said)}. Set this machine's clock right, by NTP."


def _skew(said: Said) -> str:
    try:
        there = parsedate_to_datetime(said.headers["date"])
        off_s = round((datetime.now(UTC) - there).total_seconds())
    except (KeyError, ValueError, TypeError):
        return f"the clocks differ by minutes ({said.words()})"
    return f"the clock here is {abs(off_s)} s {'ahead of' if off_s > 0 else 'behind'} its clock"


def _full(said: Said, place: Place, action: Action) -> str:
    return f"{_host(place)} has no room left ({said.words()}): make some, or raise the quota."


def _busy(said: Said, place: Place, action: Action) -> str:
    return f"{_host(place)} is unwell or overloaded ({said.words()}). Try again later."


def _other(said: Said, place: Place, action: Action) -> str:
    hint = "" if said.code else " That is not how S3 answers: see whether the endpoint is that of its API."
    return f"{_host(place)} answered {said.words() or 'nothing that is known'} when asked to {action.verb}.{hint}"


_TEXTS = {
    "name": _name,
    "key": _key,
    "signature": _signature,
    "permission": _permission,
    "region": _region,
    "clock": _clock,
    "full": _full,
    "busy": _busy,
    "other": _other,
}


def _of_connection(error: Exception, place: Place) -> S3Fault:
    host, inner = _host(place), getattr(error, "kwargs", {}).get("error")
    if isinstance(inner, UrlRefused):
        return S3Fault("address", f"{host} is not to be reached: {inner}. A bucket must be at a public address.")
    if isinstance(inner, NameResolutionError):
        hint = ", or choose the addressing path" if place.addressing == VIRTUAL else ""
        return S3Fault("address", f"The name {host} has no address: correct the endpoint{hint}.")
    if isinstance(error, boto.ConnectTimeoutError | boto.ReadTimeoutError):
        return S3Fault("slow", f"{host} did not answer in time: see whether it runs, and what is on the way to it.")
    if isinstance(error, boto.SSLError):
        return S3Fault("tls", f"{host} shows no certificate that is good for it: correct the endpoint, or mend that.")
    if isinstance(error, boto.EndpointConnectionError | boto.ConnectionClosedError):
        return S3Fault("unreachable", f"No connection to {host}: see whether it runs, the port, and https or http.")
    if isinstance(error, ResponseParserError):
        return S3Fault("other", f"{host} does not answer as S3 does: see whether the endpoint is that of its API.")
    return S3Fault("other", f"{host} could not be used ({type(error).__name__}).")


def _host(place: Place) -> str:
    host = urlsplit(place.endpoint_url).netloc
    return f"{place.s3_bucket}.{host}" if place.addressing == VIRTUAL else host
