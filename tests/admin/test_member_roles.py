"""What members do in their tenant: a developer acts on jobs, an owner also on keys, buckets, webhooks and members."""

import re
from typing import Any

import httpx
import pytest
from django.test import Client as Browser
from django.utils import timezone

from accounts import membership
from accounts.errors import Refused
from accounts.models import ApiKey, Member, Tenant, User
from jobs.models import Delivery, Job, Usage, Webhook, WebhookSecret
from storage.models import Bucket
from tests.admin.rows import Rows, get, list_url, page_url
from tests.admin.walk import GIVEN, PASSWORD, member, signed_in
from tests.cast import new_client, unique

pytestmark = pytest.mark.usefixtures("quick_passwords")


def button(row: Any, name: str) -> str:
    return page_url(row).replace("change", name)


@pytest.fixture
def tenant() -> Tenant:
    return Tenant.objects.create(name=unique("acme"))


@pytest.fixture
def owner(tenant: Tenant) -> Browser:
    return signed_in(member(tenant, "owner"))


def test_a_developer_cancels_and_retries_jobs_and_sends_deliveries_again(rows: Rows) -> None:
    browser = signed_in(member(rows.tenant, "developer"))
    job = Job.all_tenants.get(pk=rows.submit().uuid)
    failed = rows.add_delivery(state="failed", next_at=None, ended_at=timezone.now())
    other = Rows()
    other.add(1)
    theirs = other.add_delivery(state="failed", next_at=None, ended_at=timezone.now())
    assert button(job, "cancel") in get(browser, page_url(job))
    browser.post(button(job, "cancel"), GIVEN)
    assert Job.all_tenants.get(pk=job.pk).state == "CANCELLED"
    again = f"{list_url(Delivery)}replay_failed/"
    assert "There is no tenant" in browser.post(again, GIVEN | {"tenant": other.tenant.name}).content.decode()
    browser.post(again, GIVEN | {"tenant": ""})
    states = [Delivery.all_tenants.get(pk=each.pk).state for each in (failed, theirs)]
    assert states == ["pending", "failed"], "of all tenants means of all his own"


def test_usage_as_csv_is_of_his_tenants(rows: Rows) -> None:
    other = Rows()
    other.add(1)
    browser = signed_in(member(rows.tenant, "viewer"))
    for url in (f"{list_url(Usage)}this_month/", button(rows.tenant, "this_month")):
        lines = get(browser, url).splitlines()
        assert {line.partition(",")[0] for line in lines[1:]} == {rows.tenant.name}
    assert browser.get(button(other.tenant, "this_month")).status_code == 302


def test_an_owner_makes_and_revokes_keys(tenant: Tenant, owner: Browser) -> None:
    assert f"?tenant={tenant.pk}" in owner.get(button(tenant, "add_key"))["Location"]
    made = owner.post(f"{list_url(ApiKey)}add/", {"tenant": tenant.pk, "name": "made", "scopes": ["run"]})
    key = ApiKey.objects.of(tenant).get()
    assert f"hth_{key.prefix}_" in made.content.decode()
    owner.post(button(key, "revoke"), GIVEN)
    key.refresh_from_db(from_queryset=ApiKey.all_tenants.all())
    assert key.revoked_at


def test_an_owner_has_his_tenant_filled_in(tenant: Tenant, owner: Browser) -> None:
    for model in (ApiKey, Bucket, Webhook, WebhookSecret, Member):
        assert f'<option value="{tenant.pk}" selected>{tenant.name}</option>' in get(owner, f"{list_url(model)}add/")


def test_an_owner_looks_after_buckets_and_webhooks(tenant: Tenant, owner: Browser) -> None:
    bucket = {"tenant": tenant.pk, "name": "main", "endpoint_url": "https://s3.example.com", "s3_bucket": "b"}
    owner.post(f"{list_url(Bucket)}add/", bucket | {"access_key_id": "A", "secret": "S", "signed_urls": "on"})
    assert Bucket.objects.of(tenant).get().secret_access_key.unseal() == "S"
    webhook = {"tenant": tenant.pk, "given_url": "https://hooks.example.com/x", "kinds": ["completed"]}
    owner.post(f"{list_url(Webhook)}add/", webhook)
    (made,) = Webhook.objects.of(tenant)
    owner.post(button(made, "disable"), GIVEN)
    assert not Webhook.objects.of(tenant).get().enabled


