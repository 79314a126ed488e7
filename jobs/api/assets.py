"""/api/v1/assets: the files of a tenant, uploaded ones, inputs and outputs of jobs."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from uuid import UUID

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Exists, OuterRef, Q
from drf_spectacular.utils import PolymorphicProxySerializer
from rest_framework import serializers
from rest_framework.parsers import BaseParser, JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.errors import Refused, bad_request, not_found
from jobs import retention
from jobs.api import shapes
from jobs.api.access import media_type
from jobs.api.requests import Paged, Pages, checked, nothing_said
from jobs.granted import Holder
from jobs.ids import parse_job_id, public_id
from jobs.models import Job
from storage import assets
from storage.models import Asset, preview_key
from storage.outputs import signer
from worker.kinds import content_type_of

LIVES_S = (60, 10 * 365 * 24 * 3600)
CONTENT_TYPE = re.compile(r"^[\w.+-]{1,80}/[\w.+-]{1,80}(; ?[\w.+-]+=[\w.+-]+)*$", re.ASCII)
NO_TYPE, FORM = "application/octet-stream", "application/x-www-form-urlencoded"
IN_MEMORY_BYTES = CHUNK_BYTES = 1024**2


class Raw(BaseParser):  # type: ignore[misc]
    """A body that is the file itself."""

    media_type = "*/*"

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> IO[bytes]:
        return stream


class About(serializers.Serializer):  # type: ignore[misc]
    """What is said of a file beside its bytes."""

    name = serializers.CharField(max_length=300, required=False, allow_blank=True)
    content_type = serializers.RegexField(CONTENT_TYPE, max_length=200, required=False)
    expires_in_s = serializers.IntegerField(min_value=LIVES_S[0], max_value=LIVES_S[1], required=False)


class Announced(About):
    """A file that will be PUT to S3."""

    name = serializers.CharField(max_length=300)
    bytes = serializers.IntegerField(min_value=0)
    sha256 = serializers.RegexField(
        re.compile("^[0-9a-f]{64}$"), error_messages={"invalid": "64 hex digits, lower case."}
    )


class OfList(Paged):
    source = serializers.ChoiceField(Asset.Source.choices, required=False)
    job = serializers.CharField(required=False, help_text="Files of this job.")


FORM_OF_FILE = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}, "name": {"type": "string"}},
    "required": ["file"],
}
GIVEN = {
    JSONParser.media_type: Announced,
    MultiPartParser.media_type: FORM_OF_FILE,
    NO_TYPE: {"type": "string", "format": "binary"},
}
MADE = PolymorphicProxySerializer("FileOrUpload", [shapes.AnAsset, shapes.ToUpload], None)


class Assets(APIView):  # type: ignore[misc]
    parser_classes = (JSONParser, MultiPartParser, Raw)

    @shapes.answers(
        "Files, newest first", shapes.page(shapes.AnAsset), query=OfList, errors=(400, 404), name="assets_list"
    )
    def get(self, request: Request) -> Response:
        found = assets.of_tenant(request.user.tenant_id).filter(_seen_by(request.user)).select_related("blob__bucket")
        source, job = request.query_params.get("source"), request.query_params.get("job")
        if source is not None:
            if source not in Asset.Source.values:
                raise bad_request(f"`source` must be one of {', '.join(Asset.Source.values)}, not {source[:50]!r}.")
            found = found.filter(source=source)
        if job is not None:
            parsed = parse_job_id(job)
            found = found.filter(job_id=parsed.uuid) if parsed else found.none()
        pages = Pages()
        return pages.get_paginated_response(shown(pages.paginate_queryset(found, request, self)))

    @shapes.answers("Upload a file, or announce one", MADE, 201, given=GIVEN, query=About, errors=(400, 413, 415))
    def post(self, request: Request) -> Response:
        """JSON announces a file, to be PUT to S3; a form has one as `file`; a body of any other type is one itself."""
        kind = media_type(request.content_type)
        if kind == JSONParser.media_type:
            return self._announced(request)
        if kind == MultiPartParser.media_type:
            about, body = checked(About, request.data), request.data.get("file")
            if not isinstance(body, UploadedFile):
                raise bad_request("The form has no file in its field `file`.")
            about = {"name": body.name or ""} | about
            given_type = body.content_type or ""
        else:
            about, body = checked(About, request.query_params), request.data
            given_type = "" if kind in (FORM, NO_TYPE) else kind
        with SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
            new = _received(about, body, given_type, file)
            made = assets.put(request.user.tenant_id, new, file)
        return Response(shown([made])[0], 201)

    def _announced(self, request: Request) -> Response:
        about = checked(Announced, request.data)
        new = _new(about, "", about["bytes"], about["sha256"])
        asset, url, headers = assets.open_upload(request.user.tenant_id, new)
        upload = {"method": "PUT", "url": url, "headers": headers}
        lives_s = int(settings.UPLOAD_URL_LIFETIME.total_seconds())
        return Response({"id": str(asset.pk), "upload": upload | {"expires_in_s": lives_s}}, 201)


def _seen_by(holder: Holder) -> Q:
    """A key that is limited to some endpoints sees no file of a job at another; uploads are its tenant's."""
    if not holder.endpoints:
        return Q()
    jobs = Job.all_tenants.filter(holder.sees("endpoint__name"), pk=OuterRef("job_id"))
    return Q(job_id=None) | Q(Exists(jobs))


