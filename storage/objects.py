"""What this process asks of S3 itself about one object: whether it is there, and to make one of parts. Nothing here
touches the database."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings

from storage.places import Place, client, delete_objects, operators_place
from worker.wire import Found, Part


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A blob's object, of so many bytes; `place`: as this process reaches it, None if S3 can no longer be asked.
    part_bytes: above 0 it is uploaded in such parts, under upload_id once that has begun."""

    id: UUID
    place: Place | None
    key: str
    bytes: int
    content_type: str = ""
    part_bytes: int = 0
    upload_id: str = ""

    @property
    def where(self) -> dict[str, str]:
        assert self.place
        return {"Bucket": self.place.s3_bucket, "Key": self.key}

    @property
    def s3(self) -> Any:
        return client(self.place) if self.place else None

    def size_of(self, number: int) -> int:
        """Of a part, by its number from 1 on; 0 if it has no such part."""
        return max(0, min(self.part_bytes, self.bytes - (number - 1) * self.part_bytes))


def look(wanted: Wanted) -> Found:
    """Whether it is there, whole. What S3 may not tell (a bucket to write only answers 403) is not known."""
    if wanted.place is None:
        return Found(id=str(wanted.id), there=None)
    try:
        head = wanted.s3.head_object(**wanted.where)
    except (ClientError, BotoCoreError) as error:
        found = _unknown(wanted, error)
        return _absent(wanted) if found.status == 404 else found
    return Found(id=str(wanted.id), there=head["ContentLength"] == wanted.bytes, status=200)


def put(wanted: Wanted, content: bytes) -> Found:
    """Put all of it. there None: S3 did not take it."""
    if wanted.place is None:
        return Found(id=str(wanted.id), there=None, code="BucketUnusable")
    try:
        wanted.s3.put_object(**wanted.where, Body=content, ContentType=wanted.content_type)
    except (ClientError, BotoCoreError) as error:
        return _unknown(wanted, error)
    return Found(id=str(wanted.id), there=True, status=200)


def begin(wanted: Wanted) -> str | Found:
    """The id of a new upload in parts; or what S3 said instead."""
    if wanted.place is None:
        return Found(id=str(wanted.id), there=None, code="BucketUnusable")
    try:
        made = wanted.s3.create_multipart_upload(**wanted.where, ContentType=wanted.content_type)
        return str(made["UploadId"])
    except (ClientError, BotoCoreError) as error:
        return _unknown(wanted, error)


def sign_parts(wanted: Wanted, numbers: Sequence[int]) -> list[Part]:
    """A URL for the PUT of each part, of exactly its length, as workers reach S3."""
    assert wanted.place
    place = operators_place() if wanted.place.trusted else wanted.place
    expires_s = int(settings.UPLOAD_URL_LIFETIME.total_seconds())

    def sign(number: int) -> Part:
        size = wanted.size_of(number)
        params = {**wanted.where, "UploadId": wanted.upload_id, "PartNumber": number, "ContentLength": size}
        url = client(place).generate_presigned_url("upload_part", params, ExpiresIn=expires_s)
        return Part(number=number, url=url, headers={"Content-Length": str(size)})

    return [sign(number) for number in numbers]


DONE, ANEW = "NoSuchUpload", ("InvalidPart", "InvalidPartOrder", "EntityTooSmall")


def complete(wanted: Wanted, etags: Mapping[int, str]) -> Found:
    """Make one object of the parts. there False: S3 has not all of them, and the upload must begin anew. Doing it twice
    is as good as once."""
    if wanted.place is None:
        return Found(id=str(wanted.id), there=None, code="BucketUnusable")
    parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
    try:
        wanted.s3.complete_multipart_upload(**wanted.where, UploadId=wanted.upload_id, MultipartUpload={"Parts": parts})
    except (ClientError, BotoCoreError) as error:
        found = _unknown(wanted, error)
        if found.code in ANEW:
            return _absent(wanted)
        if found.code != DONE:
            return found
    return look(wanted)


def abort(place: Place, key: str, upload_id: str) -> None:
    """Drop what was uploaded in parts and not completed. Raises botocore's errors."""
    try:
        client(place).abort_multipart_upload(Bucket=place.s3_bucket, Key=key, UploadId=upload_id)
    except ClientError as error:
        if error.response["Error"]["Code"] != DONE:
            raise


def drop_parts(place: Place, key: str, upload_id: str = "") -> None:
    """Abort all that was begun in parts under this very key; only upload_id where the access key may not list them.
    Raises botocore's errors."""
    try:
        begun = [upload["UploadId"] for upload in _begun(place, key) if upload["Key"] == key]
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in UNTOLD:
            raise
        begun = [upload_id] if upload_id else []
    for each in begun:
        abort(place, key, each)


def clear(place: Place, prefix: str) -> None:
    """Delete every object, and abort every upload in parts, whose key begins so. Raises botocore's errors."""
    pages = client(place).get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=place.s3_bucket, Prefix=prefix, PaginationConfig={"PageSize": 500}):
        delete_objects(place, [found["Key"] for found in page.get("Contents", [])])
    for upload in list(_begun(place, prefix)):
        abort(place, upload["Key"], upload["UploadId"])


UNTOLD = (403, 405, 501)  # who may not list, and S3s that cannot


def _begun(place: Place, prefix: str) -> Iterator[dict[str, Any]]:
    for page in client(place).get_paginator("list_multipart_uploads").paginate(Bucket=place.s3_bucket, Prefix=prefix):
        yield from page.get("Uploads", [])


def _absent(wanted: Wanted) -> Found:
    return Found(id=str(wanted.id), there=False, status=404)


def _unknown(wanted: Wanted, error: Exception) -> Found:
    if isinstance(error, ClientError):
        said = error.response
        status, code = said["ResponseMetadata"]["HTTPStatusCode"], said["Error"].get("Code", "")
        return Found(id=str(wanted.id), there=None, status=status, code=code)
    return Found(id=str(wanted.id), there=None, code=type(error).__name__)