def test_limits_and_grants_are_the_operators(rows: Rows) -> None:
    browser = signed_in(member(rows.tenant, "owner"))
    assert 'name="max_running"' not in get(browser, page_url(rows.tenant))
    assert 'name="weight"' not in get(browser, page_url(rows.acme.grant))
    assert browser.post(page_url(rows.tenant), {"name": rows.tenant.name, "max_running": 9}).status_code == 403
    assert browser.post(page_url(rows.acme.grant), {"weight": 9}).status_code == 403
    page = get(browser, page_url(rows.tenant))
    assert button(rows.tenant, "add_key") in page
    assert button(rows.tenant, "add_grant") not in page
    assert button(rows.tenant, "delete_all") not in page


def invite(browser: Browser, tenant: Tenant, name: str = "bob", role: str = "developer") -> str:
    given = {"tenant": tenant.pk, "name": name, "email": "bob@example.com", "role": role}
    return browser.post(f"{list_url(Member)}add/", given, follow=True).content.decode()


def link_in(page: str) -> str:
    found = re.search(r'value="(http[^"]+/set-password/[^"]+)"', page)
    assert found, page
    return found[1]


def set_a_password(link: str) -> str:
    """Follows the link as whoever has it; what the page says then."""
    stranger = Browser(SERVER_NAME="localhost")
    form = stranger.get(link[link.index("/admin/") :], follow=True)
    if not form.redirect_chain:
        return form.content.decode()
    given = {"new_password1": PASSWORD, "new_password2": PASSWORD}
    return stranger.post(form.redirect_chain[-1][0], given, follow=True).content.decode()


def test_who_is_invited_sets_a_password_by_a_link_and_signs_in(tenant: Tenant, owner: Browser) -> None:
    link = link_in(invite(owner, tenant))
    user = User.objects.get(username=f"bob@{tenant.name}")
    assert (user.is_staff, user.is_superuser, user.has_usable_password()) == (False, False, False)
    set_a_password(link)
    assert "not good any more" in set_a_password(link), "it is good once"
    bob = Browser(SERVER_NAME="localhost")
    bob.post("/admin/login/", {"username": user.username, "password": PASSWORD})
    assert tenant.name in get(bob, page_url(tenant))


def test_a_link_dies_when_its_user_is_given_a_place_elsewhere(tenant: Tenant, owner: Browser) -> None:
    """Else whoever kept it would come into another tenant by it."""
    link = link_in(invite(owner, tenant))
    bob = User.objects.get(username=f"bob@{tenant.name}")
    globex = Tenant.objects.create(name=unique("globex"))
    Member.all_tenants.create(tenant=globex, user=bob, role="owner")
    assert "not good any more" in set_a_password(link)
    mine = Member.objects.of(tenant).get(user=bob)
    assert button(mine, "password_link") not in get(owner, page_url(mine))
    assert "/set-password/" not in owner.get(button(mine, "password_link"), follow=True).content.decode()


@pytest.mark.parametrize("field", ["is_staff", "is_superuser"])
def test_a_link_dies_when_its_user_joins_the_operator(tenant: Tenant, owner: Browser, field: str) -> None:
    """Else an owner who kept it would be the operator by it."""
    link = link_in(invite(owner, tenant))
    User.objects.filter(username=f"bob@{tenant.name}").update(**{field: True})
    assert "not good any more" in set_a_password(link)


def test_an_owner_makes_a_link_for_a_user_of_his_tenant_alone(tenant: Tenant, owner: Browser) -> None:
    bob = member(tenant, "viewer")
    mine = Member.objects.of(tenant).get(user=bob)
    set_a_password(link_in(get(owner, button(mine, "password_link"))))
    bob.refresh_from_db()
    assert bob.check_password(PASSWORD)
    staff = User.objects.create_user(unique("staff"), is_staff=True)
    theirs = Member.all_tenants.create(tenant=tenant, user=staff, role="viewer")
    assert "/set-password/" not in owner.get(button(theirs, "password_link"), follow=True).content.decode()