def _check_seen(holder: Holder, asset: UUID) -> None:
    """Raises Refused(404)."""
    own = Asset.all_tenants.filter(tenant_id=holder.tenant_id, pk=asset)
    if holder.endpoints and own.exists() and not own.filter(_seen_by(holder)).exists():
        raise not_found(f"There is no asset '{asset}' of yours.")


def _received(about: Mapping[str, Any], body: Any, given_type: str, file: IO[bytes]) -> assets.New:
    """The bytes of the body, put into `file`, and what they are."""
    digest, size = hashlib.sha256(), 0
    while chunk := body.read(CHUNK_BYTES) if hasattr(body, "read") else b"":
        file.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    if not size:
        raise bad_request("The file is empty.")
    if size > settings.UPLOAD_MAX_BYTES:
        error = (
            f"The file has {size} bytes; at most {settings.UPLOAD_MAX_BYTES} are taken here. Announce it and PUT it."
        )
        raise Refused(413, "too_large", error)
    file.seek(0)
    return _new(about, given_type, size, digest.hexdigest())


def _new(about: Mapping[str, Any], given_type: str, size: int, sha256: str) -> assets.New:
    name = re.sub(r"[\x00-\x1f\x7f]", "", about.get("name") or "file")
    lives_s = about.get("expires_in_s")
    return assets.New(
        name=name,
        content_type=about.get("content_type") or plain_type(given_type) or content_type_of(name),
        bytes=size,
        sha256=sha256,
        lives=timedelta(seconds=lives_s) if lives_s else None,
    )


def plain_type(given: str) -> str:
    return given if CONTENT_TYPE.fullmatch(given) else ""


class OneAsset(APIView):  # type: ignore[misc]
    @shapes.answers("A file", shapes.AnAsset, errors=(404, 410))
    def get(self, request: Request, asset: UUID) -> Response:
        _check_seen(request.user, asset)
        found = assets.of_tenant(request.user.tenant_id).select_related("blob__bucket").filter(pk=asset).first()
        if found is None:
            raise assets.no_asset(request.user.tenant_id, asset)
        return Response(shown([found])[0])

    @shapes.answers("Delete a file", None, 204, errors=(404, 410))
    def delete(self, request: Request, asset: UUID) -> Response:
        _check_seen(request.user, asset)
        retention.delete_asset(request.user.tenant_id, asset)
        return Response(status=204)


class Complete(APIView):  # type: ignore[misc]
    @shapes.answers("An announced file has been PUT", shapes.AnAsset, errors=(400, 404, 409, 410, 415, 422))
    def post(self, request: Request, asset: UUID) -> Response:
        nothing_said(request)
        _check_seen(request.user, asset)
        return Response(shown([assets.complete(request.user.tenant_id, asset)])[0])


def shown(page: Sequence[Asset]) -> list[dict[str, Any]]:
    """Assets as clients see them; `blob__bucket` is at hand."""
    jobs = Job.all_tenants.filter(pk__in={asset.job_id for asset in page if asset.job_id}).only("id", "sync")
    ids = {job.pk: public_id(job.pk, job.sync) for job in jobs}
    days = assets.days_kept(page[0].tenant_id) if page else 0
    return [_shown(asset, ids.get(asset.job_id) if asset.job_id else None, days) for asset in page]


def _shown(asset: Asset, job: str | None, days: int) -> dict[str, Any]:
    ends_at = assets.ends_at(asset, days)
    blob, of_job = asset.blob, {"job": job, "node": asset.node, "kind": asset.kind}
    return {
        "id": str(asset.pk),
        "source": asset.source,
        "name": asset.name,
        "content_type": blob.content_type,
        "bytes": blob.bytes,
        "sha256": blob.sha256,
        **({name: value for name, value in of_job.items() if value}),
        "created_at": assets.when(asset.created_at),
        "expires_at": assets.when(ends_at),
        "url": asset.url or signer.url(blob.bucket, blob.key),
        "preview": signer.url(blob.bucket, preview_key(blob.key)) if asset.preview else None,
    }
