"""Whether a bucket works: all that Hearth, its workers and its clients do with one, done with small objects."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from django.db.models.functions import Now

from accounts.sealed import SealBroken
from storage import objects
from storage.faults import ABORT, DELETE, READ, WRITE, Action, S3Fault, of_answer, told
from storage.guarded import send
from storage.models import Bucket
from storage.places import Place, client, delete_objects, full_key, sign_get, sign_put, tenants_place

CONTENT, TYPE = b"Hearth looks whether this bucket works. This file may be deleted.\n", "text/plain"
URL_LIFE = timedelta(minutes=5)


@dataclass(frozen=True)
class Step:
    """What was tried, and what is wrong with it; "" if it went well."""

    what: str
    fault: str = ""


@dataclass(frozen=True)
class Verification:
    """The steps in their order, to the first that failed, and the tidying up after it."""

    steps: tuple[Step, ...]

    @property
    def fault(self) -> str:
        """What a person is told; "" if the bucket works."""
        return " ".join(step.fault for step in self.steps if step.fault)


def verify(bucket: Bucket) -> Verification:
    """Keeps the result and its time with the bucket, unless its settings were changed meanwhile."""
    try:
        done = check(tenants_place(bucket), str(bucket.tenant_id))
    except SealBroken as error:
        done = Verification((Step("unseal its secret", f"The secret access key cannot be used: {error}."),))
    as_it_was = {name: getattr(bucket, name) for name in (*Bucket.PLACE, *Bucket.URLS)}
    Bucket.all_tenants.filter(pk=bucket.pk, **as_it_was).update(verified_at=Now(), verify_fault=done.fault)
    return done


def check(place: Place, folder: str, urls: Place | None = None) -> Verification:
    """Write, read and delete objects in a folder below the place's prefix. urls: the place as clients and workers reach
    it, if that is another address. Raises nothing that S3 is the cause of."""
    tried = _Tried(place, urls or place, full_key(place, f"{folder}/check-{secrets.token_hex(8)}"))
    steps: list[Step] = []
    for what, do, where, action in tried.steps():
        steps.append(_step(what, do, where, action))
        if steps[-1].fault:
            break
    if tried.written:
        steps.append(_step("delete them", tried.delete, place, DELETE))
    return Verification(tuple(steps))


def _step(what: str, do: Callable[[], None], place: Place, action: Action) -> Step:
    try:
        with told(place, action):
            do()
    except S3Fault as fault:
        return Step(what, str(fault))
    return Step(what)


@dataclass
class _Tried:
    place: Place
    urls: Place
    key: str
    written: list[str] = field(default_factory=list)

    def steps(self) -> Iterator[tuple[str, Callable[[], None], Place, Action]]:
        yield "write an object", self.write, self.place, WRITE
        yield "read it back", self.read, self.place, READ
        yield "write one by a signed URL, as workers do", self.put, self.urls, WRITE
        yield "read it by a URL, as clients do", self.get, self._public(), READ
        yield "begin an upload in parts, and drop it", self.parts, self.place, ABORT

    def write(self) -> None:
        where = {"Bucket": self.place.s3_bucket, "Key": self.key}
        client(self.place).put_object(**where, Body=CONTENT, ContentType=TYPE)
        self.written.append(self.key)

    def read(self) -> None:
        where = {"Bucket": self.place.s3_bucket, "Key": self.key}
        content = client(self.place).get_object(**where)["Body"].read(len(CONTENT) + 1)
        size = client(self.place).head_object(**where)["ContentLength"]
        if (size, content) != (len(CONTENT), CONTENT):
            raise S3Fault("other", "What was read back is not what was written: see what stands before this S3.")

    def put(self) -> None:
        key = f"{self.key}-by-url"
        url, headers = sign_put(self.urls, key, content_type=TYPE, size=len(CONTENT))
        answer = send("PUT", url, headers, CONTENT, trusted=self.urls.trusted)
        if not 200 <= answer.status_code < 300:
            raise of_answer(answer, self.urls, WRITE)
        self.written.append(key)

    def get(self) -> None:
        url = sign_get(self.urls, self.written[-1], URL_LIFE)
        answer = send("GET", url, {}, b"", trusted=self.urls.trusted)
        if fault := _wrong(answer, self._public()):
            raise _of_public_url(fault, self.urls) if self.urls.public_url else fault

    def parts(self) -> None:
        """As for large files, whose upload may come to nothing."""
        key = f"{self.key}-in-parts"
        with told(self.place, WRITE):
            begun = client(self.place).create_multipart_upload(Bucket=self.place.s3_bucket, Key=key, ContentType=TYPE)
        objects.abort(self.place, key, begun["UploadId"])

    def delete(self) -> None:
        try:
            with told(self.place, DELETE):
                delete_objects(self.place, self.written)
        except S3Fault as fault:
            raise S3Fault(fault.kind, f"{fault} These stay there: {', '.join(self.written)}.") from fault

    def _public(self) -> Place:
        """Where clients read."""
        public = self.urls.public_url
        return replace(self.urls, endpoint_url=public, addressing="path") if public else self.urls


def _wrong(answer: Any, place: Place) -> S3Fault | None:
    if answer.status_code != 200:
        return of_answer(answer, place, READ)
    if answer.content != CONTENT:
        kind = answer.headers.get("content-type", "something")
        return S3Fault("other", f"It gave {len(answer.content)} bytes of {kind} that nobody wrote.")
    return None


def _of_public_url(fault: S3Fault, place: Place) -> S3Fault:
    hint = "It must lead to the root of the S3 bucket and let everybody read there."
    if place.signed_urls:
        hint = "If it knows no S3 signatures, as a CDN with a cache, untick signed URLs and let everybody read there."
    return S3Fault(fault.kind, f"The public URL {place.public_url} does not give the file. {fault} {hint}")
