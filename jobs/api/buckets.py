"""/api/v1/buckets: a tenant's S3 settings, for a key with the scope `manage`. Secrets go in and never come out."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from jobs.api import owned, shapes
from jobs.api.keys import Managed
from jobs.api.requests import Paged, checked, nothing_said, page_of
from storage import buckets
from storage.assets import when
from storage.models import Bucket
from storage.providers import URL_HOURS_MOST
from storage.verify import verify

PLACE = ("endpoint_url", "s3_bucket", "region", "prefix", "addressing", "access_key_id")
SAME = ("name", "is_default", *PLACE, *Bucket.URLS, "allow_secret_in_job")


class BucketChanges(serializers.Serializer):  # type: ignore[misc]
    """What is not given stays, or is by the endpoint's host."""

    name = serializers.CharField(max_length=63, required=False, help_text="What requests name it by, in `storage`.")
    is_default = serializers.BooleanField(required=False, help_text="In place of the one that is it now.")
    endpoint_url = serializers.CharField(max_length=500, required=False)
    s3_bucket = serializers.CharField(max_length=255, required=False, allow_blank=True)
    region = serializers.CharField(max_length=50, required=False, allow_blank=True)
    prefix = serializers.CharField(max_length=500, required=False, allow_blank=True)
    addressing = serializers.ChoiceField(Bucket.Addressing.values, required=False, allow_blank=True)
    access_key_id = serializers.CharField(max_length=200, required=False)
    secret_access_key = serializers.CharField(
        max_length=1000, required=False, write_only=True, help_text="Sealed, and never told again."
    )
    public_url = serializers.CharField(max_length=500, required=False, allow_blank=True)
    signed_urls = serializers.BooleanField(required=False)
    url_hours = serializers.IntegerField(min_value=1, max_value=URL_HOURS_MOST, required=False, allow_null=True)
    allow_secret_in_job = serializers.BooleanField(
        required=False, help_text="Workers of dialect dekita are given the key and its secret."
    )


class GivenBucket(BucketChanges):
    name = serializers.CharField(max_length=63)
    endpoint_url = serializers.CharField(max_length=500)
    access_key_id = serializers.CharField(max_length=200)
    secret_access_key = serializers.CharField(max_length=1000, write_only=True)


class Buckets(Managed):
    @shapes.answers(
        "Buckets, newest first", shapes.page(owned.ABucket), query=Paged, errors=(404,), name="buckets_list"
    )
    def get(self, request: Request) -> Response:
        return page_of(Bucket.all_tenants.filter(tenant_id=request.user.tenant_id), request, shown)

    @shapes.answers("Make a bucket", owned.ABucket, 201, given=GivenBucket, errors=(400, 409, 415))
    def post(self, request: Request) -> Response:
        return Response(shown(buckets.make(request.user.tenant_id, **_given(GivenBucket, request))), 201)


class OneBucket(Managed):
    @shapes.answers("A bucket", owned.ABucket, errors=(404,))
    def get(self, request: Request, name: str) -> Response:
        return Response(shown(buckets.one(request.user.tenant_id, name)))

    @shapes.answers("Change a bucket", owned.ChangedBucket, given=BucketChanges, errors=(400, 404, 409, 415))
    def patch(self, request: Request, name: str) -> Response:
        """What is not given stays, the secret too."""
        bucket, warning = buckets.change(request.user.tenant_id, name, **_given(BucketChanges, request))
        return Response(shown(bucket) | {"warning": warning or None})

    @shapes.answers("Delete a bucket", None, 204, errors=(404, 409))
    def delete(self, request: Request, name: str) -> Response:
        """The settings, while nothing uses them; in S3 nothing is deleted."""
        buckets.remove(request.user.tenant_id, name)
        return Response(status=204)


class Verify(Managed):
    @shapes.answers("Whether a bucket works", owned.Verified, errors=(404, 415))
    def post(self, request: Request, name: str) -> Response:
        """Writes, reads and deletes small files, as jobs and clients do: to the first step that fails."""
        nothing_said(request)
        done = verify(buckets.one(request.user.tenant_id, name))
        steps = [{"step": step.what, "ok": not step.fault, "fault": step.fault or None} for step in done.steps]
        return Response({"works": not done.fault, "fault": done.fault or None, "steps": steps})


def _given(form: type[BucketChanges], request: Request) -> dict[str, Any]:
    fields = checked(form, request.data)
    return {("secret" if name == "secret_access_key" else name): value for name, value in fields.items()}


def shown(bucket: Bucket) -> dict[str, Any]:
    return {
        **{name: getattr(bucket, name) for name in SAME},
        "works": None if bucket.verified_at is None else not bucket.verify_fault,
        "fault": bucket.verify_fault or None,
        "verified_at": when(bucket.verified_at),
        "created_at": when(bucket.created_at),
    }
