"""Where files live: a tenant's buckets, the blobs in them, and the assets that name blobs."""

from collections.abc import Hashable
from datetime import timedelta

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now

from accounts.audit import Audited
from accounts.models import NOT_DELETED, Owned, Tenant, slug, uuid7
from accounts.sealed import SealedField
from storage.providers import (
    EXAMPLES,
    PATH,
    URL_HOURS_MOST,
    VIRTUAL,
    read_addressing,
    read_endpoint,
    read_prefix,
    read_public_url,
    read_region,
)


class Bucket(Audited, Owned):
    """A tenant's S3 settings. A job's files go to the bucket that its request names (`storage`), else its grant's, else
    the tenant's default; a tenant without one uses a prefix of the operator's S3 bucket."""

    class Addressing(models.TextChoices):
        PATH = PATH, "path: endpoint/bucket/key"
        VIRTUAL = VIRTUAL, "virtual host: bucket.endpoint/key"

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="buckets", limit_choices_to=NOT_DELETED)
    name = models.CharField(max_length=63, validators=[slug], help_text="What requests name it by, in `storage`.")
    is_default = models.BooleanField(default=False)
    endpoint_url = models.URLField(max_length=500, help_text=EXAMPLES)
    region = models.CharField(
        max_length=50, blank=True, default="us-east-1", help_text="Empty: by the endpoint; us-east-1 if it names none."
    )
    s3_bucket = models.CharField("S3 bucket", max_length=255, blank=True, help_text="Empty: the endpoint names it.")
    prefix = models.CharField(max_length=500, blank=True, help_text="Put before every key.")
    addressing = models.CharField(
        max_length=7,
        choices=Addressing,
        blank=True,
        default=PATH,
        help_text="Empty: virtual host at Amazon, else path.",
    )
    access_key_id = models.CharField(max_length=200)
    secret_access_key = SealedField(editable=False)
    public_url = models.URLField(
        "public URL",
        max_length=500,
        blank=True,
        default="",
        db_default="",
        help_text="Of the S3 bucket, as a CDN or a domain of your own serves it: URLs in answers begin with it.",
    )
    signed_urls = models.BooleanField(
        "signed URLs",
        default=True,
        db_default=True,
        help_text="Without: who has a file's public URL may read it for ever, and its domain lets everybody read.",
    )
    url_hours = models.PositiveSmallIntegerField(
        "URL hours",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(URL_HOURS_MOST)],
        help_text=f"How long signed URLs are good, 1 to {URL_HOURS_MOST}. Empty: the instance's.",
    )
    verified_at = models.DateTimeField(null=True, editable=False, help_text="With the settings it has now.")
    verify_fault = models.TextField(default="", db_default="", editable=False, help_text="Empty: it works.")
    allow_secret_in_job = models.BooleanField(
        "secret in jobs",
        default=False,
        db_default=False,
        help_text="Workers of dialect dekita are given this key and its secret, and put files here themselves.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    untold = ("verified_at", "verify_fault")
    PLACE = ("endpoint_url", "region", "s3_bucket", "prefix", "addressing", "access_key_id", "secret_access_key")
    URLS = ("public_url", "signed_urls", "url_hours")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="bucket_name_once"),
            models.UniqueConstraint(fields=["tenant", "id"], name="bucket_of_tenant"),  # what a grant's is held to
            models.UniqueConstraint(
                fields=["tenant"], condition=models.Q(is_default=True), name="bucket_one_default_a_tenant"
            ),
            models.CheckConstraint(
                condition=models.Q(url_hours=None) | models.Q(url_hours__range=(1, URL_HOURS_MOST)),
                name="bucket_url_hours",
            ),
            models.CheckConstraint(
                condition=models.Q(signed_urls=True) | ~models.Q(public_url=""), name="bucket_open_urls_are_public"
            ),
        ]

    def clean(self) -> None:
        """Fills what was left empty by the endpoint's host. ValidationError names the field that is wrong."""
        place = read_endpoint(self.endpoint_url, self.s3_bucket)
        self.endpoint_url, self.s3_bucket = place.endpoint_url, place.bucket
        self.prefix = read_prefix(place.prefix, self.prefix)
        self.region = read_region(place, self.region)
        self.addressing = read_addressing(place, self.addressing)
        self.public_url = read_public_url(self.public_url, signed=self.signed_urls)

    @property
    def url_lifetime(self) -> timedelta:
        life: timedelta = settings.OUTPUT_URL_LIFETIME
        return timedelta(hours=self.url_hours) if self.url_hours else life

    def place_fields(self) -> tuple[Hashable, ...]:
        """What says where its files are, who signs, and what URLs look like; the secret is sealed."""
        return tuple(getattr(self, name) for name in (*self.PLACE, *self.URLS))

    def __str__(self) -> str:
        return f"{self.tenant}/{self.name}"


