"""What /api/v1 answers of what a tenant sets up itself, as shapes.py has it of all else."""

from rest_framework import serializers as s
from rest_framework.serializers import Serializer

from storage.models import Bucket


class ABucket(Serializer):  # type: ignore[misc]
    """S3 settings; never their secret."""

    name = s.CharField()
    is_default = s.BooleanField()
    endpoint_url = s.CharField()
    s3_bucket = s.CharField()
    region = s.CharField()
    prefix = s.CharField(allow_blank=True)
    addressing = s.ChoiceField(Bucket.Addressing.values)
    access_key_id = s.CharField()
    public_url = s.CharField(allow_blank=True)
    signed_urls = s.BooleanField()
    url_hours = s.IntegerField(allow_null=True)
    allow_secret_in_job = s.BooleanField()
    works = s.BooleanField(allow_null=True, help_text="As last verified; null: not with these settings.")
    fault = s.CharField(allow_null=True)
    verified_at = s.DateTimeField(allow_null=True)
    created_at = s.DateTimeField()


class ChangedBucket(ABucket):
    warning = s.CharField(allow_null=True, help_text="What the change means for files that are there.")


class Step(Serializer):  # type: ignore[misc]
    """What was tried."""

    step = s.CharField()
    ok = s.BooleanField()
    fault = s.CharField(allow_null=True)


class Verified(Serializer):  # type: ignore[misc]
    works = s.BooleanField()
    fault = s.CharField(allow_null=True, help_text="What is wrong, and what to do.")
    steps = Step(many=True)
