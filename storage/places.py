"""Where a job's files go: the operator's S3, a tenant's bucket, or the one a request names; and URLs signed for it."""

import hashlib
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import IO, Any
from urllib.parse import quote

from django.conf import settings

from storage.models import Bucket
from storage.providers import PREFIX, S3_BUCKET, read_addressing
from worker.place import resolve_bucket
from worker.wire import UrlRefused, check_url


class BucketRefused(ValueError):
    """S3 settings in a request that cannot be used; the message says what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An S3 bucket, a prefix in it, and who signs. `trusted`: the operator's own, so no guard on its address.

    `public_url`: what URLs for reading begin with, "" for the endpoint; without `signed_urls` everybody may read there.
    """

    endpoint_url: str
    region: str
    s3_bucket: str
    prefix: str
    addressing: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    trusted: bool = False
    public_url: str = ""
    signed_urls: bool = True


def operators_place(*, public: bool = True) -> Place:
    """The operator's S3, as clients and workers reach it, or as this process does."""
    return Place(
        endpoint_url=settings.S3_PUBLIC_URL if public else settings.S3_ENDPOINT_URL,
        region=settings.S3_REGION,
        s3_bucket=settings.S3_BUCKET,
        prefix="",
        addressing=settings.S3_ADDRESSING_STYLE,
        access_key_id=settings.S3_ACCESS_KEY_ID,
        secret_access_key=settings.S3_SECRET_ACCESS_KEY,
        trusted=True,
    )


def tenants_place(bucket: Bucket) -> Place:
    return Place(
        endpoint_url=bucket.endpoint_url,
        region=bucket.region,
        s3_bucket=bucket.s3_bucket,
        prefix=bucket.prefix,
        addressing=bucket.addressing,
        access_key_id=bucket.access_key_id,
        secret_access_key=bucket.secret_access_key.unseal(),
        public_url=bucket.public_url,
        signed_urls=bucket.signed_urls,
    )


def request_bucket(given: Any) -> Place:
    """The S3 bucket of a request's `tobucket` or `s3Config`. Raises BucketRefused."""
    if not isinstance(given, Mapping):
        raise BucketRefused("must be an object with endpointUrl, accessId, accessSecret, bucketName")
    texts = {name: given.get(name, "") for name in ("endpointUrl", "accessId", "accessSecret", "bucketName")}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > 2048 or (not text and name != "bucketName"):
            raise BucketRefused(f"`{name}` must be a string of 1 to 2048 characters")
    try:
        check_url(texts["endpointUrl"].strip("` "), settings.URL_ALLOW)
        place = resolve_bucket(texts["endpointUrl"], texts["bucketName"])
    except UrlRefused as error:
        raise BucketRefused(f"`endpointUrl`: {error}") from error
    except ValueError as error:
        raise BucketRefused(str(error)) from error
    if not S3_BUCKET.fullmatch(place.bucket) or not PREFIX.fullmatch(place.prefix):
        raise BucketRefused("`bucketName` must be an S3 bucket's name, or a key prefix of at most 500 plain characters")
    return Place(
        endpoint_url=place.endpoint_url,
        region=place.region,
        s3_bucket=place.bucket,
        prefix=place.prefix,
        addressing=read_addressing(place, ""),
        access_key_id=texts["accessId"],
        secret_access_key=texts["accessSecret"],
    )


_making = threading.Lock()


def client(place: Place) -> Any:
    """The boto3 client of a place, made once: it costs 0.1 s, and all threads of a new web process want one at once."""
    with _making:
        return _client(place)


@lru_cache(maxsize=256)
def _client(place: Place) -> Any:
    """Without newer checksums, which R2 and Google's S3 refuse."""
    import boto3  # here, since it takes 10 MB, and half of Hearth's processes never come to S3
    from botocore.config import Config

    from storage.guarded import CONNECT_S, READ_S, session

    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": place.addressing},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"total_max_attempts": 2},
    )
    made = boto3.session.Session().client(
        "s3",
        endpoint_url=place.endpoint_url,
        region_name=place.region,
        aws_access_key_id=place.access_key_id,
        aws_secret_access_key=place.secret_access_key,
        config=config,
    )
    made.meta.events.register_last("before-parameter-build.s3", _stay)
    if not place.trusted:
        made.meta.events.register("before-send.s3", lambda request, **_: session(trusted=False).send(request))
    return made