def test_a_name_that_is_taken_elsewhere_is_free_here(tenant: Tenant, owner: Browser) -> None:
    """So nobody learns whom other tenants know."""
    globex = Tenant.objects.create(name=unique("globex"))
    invite(signed_in(member(globex, "owner")), globex, "carol")
    assert f"carol@{tenant.name}" in invite(owner, tenant, "carol")
    assert "already: choose another name" in invite(owner, tenant, "carol")
    assert "a–z, 0–9" in invite(owner, tenant, f"carol@{globex.name}")
    assert User.objects.filter(username__startswith="carol@", memberships__tenant__in=[tenant, globex]).count() == 2


def test_who_was_removed_cannot_come_in_and_may_be_invited_again(tenant: Tenant, owner: Browser) -> None:
    set_a_password(link_in(invite(owner, tenant)))
    place = Member.objects.of(tenant).get(user__username=f"bob@{tenant.name}")
    bob = signed_in(place.user)
    owner.post(page_url(place, "delete"), {"post": "yes"})
    assert bob.get("/admin/").status_code == 302
    link = link_in(invite(owner, tenant, role="viewer"))
    place.user.refresh_from_db()
    assert not place.user.has_usable_password(), "the old one is of the past"
    set_a_password(link)
    assert Member.objects.of(tenant).get(user=place.user).role == "viewer"


def test_the_last_owner_stays(tenant: Tenant, owner: Browser) -> None:
    last = Member.objects.of(tenant).get(role="owner")
    for url, given in ((page_url(last), {"role": "viewer"}), (page_url(last, "delete"), {"post": "yes"})):
        assert "without an owner" in owner.post(url, given, follow=True).content.decode()
    assert Member.objects.of(tenant).get().role == "owner"
    other = Member.objects.of(tenant).get(user=member(tenant, "owner"))
    owner.post(page_url(last), {"role": "viewer"})
    assert owner.post(page_url(other), {"role": "viewer"}).status_code == 403, "he is no owner any more"
    with pytest.raises(Refused, match="without an owner"):
        membership.remove(other)


def test_an_owner_reaches_no_user(tenant: Tenant, owner: Browser) -> None:
    """Neither his rights nor his password nor others' users."""
    bob = member(tenant, "viewer")
    for page in ("change", "delete", "history", "password", "set_password"):
        assert owner.get(page_url(bob).replace("change", page)).status_code in (302, 403), page
    owner.post(page_url(bob), {"username": bob.username, "is_superuser": "on", "is_staff": "on"})
    theirs = User.objects.create_user(unique("theirs"))
    given = {"tenant": tenant.pk, "user": theirs.pk, "role": "owner"}
    owner.post(f"{list_url(Member)}add/", given)
    bob.refresh_from_db()
    assert not bob.is_staff
    assert not bob.is_superuser
    assert not Member.objects.of(tenant).filter(user=theirs).exists()


def test_an_operator_names_any_user(browser: Browser, tenant: Tenant) -> None:
    user = User.objects.create_user(unique("dora"))
    browser.post(f"{list_url(Member)}add/", {"tenant": tenant.pk, "user": user.pk, "role": "viewer"})
    place = Member.objects.of(tenant).get()
    browser.post(page_url(place), {"role": "owner"})
    assert Member.objects.of(tenant).get().role == "owner"
    assert "/set-password/" in get(browser, button(place, "password_link"))


def test_a_member_follows_his_tenants_jobs_alone(web: Any, rows: Rows) -> None:
    browser = signed_in(member(rows.tenant, "viewer"))
    cookies = {name: cookie.value for name, cookie in browser.cookies.items()}
    theirs = new_client(rows.place, "globex").submit()
    with httpx.Client(base_url=web.url, cookies=cookies) as client:
        answers = [client.head(f"/admin/jobs/job/{job.uuid}/events") for job in (rows.submit(), theirs)]
    assert [answer.status_code for answer in answers] == [200, 404]


def test_a_members_export_is_of_his_tenants_jobs(web: Any, rows: Rows) -> None:
    theirs = new_client(rows.place, "globex").submit()
    browser = signed_in(member(rows.tenant, "viewer"))
    cookies = {name: cookie.value for name, cookie in browser.cookies.items()}
    with httpx.Client(base_url=web.url, cookies=cookies) as client:
        told = client.get("/admin/jobs/job/export").text
    assert rows.job
    assert str(rows.job.pk) in told
    assert str(theirs.uuid) not in told
