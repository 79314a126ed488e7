"""Tenants, with all that is theirs. Here and not in accounts, since only jobs knows grants and buckets too."""

from datetime import date
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Model, OuterRef, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.keys import ApiKeyInline
from accounts.admin.pages import Admin, asking, change_url, going, leave
from accounts.admin.scope import Members
from accounts.admin.users import MemberInline
from accounts.models import ApiKey, Member, Tenant
from jobs.admin.counts import Rows, load
from jobs.admin.fleet import GrantInline, LoadColumns, link
from jobs.admin.shown import duration
from jobs.admin.usage import chart, csv_file, today
from jobs.admin.webhooks import WebhookInline
from jobs.deletion import delete_tenant
from jobs.models import Grant, Usage, Webhook, WebhookSecret
from jobs.report import month_before
from storage.admin import BucketInline
from storage.models import Blob, Bucket

ADDED: dict[str, type[Model]] = {
    "key": ApiKey,
    "grant": Grant,
    "member": Member,
    "bucket": Bucket,
    "webhook": Webhook,
    "secret": WebhookSecret,
}
MONTHLY = ("gpu_s_a_month", "cost_a_month", "max_stored_bytes")


def adding(kind: str, what: str) -> Any:
    """An action: the page that adds one of this kind, with the tenant filled in."""
    opts = ADDED[kind]._meta

    @going(what, "add")
    def add(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        url = reverse(f"admin:{opts.app_label}_{opts.model_name}_add")
        return HttpResponseRedirect(f"{url}?tenant={object_id}")

    return add


USAGE_FILES = "Usage as CSV"


class SureForm(BaseDialogForm):  # type: ignore[misc]
    """Nothing that was deleted comes back."""

    name = forms.CharField(label="The tenant's name", widget=UnfoldAdminTextInputWidget)

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if not Tenant.objects.filter(pk=self.object_id, name=name).exists():
            raise ValidationError("That is another name.")
        return name


@admin.register(Tenant)
class TenantAdmin(LoadColumns, Admin):
    open_to = Members("pk")
    list_display = (
        "name",
        "members",
        "api_keys",
        "grants",
        "buckets",
        "queued_jobs",
        "running_jobs",
        "created_at",
        "deleted_at",
    )
    search_fields = ("name",)
    ordering = ("name",)
    jobs_by = "tenant__id__exact"
    inlines = (ApiKeyInline, GrantInline, MemberInline, BucketInline, WebhookInline)
    actions_detail = [
        {"title": "Add", "icon": "add", "items": [f"add_{name}" for name in ADDED]},
        {"title": USAGE_FILES, "icon": "download", "items": ["this_month", "last_month"]},
        "delete_all",
    ]
    change_form_after_template = "jobs/usage_chart.html"
    add_key = adding("key", "API key")
    add_grant = adding("grant", "Grant")
    add_member = adding("member", "Member")
    add_bucket = adding("bucket", "Bucket")
    add_webhook = adding("webhook", "Webhook")
    add_secret = adding("secret", "Webhook secret")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """To add what the user may add for this tenant."""
        pages = {f"add_{name}": self.admin_site.get_model_admin(kind) for name, kind in ADDED.items()}
        not_his = {
            name
            for name, page in pages.items()
            if not page.operators_may(request, "add")
            and str(object_id) not in map(str, page.tenants_where(request, "add"))
        }
        return [each for each in super().get_actions_detail(request, object_id) if each.path not in not_his]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A deleted tenant is only to be read."""
        return super().has_change_permission(request, obj) and not (obj and obj.deleted_at)

    @going("This month", "download")
    def this_month(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._csv_file(request, object_id, today().replace(day=1))

    @going("Last month", "download")
    def last_month(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._csv_file(request, object_id, month_before(today()))

    def _csv_file(self, request: HttpRequest, object_id: str, month: date) -> HttpResponse:
        tenant = self.get_object(request, object_id)
        if tenant is None:
            return leave(request, reverse("admin:accounts_tenant_changelist"))
        return csv_file(month, [tenant], tenant.name)

    @asking(
        "Delete all",
        "delete_forever",
        "Its keys are revoked now. Jobs, files, buckets and webhooks go, and nothing comes back; what it used stays.",
        permission="delete",
        danger=True,
        form=SureForm,
    )
    def delete_all(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        receipt = delete_tenant(UUID(object_id), f"by {request.user.get_username()} in the admin")
        self.log_change(request, receipt.tenant, "Deleted all that is its own.")
        messages.success(request, f"{receipt.tenant} is deleted; this says how far it is.")
        return leave(request, change_url(receipt))

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if tenant := kwargs.get("obj"):
            context |= {"chart": chart(Usage.objects.of(tenant))}
            if tenant.deleted_at:
                left = [button for button in context["actions_detail"] if button["title"] == USAGE_FILES]
                context |= {"actions_detail": left}
        return super().render_change_form(request, context, *args, **kwargs)

    def get_queryset(self, request: HttpRequest) -> Any:
        own = {"tenant": OuterRef("pk")}
        counts = {
            "member_count": Rows(Member.all_tenants.filter(**own)),
            "key_count": Rows(ApiKey.all_tenants.filter(**own, revoked_at=None)),
            "grant_count": Rows(Grant.all_tenants.filter(**own, overflow_of=None)),
            "bucket_count": Rows(Bucket.all_tenants.filter(**own)),
        }
        return super().get_queryset(request).annotate(**load("grant__tenant"), **counts)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        now = ("queued_jobs", "running_jobs", "all_jobs", "created_at", "deleted_at")
        limits = [("max_queued", "max_running", "requests_per_10s"), MONTHLY]
        return (
            (None, {"fields": ["name", *([now, "id"] if obj else [])]}),
            ("Limits", {"fields": [*limits, *([("this_months_gpu", "this_months_cost", "stored")] if obj else [])]}),
            ("API keys", {"fields": ["unused_key_days"]}),
            ("Kept for", {"fields": [("payload_days", "asset_days", "event_days")]}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (
            "id",
            "queued_jobs",
            "running_jobs",
            "all_jobs",
            "created_at",
            "deleted_at",
            "this_months_gpu",
            "this_months_cost",
            "stored",
        )

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return self.inlines if obj else ()

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> Any:
        """On to the tenant's page: it needs a grant and a key next."""
        if not {"_addanother", "_popup"} & request.POST.keys():
            post = request.POST.copy()
            post["_continue"] = "1"
            request.POST = post  # type: ignore[assignment]
        return super().response_add(request, obj, post_url_continue)

    @admin.display(description="GPU time of this month")
    def this_months_gpu(self, tenant: Tenant) -> str:
        return duration(self._used(tenant)["gpu_ms"])

    @admin.display(description="cost of this month")
    def this_months_cost(self, tenant: Tenant) -> str:
        return f"{self._used(tenant)['cost']:.2f} {settings.CURRENCY}".rstrip()

    @admin.display(description="stored in the operator's S3")
    def stored(self, tenant: Tenant) -> str:
        return str(filesizeformat(self._used(tenant)["bytes"]))

    def _used(self, tenant: Any) -> dict[str, Any]:
        """Looked up once for a page, whose template asks for each field several times."""
        if not hasattr(tenant, "used"):
            month = Usage.objects.of(tenant).filter(day__gte=today().replace(day=1))
            kept = Blob.objects.of(tenant).filter(state=Blob.State.KEPT, bucket=None, of_request=False)
            sums = month.aggregate(gpu_ms=Sum("gpu_ms"), cost=Sum("cost")) | kept.aggregate(bytes=Sum("bytes"))
            tenant.used = {name: value or 0 for name, value in sums.items()}
        used: dict[str, Any] = tenant.used
        return used

    @admin.display(description="jobs")
    def all_jobs(self, tenant: Tenant) -> str:
        return link("all jobs", "jobs_job", **self.jobs_filter(tenant))

    @admin.display(description="members", ordering="member_count")
    def members(self, tenant: Any) -> int:
        return int(tenant.member_count)

    @admin.display(description="API keys", ordering="key_count")
    def api_keys(self, tenant: Any) -> int:
        return int(tenant.key_count)

    @admin.display(description="grants", ordering="grant_count")
    def grants(self, tenant: Any) -> int:
        return int(tenant.grant_count)

    @admin.display(description="buckets", ordering="bucket_count")
    def buckets(self, tenant: Any) -> int:
        return int(tenant.bucket_count)
