"""Finding, reading, cancelling and retrying jobs."""

import re
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.audit import Change
from accounts.models import User
from jobs.ids import attempt_id
from jobs.models import Event, Job, Payload
from jobs.states import State, end
from storage.models import Asset, Blob
from storage.outputs import signer
from tests.admin.rows import Rows, get, list_url, page_url
from tests.cast import new_client, new_place, row, unique

JOBS = list_url(Job)
POST = {"_form_submitted": "True"}


def button(job: Job, name: str) -> str:
    return page_url(job).replace("change", name)


@pytest.mark.parametrize("sync", [False, True])
def test_a_job_is_found_by_its_id_as_it_stands_in_any_log(browser: Browser, rows: Rows, sync: bool) -> None:
    job, other = row(rows.submit(sync=sync)), rows.add_job()
    ids = [job.public_id, str(job.pk), str(job.pk).upper(), attempt_id(job.pk, sync, 2), f"  {job.public_id} "]
    for text in ids:
        found = browser.get(JOBS, {"q": text}).content.decode()
        assert page_url(job) in found
        assert page_url(other) not in found


def test_a_job_is_found_by_the_beginning_of_its_workers_name(browser: Browser, rows: Rows) -> None:
    job, waiting = rows.add_job(), row(rows.submit())
    found = browser.get(JOBS, {"q": rows.worker.name[:-2]}).content.decode()
    assert page_url(job) in found
    assert page_url(waiting) not in found
    assert page_url(job) not in browser.get(JOBS, {"q": rows.worker.name[2:]}).content.decode()


def test_jobs_are_filtered_by_state_endpoint_and_tenant(browser: Browser, rows: Rows) -> None:
    completed, failed, queued = rows.add_job(), rows.add_job(State.FAILED), row(rows.submit())
    tenant, endpoint = {"tenant__id__exact": rows.tenant.pk}, {"endpoint__id__exact": rows.place.endpoint.pk}
    found = browser.get(JOBS, tenant | {"state__exact": ["FAILED", "IN_QUEUE"]}).content.decode()
    assert [page_url(job) in found for job in (completed, failed, queued)] == [False, True, True]
    assert page_url(queued) in browser.get(JOBS, endpoint).content.decode()
    elsewhere = new_client(new_place("raw"))
    for other in ({"tenant__id__exact": elsewhere.tenant.pk}, {"endpoint__id__exact": elsewhere.place.endpoint.pk}):
        assert page_url(queued) not in browser.get(JOBS, other).content.decode()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"from_0": -1}, True),
        ({"from_0": 1}, False),
        ({"to_0": -1}, False),
        ({"to_0": 1}, True),
        ({"from_0": -1, "to_0": 0, "from_1": "00:00:00", "to_1": "23:59:59"}, True),
        ({"from_0": 1, "to_0": 2}, False),
    ],
)
def test_jobs_are_filtered_by_when_they_were_created(browser: Browser, given: dict[str, Any], found: bool) -> None:
    job = row(new_client(new_place("raw")).submit({}))
    today = timezone.now().date()
    query = {
        f"created_at_{end}": str(today + timedelta(days=value)) if isinstance(value, int) else value
        for end, value in given.items()
    }
    text = browser.get(JOBS, query | {"tenant__id__exact": job.tenant_id}).content.decode()
    assert (page_url(job) in text) is found


def test_the_filter_by_time_goes_by_the_ids(browser: Browser) -> None:
    with CaptureQueriesContext(connection) as asked:
        browser.get(JOBS, {"created_at_from_0": "2030-01-01", "created_at_to_0": "2030-01-02"})
    assert any('"jobs_job"."id" >=' in each["sql"] and '"jobs_job"."id" <=' in each["sql"] for each in asked)


def test_tenants_are_offered_to_the_filter_by_name(browser: Browser, rows: Rows) -> None:
    query = {"term": rows.name, "app_label": "jobs", "model_name": "job", "field_name": "tenant"}
    found = orjson.loads(browser.get("/admin/autocomplete/", query).content)["results"]
    assert str(rows.tenant.pk) in [each["id"] for each in found]


