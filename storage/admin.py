"""The operator's pages on buckets, blobs and assets."""

from typing import Any

from botocore.exceptions import BotoCoreError
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet, URLField
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesRadioFilter
from unfold.utils import display_for_label
from unfold.widgets import UnfoldAdminPasswordWidget

from accounts.admin.pages import (
    Admin,
    BigTable,
    Inline,
    Labels,
    ReadOnly,
    RelatedFilter,
    asking,
    change_url,
    leave,
    uuid_in,
)
from accounts.admin.scope import OWNER, Members
from storage import buckets
from storage.models import Asset, Blob, Bucket, preview_key
from storage.outputs import signer
from storage.verify import verify

WORKS: Labels = {"yes": "success", "no": "danger", "not verified": "warning"}
STATES: Labels = {Blob.State.PENDING: "warning", Blob.State.KEPT: "success", Blob.State.DYING: "danger"}


class BucketForm(forms.ModelForm):  # type: ignore[type-arg]
    secret = forms.CharField(
        label="Secret access key",
        strip=True,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="Kept sealed and never shown.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("region", "addressing"):
            if name in self.fields and not self.instance.pk:
                self.fields[name].initial = ""  # by the endpoint
        if self.instance.pk and "secret" in self.fields:
            self.fields["secret"].required = False
            self.fields["secret"].help_text = "Leave empty to keep the secret as it is."

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        tenant = given.get("tenant") or getattr(self.instance, "tenant", None)
        if given.get("is_default") and tenant:
            other = Bucket.objects.of(tenant).filter(is_default=True).exclude(pk=self.instance.pk).first()
            if other:
                raise ValidationError({"is_default": f"{tenant} has a default bucket, {other.name}: untick it there."})
        return given

    def save(self, commit: bool = True) -> Any:
        buckets.enter(self.instance, self.cleaned_data.get("secret", ""), self.changed_data)
        return super().save(commit)


@admin.register(Bucket)
class BucketAdmin(Admin):
    open_to = Members("tenant", add=OWNER, change=OWNER, delete=OWNER)
    form = BucketForm
    list_display = (
        "name",
        "tenant",
        "is_default",
        "works",
        "endpoint_url",
        "s3_bucket",
        "prefix",
        "allow_secret_in_job",
        "created_at",
    )
    list_filter = (("tenant", RelatedFilter), "is_default")
    list_select_related = ("tenant",)
    search_fields = ("name", "tenant__name", "s3_bucket", "endpoint_url")
    ordering = ("tenant", "name")
    autocomplete_fields = ("tenant",)
    formfield_overrides = {URLField: {"assume_scheme": "https"}}
    readonly_fields = ("created_at", "works", "verified_at", "verify_fault")
    actions_detail = ("verify_now",)
    fieldsets = (
        (None, {"fields": ("tenant", ("name", "is_default"))}),
        ("Last verified", {"fields": (("works", "verified_at"), "verify_fault")}),
        ("S3", {"fields": ("endpoint_url", ("s3_bucket", "prefix"), ("region", "addressing"))}),
        ("Access", {"fields": ("access_key_id", "secret", "allow_secret_in_job", "created_at")}),
        ("URLs in answers", {"fields": ("public_url", ("signed_urls", "url_hours"))}),
    )

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change and (text := buckets.warning(obj, form.changed_data)):
            messages.warning(request, text)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (*self.readonly_fields, "tenant") if obj else self.readonly_fields

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fieldsets if obj else tuple(one for one in self.fieldsets if one[0] != "Last verified")

    @asking(
        "Verify", "task_alt", "Writes, reads and deletes two small files, as jobs and clients do.", permission="change"
    )
    def verify_now(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        bucket = self.get_object(request, object_id)
        if bucket is None:
            return leave(request, reverse("admin:storage_bucket_changelist"))
        fault = verify(bucket).fault
        self.log_change(request, bucket, fault or "Verified: it works.")
        messages.add_message(request, messages.ERROR if fault else messages.SUCCESS, fault or f"{bucket} works.")
        return leave(request, change_url(bucket))

    @admin.display(description="works", ordering="verified_at")
    def works(self, bucket: Bucket) -> str:
        known = "not verified" if bucket.verified_at is None else "no" if bucket.verify_fault else "yes"
        return str(display_for_label(known, "-", WORKS))


class BucketInline(Inline):
    model = Bucket
    fields = readonly_fields = ("name", "is_default", "endpoint_url", "s3_bucket", "prefix")
    ordering = ("name",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("tenant")


class FileAdmin(BigTable, ReadOnly, Admin):
    """Blobs and assets: many, so found by id or job id only."""

    open_to = Members("tenant")
    sortable_by = ("created_at",)
    search_fields = ("id",)
    search_help_text = "The file's id, or its job's"

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        uuid = uuid_in(search_term)
        if search_term.strip():
            queryset = queryset.filter(Q(pk=uuid) | Q(job_id=uuid)) if uuid else queryset.none()
        return queryset, False

    @admin.display(description="job")
    def job(self, row: Any) -> str:
        if row.job_id is None:
            return "-"
        url = reverse("admin:jobs_job_change", args=[row.job_id])
        return format_html('<a class="text-link" href="{}">{}</a>', url, row.job_id)


@admin.register(Blob)
class BlobAdmin(FileAdmin):
    list_display = ("key", "tenant", "bucket", "size", "content_type", "state_label", "job", "attempt", "created_at")
    list_filter = (("tenant", RelatedFilter), ("state", ChoicesRadioFilter))
    list_select_related = ("tenant", "bucket__tenant")
    fields = (
        ("key", "state_label"),
        ("id", "tenant", "bucket"),
        ("size", "content_type", "sha256"),
        ("job", "attempt", "of_request", "created_at"),
    )

    @admin.display(description="state")
    def state_label(self, blob: Blob) -> str:
        return str(display_for_label(blob.state, "-", STATES))

    @admin.display(description="size")
    def size(self, blob: Blob) -> str:
        return str(filesizeformat(blob.bytes))


def asset_url(asset: Asset) -> str:
    """A URL to see the file by; "" if its bucket's settings cannot sign one."""
    try:
        return asset.url or signer.url(asset.blob.bucket, asset.blob.key)
    except (ValueError, BotoCoreError):
        return ""


def preview(asset: Asset, size: str = "max-h-32") -> str:
    """A link to the file: a small picture of it, or itself if it is one that has none."""
    url = asset_url(asset)
    if not url:
        return asset.name
    shown: Any = asset.name
    if asset.preview or asset.blob.content_type.startswith("image/"):
        look = f"{size} rounded-default"
        small = signer.url(asset.blob.bucket, preview_key(asset.blob.key)) if asset.preview else url
        shown = format_html('<img src="{}" alt="{}" loading="lazy" class="{}">', small, asset.name, look)
    return format_html('<a class="text-link" href="{}" target="_blank" rel="noreferrer">{}</a>', url, shown)


@admin.register(Asset)
class AssetAdmin(FileAdmin):
    list_display = ("name", "tenant", "source", "content_type", "size", "node", "kind", "job", "created_at")
    list_filter = (("tenant", RelatedFilter),)
    list_select_related = ("tenant", "blob__bucket__tenant")
    fields = (
        ("name", "content_type", "size"),
        ("id", "tenant", "blob"),
        ("source", "job", "node", "kind", "position"),
        ("created_at", "expires_at"),
        "file",
    )

    @admin.display(description="content type")
    def content_type(self, asset: Asset) -> str:
        return asset.blob.content_type

    @admin.display(description="size")
    def size(self, asset: Asset) -> str:
        return str(filesizeformat(asset.blob.bytes))

    @admin.display(description="file")
    def file(self, asset: Asset) -> str:
        return preview(asset, "max-h-96")
