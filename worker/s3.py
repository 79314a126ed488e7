"""What went wrong between this worker and S3, told apart: whether trying again helps, and what a person can do."""

import os
import re
import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp

from worker.wire import UrlRefused


@dataclass(frozen=True, kw_only=True)
class Kind:
    """again: the same request may work a moment later."""

    what: str
    again: bool = False


KINDS = {
    "upload_unreachable": Kind(what="S3 is away or unwell; see whether it runs and can be reached", again=True),
    "upload_slow": Kind(what="S3 is too slow, or the way to it", again=True),
    "upload_full": Kind(what="S3 has no room left; make some, or raise the quota", again=True),
    "upload_dns": Kind(what="the name of the S3 host is not known; see the endpoint URL and the DNS", again=True),
    "upload_tls": Kind(what="the S3 host shows no certificate that is valid; see it, and the endpoint URL"),
    "upload_address": Kind(what="the bucket's address is refused; a bucket must be at a public https address"),
    "upload_refused": Kind(what="the bucket's key may not write there; see its id, its secret and its rights"),
    "upload_no_bucket": Kind(what="there is no such S3 bucket; see its name, or make it anew"),
    "upload_region": Kind(what="the S3 bucket is in another region, or at another endpoint; set the bucket's region"),
    "upload_clock": Kind(what="the clocks of Hearth and S3 differ by minutes; set them by NTP"),
    "upload_failed": Kind(what="S3 did not take it"),
}
"""By the code that a job fails with."""

WORDS = {
    "upload_refused": "AccessDenied AllAccessDisabled InvalidAccessKeyId SignatureDoesNotMatch InvalidToken"
    " ExpiredToken RequestExpired NotSignedUp AccountProblem UnauthorizedAccess Unauthorized",
    "upload_full": "InsufficientStorage InsufficientStorageSpace InsufficientCapacity QuotaExceeded StorageFull"
    " StorageCapExceeded XMinioStorageFull XMinioAdminBucketQuotaExceeded",
    "upload_region": "PermanentRedirect TemporaryRedirect AuthorizationHeaderMalformed InvalidRegion",
    "upload_unreachable": "SlowDown InternalError ServiceUnavailable OperationAborted Busy",
    "upload_slow": "RequestTimeout",
    "upload_clock": "RequestTimeTooSkewed",
    "upload_no_bucket": "NoSuchBucket",
}
"""S3's own words; those of other makers than AWS are of MinIO, Ceph and Backblaze."""
CODE_OF = {word: code for code, words in WORDS.items() for word in words.split()}
STATUSES = {
    "upload_region": (301, 307, 308),
    "upload_refused": (401, 403),
    "upload_full": (507,),
    "upload_slow": (408,),
    "upload_unreachable": (429, *range(500, 600)),
}
"""Where S3 says no word that is known; the first that has the status counts."""
TIMEOUTS = ("ConnectTimeoutError", "ReadTimeoutError", "TimeoutError")


class S3Fault(Exception):
    """code: of KINDS. expired: the URL was too old, or S3's clock is far ahead. refused: a new slot may help, since the
    bucket's key may have been replaced after this one was signed."""

    def __init__(self, code: str, said: str, *, expired: bool = False) -> None:
        super().__init__(f"{KINDS[code].what} ({said})")
        self.code = code
        self.said = said
        self.again = KINDS[code].again
        self.expired = expired
        self.refused = code == "upload_refused"


def of_answer(status: int, reason: str, body: str, headers: Any = None) -> S3Fault:
    """body: the beginning of S3's XML."""
    word, message = _tag("Code", body), _tag("Message", body)
    said = f"S3 answered {status} {word or reason}".strip()
    if region := _tag("Region", body) or (headers or {}).get("x-amz-bucket-region") or _tag("Endpoint", body):
        said += f", it is at {region}"
    expired = word in ("ExpiredToken", "RequestExpired") or "expired" in message.lower()
    return S3Fault(_code(status, word), said, expired=expired and status in (400, 403))


def of_hearths(status: int, word: str) -> S3Fault:
    """What S3 answered to Hearth, which asked for the worker; status 0: nothing, and the word is an error's name."""
    if status:
        return S3Fault(_code(status, word), f"S3 answered {status} {word} to Hearth")
    code = "upload_slow" if word in TIMEOUTS else "upload_tls" if "SSL" in word else "upload_unreachable"
    return S3Fault(code, f"Hearth has no connection to it: {word}")


def of_exception(error: Exception) -> S3Fault:
    """No exception's own text, which could hold the signed URL, but for what the system says."""
    name = type(error).__name__
    if isinstance(error, UrlRefused):
        return S3Fault("upload_address", str(error))
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        told = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or name
        return S3Fault("upload_tls", str(told)[:200])
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return S3Fault("upload_dns", f"no address for {error.host}")
    if isinstance(error, TimeoutError):
        return S3Fault("upload_slow", name)
    if isinstance(error, aiohttp.ClientConnectorError):
        return S3Fault("upload_unreachable", f"no connection: {os.strerror(error.os_error.errno or 0)}")
    return S3Fault("upload_unreachable", f"the connection broke: {name}")


def _code(status: int, word: str) -> str:
    by_status = (code for code, statuses in STATUSES.items() if status in statuses)
    return CODE_OF.get(word) or next(by_status, "upload_failed")


def _tag(name: str, body: str) -> str:
    found = re.search(rf"<{name}>([^<]{{1,200}})</{name}>", body)
    return found[1] if found else ""
