"""Every address of the admin, by its registry: lists, pages, buttons, actions, filters and what these offer."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db import models
from django.test import Client as Browser
from django.test import RequestFactory
from django.urls import reverse

from accounts.models import Member, Tenant, User
from jobs.models import Endpoint
from tests.admin.rows import MODELS, Rows, list_url, newest
from tests.cast import unique

PASSWORD = "a long and winding password"
ROLES = ("owner", "developer", "viewer")
OF_A_TENANT = [model for model in MODELS if admin.site._registry[model].open_to.path]
GIVEN = {"post": "yes", "_form_submitted": "True", "since": "2026-01-01T00:00", "role": "owner", "name": "given"}


def signed_in(user: User | None) -> Browser:
    made = Browser(SERVER_NAME="localhost")
    if user:
        made.force_login(user)
    return made


def member(tenant: Tenant, role: str) -> User:
    user = User.objects.create_user(unique(f"{role}-{tenant.name[-6:]}"))
    Member.all_tenants.create(tenant=tenant, user=user, role=role)
    return user


class Company:
    """A tenant with rows of every kind and a member of each role. `words`: what a page of another must not have."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.rows.add(1)
        self.tenant = self.rows.tenant
        self.users = {role: member(self.tenant, role) for role in ROLES}
        self.browsers = {role: signed_in(user) for role, user in self.users.items()}
        self.of_kind = {model: self._row(model) for model in MODELS}
        ids = {str(row.pk) for row in self.of_kind.values()}
        prefixes = {text.split("_")[1] for text in self.rows.keys}
        names = {user.username for user in self.users.values()} | {self.rows.name, self.rows.bucket.name}
        self.words = {each for each in ids | prefixes | names if len(each) > 6}

    def _row(self, model: type[models.Model]) -> models.Model:
        """Of what belongs to no tenant, what was made for this one's jobs."""
        path = admin.site._registry[model].open_to.path
        rows = model._default_manager.filter(**{path: self.tenant.pk} if path else {}).order_by("-pk")
        return {User: self.rows.user, Endpoint: self.rows.place.endpoint}.get(model) or newest(model, rows)

    def state(self) -> dict[str, Any]:
        """All that is the tenant's, but for when its members were last here."""
        found: dict[str, Any] = {}
        for model in OF_A_TENANT:
            path = admin.site._registry[model].open_to.path
            found[model._meta.label] = sorted(map(repr, model._base_manager.filter(**{path: self.tenant.pk}).values()))
        users = User.objects.filter(memberships__tenant=self.tenant).order_by("pk")
        return found | {"users": [*users.values("username", "password", "is_staff", "is_superuser", "is_active")]}


def lists(model: type[models.Model]) -> list[str]:
    """Without a row: the list, the page that adds, buttons above the list."""
    return [f"{list_url(model)}{part}" for part in _parts(model, of_a_row=False)]


def pages(model: type[models.Model], pk: Any) -> list[str]:
    """Of a row: its page, its history, its end, its buttons."""
    return [f"{list_url(model)}{part.format(pk)}" for part in _parts(model, of_a_row=True)]


def _parts(model: type[models.Model], *, of_a_row: bool) -> Iterator[str]:
    for pattern in admin.site._registry[model].get_urls():
        part = str(pattern.pattern).replace("<path:object_id>", "{}").replace("<id>", "{}")
        assert "<" not in part, f"{part}: teach this walk what stands there"
        if ("{}" in part) == of_a_row and pattern.name:
            yield part


def of_the_site() -> list[str]:
    apps = sorted({model._meta.app_label for model in MODELS})
    names = ("index", "password_change", "password_change_done", "jsi18n", "search")
    return [reverse(f"admin:{name}") for name in names] + [reverse("admin:app_list", args=[app]) for app in apps]


def narrowed(model: type[models.Model], company: Company) -> Iterator[str]:
    """The list as somebody would narrow it who knows ids and the beginning of names."""
    page, own = admin.site._registry[model], {kind: row.pk for kind, row in company.of_kind.items()}
    yield f"{list_url(model)}?q={company.rows.name[:-2]}"
    for each in page.get_list_filter(_request(company.users["owner"])):
        if isinstance(each, tuple) and (remote := _remote(model, each[0])) in own:
            yield f"{list_url(model)}?{each[0]}__id__exact={own[remote]}"


def _remote(model: type[models.Model], path: str) -> Any:
    kind: Any = model
    for name in path.split("__"):
        kind = kind._meta.get_field(name).related_model
        if kind is None:
            return None
    return kind


def offered(term: str) -> Iterator[str]:
    """What autocompletes offer, for every field of every kind that names a row of another."""
    for model in MODELS:
        for field in model._meta.get_fields():
            if isinstance(field, models.ForeignKey) and field.related_model in MODELS:
                of = f"app_label={model._meta.app_label}&model_name={model._meta.model_name}&field_name={field.name}"
                yield f"{reverse('admin:autocomplete')}?term={term}&{of}"


def actions(model: type[models.Model]) -> list[str]:
    """Of chosen rows, all that an operator has."""
    root = User(username="root", is_staff=True, is_superuser=True, is_active=True)
    return [*admin.site._registry[model].get_actions(_request(root))]


def _request(user: User) -> Any:
    request = RequestFactory().get("/admin/")
    request.user = user
    return request


def try_everything(browser: Browser, company: Company, tenant: Tenant) -> list[str]:
    """Posts whatever can be posted, with the company's ids and this tenant's; answers that are faults of ours."""
    faults = []
    for model in MODELS:
        row = company.of_kind[model]
        for url in (*lists(model), *pages(model, row.pk)):
            given = GIVEN | {"tenant": tenant.pk}
            faults += [url] if browser.post(url, given).status_code >= 500 else []
        for name in actions(model):
            chosen = {"action": name, "_selected_action": [row.pk]}
            faults += [name] if browser.post(list_url(model), chosen).status_code >= 500 else []
    return faults