def preview_key(key: str) -> str:
    """Of the small picture (WebP) beside a file."""
    return f"{key}.preview.webp"


class Blob(Owned):
    """The bytes of a file under one key of one S3 bucket.

    PENDING while it may be uploaded; KEPT while an asset names it or a job that may still run needs it (Hold); DYING
    from when neither does, or nobody came to name it: no way leads back, its object goes and then its row (rules.md 12,
    25). What a tenant uploads is KEPT once for each hash; new bytes of a dying one's hash take a new key.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        KEPT = "kept"
        DYING = "dying"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="blobs")
    bucket = models.ForeignKey(Bucket, models.PROTECT, null=True, blank=True, help_text="Empty: the operator's S3.")
    of_request = models.BooleanField(default=False, help_text="In the S3 bucket that the job's request named.")
    key = models.CharField(max_length=1024)
    bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    content_type = models.CharField(max_length=200)
    job_id = models.UUIDField(null=True, editable=False)  # no foreign key: storage does not know jobs
    attempt = models.IntegerField(default=0, editable=False)
    state = models.CharField(max_length=7, choices=State, default=State.PENDING)
    part_bytes = models.BigIntegerField(db_default=0, editable=False, help_text="0: put as a whole.")
    upload_id = models.TextField(db_default="", editable=False, help_text="Of the multipart upload, once it has begun.")
    preview_bytes = models.IntegerField(
        db_default=0, editable=False, help_text="Of the small picture beside it; 0: it has none."
    )
    stored_at = models.DateTimeField(null=True, help_text="When Hearth found it in S3, whole.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    tried_at = models.DateTimeField(null=True, editable=False, help_text="When its object could not be deleted.")
    deletion_id = models.UUIDField(null=True, editable=False, help_text="The receipt in which its end is counted.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "sha256"],
                condition=models.Q(state="kept", job_id__isnull=True, of_request=False),
                name="blob_uploaded_bytes_once",
            ),
        ]
        indexes = [
            models.Index(fields=["job_id", "attempt"], name="blob_of_attempt"),
            models.Index(fields=["tried_at"], name="blob_dying", condition=models.Q(state="dying")),
            models.Index(fields=["created_at"], name="blob_pending", condition=models.Q(state="pending")),
            models.Index(
                fields=["tenant"],
                name="blob_stored",
                include=["bytes"],
                condition=models.Q(state="kept", bucket__isnull=True, of_request=False),
            ),
            models.Index(
                fields=["deletion_id"], name="blob_of_deletion", condition=models.Q(deletion_id__isnull=False)
            ),
        ]

    @property
    def keys(self) -> list[str]:
        """Of all its objects."""
        return [self.key, preview_key(self.key)] if self.preview_bytes else [self.key]

    def __str__(self) -> str:
        return self.key


class Asset(Owned):
    """A file as a tenant knows it, by UUID: uploaded, part of a job's input, or an output of one of its nodes.

    The id of an output is its blob's. An upload whose blob is PENDING is not there yet.
    """

    class Source(models.TextChoices):
        UPLOAD = "upload"
        INPUT = "input"
        OUTPUT = "output"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="assets")
    blob = models.ForeignKey(Blob, models.PROTECT, related_name="assets")
    source = models.CharField(max_length=6, choices=Source, default=Source.OUTPUT)
    job_id = models.UUIDField(null=True, editable=False, db_index=True)
    position = models.IntegerField(default=0, help_text="Its place in the output's files.")
    node = models.CharField(max_length=100, blank=True)
    kind = models.CharField(max_length=50, blank=True)
    name = models.CharField(max_length=300)
    width = models.IntegerField(null=True, help_text="In pixels.")
    height = models.IntegerField(null=True, help_text="In pixels.")
    duration_ms = models.BigIntegerField(null=True, help_text="Of films and sounds.")
    preview = models.BooleanField(default=False, db_default=False, help_text="A small picture is stored beside it.")
    url = models.TextField(blank=True, editable=False, help_text="Signed once, for files in a request's own bucket.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: never.")

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "-id"], name="asset_of_tenant"),
            models.Index(fields=["tenant", "created_at"], name="asset_by_age"),
            models.Index(fields=["expires_at"], name="asset_expiry", condition=models.Q(expires_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return self.name


class Hold(models.Model):
    """A job that may still run needs this blob: it stays, whatever happens to the assets that name it."""

    job_id = models.UUIDField(editable=False)  # no foreign key: storage does not know jobs
    blob = models.ForeignKey(Blob, models.PROTECT, related_name="holds")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job_id", "blob"], name="hold_once")]

    def __str__(self) -> str:
        return f"{self.blob_id} for {self.job_id}"


class Gone(Owned):
    """What a tenant had, by its id, and was deleted: whoever asks for it is told since when (410)."""

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    at = models.DateTimeField(db_default=Now(), db_index=True)

    def __str__(self) -> str:
        return str(self.id)
