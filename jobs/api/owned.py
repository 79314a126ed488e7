"""What /api/v1 answers of what a tenant sets up itself, as shapes.py has it of all else."""

from rest_framework import serializers as s
from rest_framework.serializers import Serializer

from jobs.models import Delivery
from jobs.states import News
from jobs.webhooks import look
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


class AWebhook(Serializer):  # type: ignore[misc]
    """A URL that hears of a tenant's jobs."""

    id = s.UUIDField()
    url = s.CharField(help_text="Without the values of its query.")
    kinds = s.ListField(child=s.ChoiceField(News.choices))
    enabled = s.BooleanField()
    state = s.ChoiceField([look.ENABLED, look.FAILING, look.OFF, look.DISABLED])
    disabled_why = s.CharField(allow_null=True)
    disabled_at = s.DateTimeField(allow_null=True, help_text="By Hearth, as it only failed.")
    failing_since = s.DateTimeField(allow_null=True)
    created_at = s.DateTimeField()


class NewWebhook(AWebhook):
    secret = s.CharField(allow_null=True, help_text="What signs, this once; null: you have one already.")


class ASecret(Serializer):  # type: ignore[misc]
    """Never its text."""

    created_at = s.DateTimeField()
    expires_at = s.DateTimeField(allow_null=True, help_text="null: the newest.")


class Secrets(Serializer):  # type: ignore[misc]
    results = ASecret(many=True)


class NewSecret(Serializer):  # type: ignore[misc]
    secret = s.CharField(help_text="This once.")


class Posted(Serializer):  # type: ignore[misc]
    """What a receiver answered, or why it did not."""

    status = s.IntegerField(allow_null=True)
    ms = s.IntegerField()
    answer = s.CharField(allow_blank=True, help_text="Its first 500 bytes.")
    error = s.CharField(allow_blank=True)


class Try(Posted):
    at = s.DateTimeField()


class Sent(Serializer):  # type: ignore[misc]
    """One piece of news to one receiver. `id` is its webhook-id."""

    id = s.CharField()
    webhook = s.UUIDField(allow_null=True, help_text="null: the URL that the job's request named.")
    job = s.CharField(allow_null=True, help_text="null: of a test.")
    kind = s.ChoiceField(Delivery.Kind.choices)
    state = s.ChoiceField(Delivery.State.choices)
    url = s.CharField(help_text="Without the values of its query.")
    try_count = s.IntegerField(help_text="Since it was first, or last, to be sent.")
    created_at = s.DateTimeField()
    next_at = s.DateTimeField(allow_null=True)
    ended_at = s.DateTimeField(allow_null=True)


class ADelivery(Sent):
    last_try = Posted(allow_null=True)


class OneDelivery(Sent):
    tries = Try(many=True)


class SentAgain(Serializer):  # type: ignore[misc]
    sent_again = s.IntegerField(help_text="How many.")