def test_a_jobs_page_shows_what_happened_and_what_it_holds(browser: Browser, rows: Rows) -> None:
    job = rows.add_job(State.FAILED)
    Payload.objects.filter(job=job).update(error=b'"ComfyUI <broke>"', policy=b'{"ttl": 10000}')
    text = get(browser, page_url(job))
    shown = ("said so", rows.worker.name, "FAILED", "ComfyUI &lt;broke&gt;", "class_type", "&quot;ttl&quot;: 10000")
    for each in (*shown, f"{rows.name}/key.png", "https://127.0.0.1/hook?token=…", "picture.png"):
        assert each in text, each
    assert '<img src="http://127.0.0.1:9/b/' in text  # signed for the tenant's bucket


def test_a_jobs_page_shows_its_metadata_but_what_sounds_secret(browser: Browser, rows: Rows) -> None:
    job = row(rows.submit(metadata={"customer": "<b>Ünal</b>", "trial": True, "api_key": "s3cr3t"}))
    text = get(browser, page_url(job))
    for each in ("customer</span>", "&lt;b&gt;Ünal&lt;/b&gt;", '<code class="break-all">True', "api_key</span>"):
        assert each in text, each
    assert "s3cr3t" not in text


def test_a_films_preview_is_shown_and_leads_to_the_film(browser: Browser, rows: Rows) -> None:
    job = rows.add_job()
    Asset.objects.of(rows.tenant).filter(job_id=job.pk).update(preview=True, name="clip.mp4", kind="video")
    Blob.objects.of(rows.tenant).filter(job_id=job.pk).update(content_type="video/mp4")
    text = get(browser, page_url(job))
    assert re.search(
        r'<a [^>]*href="http://127.0.0.1:9/b/[^"?]+\.png\?[^"]+"[^>]*><img src="[^"]+\.preview\.webp\?', text
    )


def test_a_file_whose_bucket_cannot_sign_is_shown_by_name(browser: Browser, rows: Rows) -> None:
    job = rows.add_job()
    rows.bucket.secret_access_key.token = b"sealed by a lost key"
    rows.bucket.save()
    signer._kept.clear()
    text = get(browser, page_url(job))
    assert "picture.png" in text
    assert "<img" not in text


@pytest.mark.parametrize("raw", [b"{", b"[1, NaN]", b'"\\ud800"', b"[" * 50_000, b"\xff"])
def test_no_payload_breaks_the_page(browser: Browser, rows: Rows, raw: bytes) -> None:
    job = rows.add_job()
    Payload.objects.filter(job=job).update(input=raw, output=raw, error=raw, policy=raw)
    get(browser, page_url(job))


def test_jobs_cannot_be_added_changed_or_deleted_by_hand(browser: Browser, rows: Rows) -> None:
    job = rows.add_job()
    get(browser, f"{JOBS}add/", 403)
    get(browser, page_url(job, "delete"), 403)
    assert browser.post(page_url(job), {"state": "FAILED"}).status_code == 403
    assert row_of(job).state == "COMPLETED"


def row_of(job: Job) -> Job:
    return Job.all_tenants.get(pk=job.pk)


def test_buttons_are_those_that_make_sense(browser: Browser, rows: Rows) -> None:
    jobs = {state: rows.add_job(state) for state in (State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT)}
    jobs[State.IN_QUEUE] = row(rows.submit())
    offered = {
        state: [name for name in ("cancel", "retry") if button(job, name) in get(browser, page_url(job))]
        for state, job in jobs.items()
    }
    assert offered == {
        State.COMPLETED: [],
        State.FAILED: ["retry"],
        State.CANCELLED: [],
        State.TIMED_OUT: ["retry"],
        State.IN_QUEUE: ["cancel"],
    }


def test_a_job_is_cancelled_and_the_timeline_and_the_log_say_by_whom(
    browser: Browser, operator: User, rows: Rows
) -> None:
    job = row(rows.submit())
    assert browser.post(button(job, "cancel"), POST)["Location"] == page_url(job)
    assert row_of(job).state == "CANCELLED"
    last = Event.objects.filter(job=job).last()
    assert last
    assert (last.kind, last.text) == ("cancelled", f"by {operator.username} in the admin")
    line = Change.objects.get(row=str(job.pk))
    assert (line.who, line.did) == (f"user {operator}", "Cancelled.")
    assert "The job was cancelled." in get(browser, page_url(job))