def _stay(context: dict[str, Any], **_: Any) -> None:
    """Keep boto3 from asking in another region when S3 says that this is the wrong one: URLs would be signed for the
    wrong one all the same, and a server that says so to each question was asked until Python's stack was full."""
    context["s3_redirect"]["redirected"] = True


def full_key(place: Place, key: str) -> str:
    return f"{place.prefix}/{key}" if place.prefix else key


def sign_put(
    place: Place, key: str, *, content_type: str, size: int, sha256: str | None = None
) -> tuple[str, dict[str, str]]:
    """A URL for one PUT of exactly so many bytes of that type, and the headers it must carry. With `sha256`: of those
    bytes alone, where S3 knows checksums, and only while there is nothing under the key."""
    params: dict[str, Any] = {"Bucket": place.s3_bucket, "Key": key, "ContentType": content_type, "ContentLength": size}
    headers = {"Content-Type": content_type, "Content-Length": str(size)}
    if sha256 is not None:
        params |= {"ChecksumSHA256": checksum(sha256), "IfNoneMatch": "*"}
        headers |= {"x-amz-checksum-sha256": checksum(sha256), "If-None-Match": "*"}
    lifetime = settings.UPLOAD_URL_LIFETIME
    url = client(place).generate_presigned_url("put_object", params, ExpiresIn=int(lifetime.total_seconds()))
    return url, headers


def checksum(sha256: str) -> str:
    """64 hex digits as S3 writes them."""
    return b64encode(bytes.fromhex(sha256)).decode()


def sign_get(place: Place, key: str, lifetime: timedelta) -> str:
    """A URL to read it by, below the place's public URL if it has one."""
    if place.public_url:
        return _public_get(place, key, lifetime)
    params = {"Bucket": place.s3_bucket, "Key": key}
    url: str = client(place).generate_presigned_url("get_object", params, ExpiresIn=int(lifetime.total_seconds()))
    return url


def _public_get(place: Place, key: str, lifetime: timedelta) -> str:
    """boto3 signs for endpoints only; a domain that stands for an S3 bucket signs as any host, by name and path."""
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = f"{place.public_url}/{quote(key, safe='/~')}"
    if not place.signed_urls:
        return url
    request = AWSRequest("GET", url)
    who = Credentials(place.access_key_id, place.secret_access_key)
    S3SigV4QueryAuth(who, "s3", place.region, expires=int(lifetime.total_seconds())).add_auth(request)
    return str(request.url)


def put_object(place: Place, key: str, body: IO[bytes], *, content_type: str) -> None:
    """Raises botocore's errors."""
    client(place).put_object(Bucket=place.s3_bucket, Key=key, Body=body, ContentType=content_type)


CHUNK_BYTES = 1024**2


def measured(place: Place, key: str) -> tuple[int, str] | None:
    """Bytes and SHA-256 of the object that S3 has there, or None. Raises botocore's errors.

    What S3 has checked itself is believed; where it knows no checksums the object is read.
    """
    s3 = client(place)
    try:
        head = s3.head_object(Bucket=place.s3_bucket, Key=key, ChecksumMode="ENABLED")
        if told := head.get("ChecksumSHA256"):
            return head["ContentLength"], b64decode(told).hex()
        body = s3.get_object(Bucket=place.s3_bucket, Key=key)["Body"]
    except s3.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise
    digest, size = hashlib.sha256(), 0
    for chunk in body.iter_chunks(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def delete_objects(place: Place, keys: Iterable[str]) -> None:
    """Delete these keys; those that are not there are no error. Raises botocore's errors."""
    for key in keys:
        client(place).delete_object(Bucket=place.s3_bucket, Key=key)
