"""An operator runs a job's request again, as it was or changed; both pages lead to each other."""

import json
from typing import Any

import orjson
from django.contrib.auth.models import Permission
from django.test import Client as Browser
from django.utils import timezone

from accounts.models import ApiKey, Tenant, User
from jobs.models import Endpoint, Job
from tests.admin.rows import Rows, get, page_url
from tests.admin.test_jobs import POST, button
from tests.admin.walk import member, signed_in
from tests.cast import unique


def again(browser: Browser, job: Job, changes: Any = "", follow: bool = False) -> Any:
    given = POST | {"changes": changes if isinstance(changes, str) else json.dumps(changes)}
    return browser.post(button(job, "again"), given, follow=follow)


def made_of(job: Job) -> list[Job]:
    return list(Job.all_tenants.filter(run_again_of=job.public_id).select_related("payload").order_by("id"))


def test_the_button_makes_a_new_job_for_its_tenant(browser: Browser, rows: Rows) -> None:
    job = rows.add_job()
    assert button(job, "again") in get(browser, page_url(job))
    changes = {"input": {"workflow": {"1": {"inputs": {"color": 7}}}}, "s3Config": None}
    answered = again(browser, job, changes)
    (new,) = made_of(job)
    assert answered["Location"] == page_url(new)
    assert orjson.loads(new.payload.input)["workflow"]["1"]["inputs"]["color"] == 7
    assert (new.tenant, new.api_key_id, new.endpoint, new.state) == (
        job.tenant,
        job.api_key_id,
        job.endpoint,
        "IN_QUEUE",
    )
    assert f'href="{page_url(new)}"' in get(browser, page_url(job))
    assert f'href="{page_url(job)}"' in get(browser, page_url(new))


def test_what_is_no_patch_is_asked_for_again(browser: Browser, rows: Rows) -> None:
    job = rows.add_job()
    for changes in ("{", "[1]"):
        assert again(browser, job, changes).status_code == 200
    assert made_of(job) == []


def test_why_it_cannot_be_run_is_said(browser: Browser, rows: Rows) -> None:
    job = rows.add_job()  # its own bucket's secrets are wiped
    assert "S3 bucket that this job&#x27;s request named" in again(browser, job, follow=True).content.decode()
    Endpoint.objects.filter(pk=job.endpoint_id).update(mode="closed", message="Moving.")
    assert "takes no jobs at this time: Moving." in again(browser, job, follow=True).content.decode()
    assert made_of(job) == []


def test_another_key_of_the_tenant_stands_in_for_one_that_is_revoked(browser: Browser, rows: Rows) -> None:
    job = rows.add_job()
    keys = ApiKey.all_tenants.filter(tenant=job.tenant)
    keys.filter(pk=job.api_key_id).update(revoked_at=timezone.now())
    again(browser, job, {"s3Config": None})
    (new,) = made_of(job)
    assert new.api_key_id in keys.filter(revoked_at=None).values_list("pk", flat=True)
    keys.update(revoked_at=timezone.now())
    assert "no API key that may run jobs there" in again(browser, job, {"s3Config": None}, follow=True).content.decode()


def test_who_may_only_look_may_not_run(rows: Rows) -> None:
    job, staff = rows.add_job(), User.objects.create_user(unique("staff"), is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_job"))
    looker = Browser(SERVER_NAME="localhost")
    looker.force_login(staff)
    assert again(looker, job, {"s3Config": None}).status_code == 403
    assert made_of(job) == []


def test_a_developer_runs_his_tenants_jobs_within_its_limits_and_no_other(rows: Rows) -> None:
    job, theirs = rows.add_job(), Rows()
    theirs.add(1)
    assert theirs.job
    developer, viewer = signed_in(member(rows.tenant, "developer")), signed_in(member(rows.tenant, "viewer"))
    for browser, other in ((viewer, job), (developer, theirs.job)):
        again(browser, other, {"s3Config": None})
        assert made_of(other) == []
    again(developer, job, {"s3Config": None})
    assert len(made_of(job)) == 1
    Tenant.objects.filter(pk=rows.tenant.pk).update(max_queued=1)
    assert "1 queued job, which is its limit" in again(developer, job, {"s3Config": None}, True).content.decode()
    assert len(made_of(job)) == 1