def test_a_job_is_retried(browser: Browser, operator: User, rows: Rows) -> None:
    job = rows.add_job(State.FAILED)
    browser.post(button(job, "retry"), POST)
    now = row_of(job)
    assert (now.state, now.retries) == ("IN_QUEUE", 1)
    assert Event.objects.filter(job=job, kind="retried", text=f"by {operator.username} in the admin").exists()
    assert Change.objects.get(row=str(job.pk)).did == "Queued again."


def test_looking_at_a_dialog_changes_nothing(browser: Browser, rows: Rows) -> None:
    job = row(rows.submit())
    assert "Cancel the job?" in get(browser, button(job, "cancel"))
    assert row_of(job).state == "IN_QUEUE"


def test_what_came_too_late_is_said_and_changes_nothing(browser: Browser, rows: Rows) -> None:
    job = rows.add_job(State.COMPLETED)
    for name, said in (("cancel", "the job is COMPLETED"), ("retry", "Only FAILED and TIMED_OUT jobs can be retried")):
        browser.post(button(job, name), POST)
        assert said in get(browser, page_url(job))
    assert row_of(job).state == "COMPLETED"
    assert not Change.objects.filter(row=str(job.pk)).exists()


def test_a_retry_that_is_refused_says_why(browser: Browser, rows: Rows) -> None:
    job = rows.add_job(State.FAILED)
    Payload.objects.filter(job=job).update(request_bucket=None, request_bucket_wiped=True)
    browser.post(button(job, "retry"), POST)
    assert "kept for 24 h only" in get(browser, page_url(job))


@pytest.mark.parametrize("pk", ["nothing", "01a2093a-d5ca-7234-b16e-9e33650c0a44"])
def test_a_job_that_is_not_there_cannot_be_cancelled(browser: Browser, pk: str) -> None:
    assert browser.post(f"{JOBS}{pk}/cancel/", POST)["Location"] == JOBS


def test_staff_who_may_only_look_cannot_cancel(rows: Rows) -> None:
    job, staff = row(rows.submit()), User.objects.create_user(unique("staff"), is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_job"))
    browser = Browser(SERVER_NAME="localhost")
    browser.force_login(staff)
    assert button(job, "cancel") not in get(browser, page_url(job))
    assert browser.post(button(job, "cancel"), POST).status_code == 403
    browser.post(JOBS, {"action": "cancel_selected", "_selected_action": [job.pk]})
    assert row_of(job).state == "IN_QUEUE"


def test_a_dialog_is_not_posted_from_another_site(operator: User, rows: Rows) -> None:
    job, browser = row(rows.submit()), Browser(SERVER_NAME="localhost", enforce_csrf_checks=True)
    browser.force_login(operator)
    assert browser.post(button(job, "cancel"), POST).status_code == 403
    assert row_of(job).state == "IN_QUEUE"


def test_selected_jobs_are_cancelled_and_what_could_not_be_is_said(browser: Browser, rows: Rows) -> None:
    queued, completed = row(rows.submit()), rows.add_job()
    given = {"action": "cancel_selected", "_selected_action": [queued.pk, completed.pk]}
    text = browser.post(JOBS, given, follow=True).content.decode()
    assert (row_of(queued).state, row_of(completed).state) == ("CANCELLED", "COMPLETED")
    assert "1 job was cancelled." in text
    assert "1 ×: Nothing was changed: the job is COMPLETED." in text


def test_selected_jobs_are_retried(browser: Browser, rows: Rows) -> None:
    jobs = [rows.add_job(State.FAILED) for _ in range(2)]
    browser.post(JOBS, {"action": "retry_selected", "_selected_action": [job.pk for job in jobs]})
    assert {row_of(job).state for job in jobs} == {"IN_QUEUE"}


def test_progress_is_shown_while_a_job_runs(browser: Browser, rows: Rows) -> None:
    job = rows.submit().uuid
    rows.add_attempt(job, 1)
    Payload.objects.filter(job_id=job).update(progress=b'{"step": 4}')
    assert "&quot;step&quot;: 4" in get(browser, page_url(Job.all_tenants.get(pk=job)))
    with transaction.atomic():
        end(job, State.COMPLETED, "", released=True, output=b"{}")
