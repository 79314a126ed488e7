"""The operator deletes jobs and tenants, sees what became of it, and sets how long a tenant's things are kept."""

import builtins
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client as Browser
from django.urls import reverse

from accounts.models import ApiKey, Tenant, User
from jobs import retention
from jobs.deletion import go_on
from jobs.models import Deletion, Job
from tests.admin.rows import Rows, get, list_url, no_rows, page_url
from tests.cast import new_client, new_place

INLINES = ("api_keys", "grants", "members", "buckets", "webhooks")


def press(browser: Browser, row: Job | Tenant, button: str, **given: str) -> str:
    url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{button}", args=[row.pk])
    return str(browser.post(url, {"_form_submitted": "1", **given}, follow=True).content.decode())


def test_a_jobs_button_deletes_it_and_leads_to_its_receipt(browser: Browser, operator: User, rows: Rows) -> None:
    assert rows.job
    job = rows.job.pk
    assert "Delete the job" in get(browser, page_url(rows.job))
    page = press(browser, rows.job, "erase")
    receipt = Deletion.all_tenants.get(job_id=job)
    assert (receipt.asked_by, receipt.payloads) == (f"by {operator.username} in the admin", 1)
    assert "this says how far it is" in page
    assert "said so" not in get(browser, page_url(rows.job)), "its timeline and output are gone"
    assert str(receipt.pk) in get(browser, f"{list_url(Deletion)}?q={job}")


def test_looking_at_the_button_deletes_nothing(browser: Browser, rows: Rows) -> None:
    assert rows.job
    browser.get(reverse("admin:jobs_job_erase", args=[rows.job.pk]))
    assert not Deletion.all_tenants.filter(job_id=rows.job.pk).exists()


def test_a_tenant_is_deleted_by_its_name_and_no_other(browser: Browser, operator: User, rows: Rows) -> None:
    assert "That is another name." in press(browser, rows.tenant, "delete_all", name="globex")
    assert not Deletion.all_tenants.filter(what="tenant", tenant=rows.tenant).exists()
    page = press(browser, rows.tenant, "delete_all", name=rows.tenant.name)
    assert f"{rows.tenant.name} is deleted" in page
    assert not ApiKey.objects.of(rows.tenant).filter(revoked_at=None).exists()
    rows.tenant.refresh_from_db()
    assert rows.tenant.deleted_at
    assert Deletion.all_tenants.get(what="tenant", tenant=rows.tenant).asked_by.startswith(f"by {operator.username}")


def test_a_deleted_tenant_can_only_be_read(browser: Browser, rows: Rows) -> None:
    """What was made for it now would stay: it is deleted once."""
    page = get(browser, page_url(rows.tenant))
    assert all(text in page for text in ("Delete all", "Add", 'name="payload_days"', "This month"))
    press(browser, rows.tenant, "delete_all", name=rows.tenant.name)
    page = get(browser, page_url(rows.tenant))
    assert not any(text in page for text in ("Delete all", 'name="payload_days"'))
    assert "This month" in page
    given = {"name": "a", "scopes": ["run"], "tenant": str(rows.tenant.pk)}
    assert (
        "not one of the available choices" in browser.post(reverse("admin:accounts_apikey_add"), given).content.decode()
    )
    assert not ApiKey.objects.of(rows.tenant).filter(revoked_at=None).exists()


def test_the_days_of_a_tenant_are_set_on_its_page(browser: Browser) -> None:
    acme = new_client(new_place())
    given = {"name": acme.tenant.name, "payload_days": "30", "asset_days": "0", "event_days": ""}
    answered = browser.post(page_url(acme.tenant), given | no_rows(*INLINES))
    assert answered.status_code == 302, answered.content.decode()[-2000:]
    acme.tenant.refresh_from_db()
    assert (acme.tenant.payload_days, acme.tenant.asset_days, acme.tenant.event_days) == (30, 0, None)


def test_what_went_by_age_is_seen(browser: Browser, rows: Rows) -> None:
    Tenant.objects.filter(pk=rows.tenant.pk).update(payload_days=1)
    Job.objects.of(rows.tenant).update(finished_at="2026-01-01T00:00Z")
    retention.retain()
    receipt = Deletion.all_tenants.get(what="retention", tenant=rows.tenant)
    assert receipt.payloads == Job.objects.of(rows.tenant).count()
    assert str(receipt.pk) in get(browser, list_url(Deletion))
    assert rows.job
    assert "Payload gone at" in get(browser, page_url(rows.job))


def command(*argv: str) -> str:
    out = StringIO()
    call_command(*argv, stdout=out)
    return out.getvalue()


def test_the_commands_delete_and_say_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = new_client(new_place())
    job = acme.submit()
    said = command("delete_job", f"{job.uuid}-e1", "--by", "ticket 4711")
    assert f"job: {job.uuid}\n" in said
    assert "by ticket 4711\ndone: not yet\n" in said
    go_on()
    assert "done: 20" in command("delete_job", f"{job.uuid}-e1")
    monkeypatch.setattr(builtins, "input", lambda prompt: "globex")
    with pytest.raises(CommandError, match="Nothing was deleted: that is another name"):
        command("delete_tenant", acme.tenant.name)
    assert "what: tenant\n" in command("delete_tenant", acme.tenant.name, "--yes")
    assert Tenant.objects.get(pk=acme.tenant.pk).deleted_at
    for wrong in (("delete_job", "nothing"), ("delete_job", "01a2093a-d5ca-7234-b16e-9e33650c0a44-e1")):
        with pytest.raises(CommandError, match="job"):
            command(*wrong)
    with pytest.raises(CommandError, match="There is no tenant 'nobody'"):
        command("delete_tenant", "nobody")
