"""A job's page: where its time went, why it failed, the job as a command, its webhooks once more."""

import os
import re
import subprocess
from datetime import datetime, timedelta
from html import unescape
from typing import Any

import orjson
import pytest
from django.contrib.auth.models import Permission
from django.test import Client as Browser
from django.utils import timezone

from accounts.audit import Change
from accounts.models import User
from jobs.admin.bars import bars
from jobs.admin.shown import MASK
from jobs.models import Attempt, Event, Job, Payload
from jobs.states import State
from storage.models import Blob
from tests.admin.rows import Rows, get, page_url
from tests.cast import Client, new_client, new_place, row, unique

POST = {"_form_submitted": "True"}
T0 = timezone.now() - timedelta(hours=1)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def acme() -> Client:
    return new_client(new_place("raw"))


def submitted(client: Client, **fields: Any) -> Job:
    """At T0."""
    job = row(client.submit({}))
    Job.all_tenants.filter(pk=job.pk).update(**{"created_at": T0, "queued_at": T0} | fields)
    return Job.all_tenants.get(pk=job.pk)


def attempt(client: Client, job: Job, number: int, *times: float | None, outcome: str = "completed") -> None:
    """times: in seconds from T0, of hand-over, start, end, release."""
    names = ("handed_at", "started_at", "ended_at", "released_at")
    given = {name: None if s is None else at(s) for name, s in zip(names, times, strict=False)}
    place = {"endpoint": client.place.endpoint, "grant": client.grant, "worker_name": "w1"}
    Attempt.objects.create(job=job, number=number, outcome=outcome, **place, **given)


def event(job: Job, kind: str, seconds: float) -> None:
    Event.objects.create(job=job, kind=kind, at=at(seconds))


def drawn(job: Job) -> dict[str, Any]:
    attempts, events = Attempt.objects.filter(job=job).order_by("number"), Event.objects.filter(job=job)
    return bars(job, list(attempts), list(events))


def places(line: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """x and width of each bar, in percent."""
    return {bar["kind"]: (float(bar["x"][:-1]), float(bar["width"][:-1])) for bar in line["bars"]}


def test_a_jobs_bars_are_as_long_as_what_they_stand_for(acme: Client) -> None:
    job = submitted(acme, state="COMPLETED", finished_at=at(8))
    attempt(acme, job, 1, 2, 3, 8, 10)
    (line,) = drawn(job)["lines"]
    assert places(line) == {"waited": (0, 20), "handed": (20, 10), "ran": (30, 50), "held": (80, 20)}
    assert line["words"].replace("\u00a0", " ") == (
        "Attempt 1, w1: in the queue for 2.0 s, handed over, not yet started for 1.0 s, running for 5.0 s, "
        "ended, its worker not done with it for 2.0 s"
    )
    assert [tick["text"].replace("\u00a0", " ") for tick in drawn(job)["ticks"]][-1] == "10.0 s"


def test_uploads_are_drawn_over_the_attempt_that_made_them(acme: Client) -> None:
    job = submitted(acme, state="COMPLETED", finished_at=at(10))
    attempt(acme, job, 1, 0, 0, 10, 10)
    for begin, end in ((6, 8), (7, 9), (1, None)):
        made = Blob.all_tenants.create(
            tenant=acme.tenant, job_id=job.pk, attempt=1, key="k", bytes=1024, state="kept", sha256="0" * 64
        )
        Blob.all_tenants.filter(pk=made.pk).update(created_at=at(begin), stored_at=end and at(end))
    (line,) = drawn(job)["lines"]
    assert places(line)["uploaded"] == (60, 30)
    assert "(2 files, 2.0\u00a0KB)" in line["words"]


def test_a_lost_attempt_waits_again_and_a_retry_begins_anew_at_the_left(acme: Client) -> None:
    job = submitted(acme, state="FAILED", finished_at=at(1010), queued_at=at(1000), retries=1)
    attempt(acme, job, 1, 2, 2, 6, 6, outcome="lost")
    attempt(acme, job, 2, 8, 8, 20, 20, outcome="failed")
    attempt(acme, job, 3, 1004, 1005, 1010, 1010, outcome="failed")
    event(job, "failed", 20)
    event(job, "retried", 1000)
    lines = drawn(job)["lines"]
    assert [line["outcome"] for line in lines] == ["lost", "failed", "failed"]
    assert [places(line)["waited"] for line in lines] == [(0, 10), (30, 10), (0, 20)]
    assert [places(line)["ran"] for line in lines] == [(10, 20), (40, 60), (25, 25)]


def test_a_wait_that_led_to_no_attempt_is_a_line_of_its_own(acme: Client) -> None:
    job = submitted(acme, state="COMPLETED", finished_at=at(108), queued_at=at(100), retries=1)
    event(job, "timed_out", 10)
    event(job, "retried", 100)
    attempt(acme, job, 1, 105, 105, 108, 108)
    waited, ran = drawn(job)["lines"]
    assert (waited["name"], places(waited)) == ("In the queue", {"waited": (0, 100)})
    assert places(ran)["waited"] == (0, 50)


@pytest.mark.parametrize("gone", [False, True])
def test_a_job_that_goes_on_is_drawn_until_now_with_its_timeline_or_without(acme: Client, gone: bool) -> None:
    job = submitted(acme, state="IN_PROGRESS", attempt=1)
    attempt(acme, job, 1, 1800, 1800, outcome="")
    if gone:
        Event.objects.filter(job=job).delete()
    (line,) = drawn(job)["lines"]
    waited = 100 * 1800 / (timezone.now() - T0).total_seconds()  # the run of all tests may have begun long ago
    assert places(line)["waited"][1] == pytest.approx(waited, abs=1)
    assert places(line)["ran"][1] == pytest.approx(100 - waited, abs=1)


def test_a_queued_jobs_page_draws_its_wait(browser: Browser, acme: Client) -> None:
    text = get(browser, page_url(submitted(acme)))
    assert 'aria-label="In the queue: in the queue for 1 h' in unescape(text).replace("\u00a0", " ")
    assert re.search(r'<rect class="hearth-waited" x="0.000%" width="100.000%"', text)


def test_a_page_says_first_why_its_job_failed(browser: Browser, rows: Rows) -> None:
    job = rows.add_job(State.FAILED)
    Payload.objects.filter(job=job).update(error=orjson.dumps("Node 3: the <model> is missing"))
    text = get(browser, page_url(job))
    assert re.search(r'id="job-why">.*?Why it failed.*?Node 3: the &lt;model&gt; is missing.*?job-bars', text, re.S)
    assert "job-why" not in get(browser, page_url(rows.add_job()))


SIGNED = "https://s3.example.com/b/in.png?X-Amz-Credential=AK1A&X-Amz-Date=2026&X-Amz-Signature=51GN"


def test_nothing_on_it_opens_a_file_or_an_account(browser: Browser) -> None:
    """Signatures of URLs, passwords in them, and keys, wherever in a text they stand."""
    acme = new_client(new_place("raw"))
    given = {"a": SIGNED, "b": {"text": f"see {SIGNED}, or Bearer PL41NT0KEN"}, "c": "https://u:PA55@example.com/"}
    job = row(acme.submit(given | {"d": json_in(SIGNED), "e": acme.api_key, "f": "https://x.blob.net/?sv=1&sig=51GN"}))
    Payload.objects.filter(job=job).update(error=orjson.dumps(f"GET {SIGNED}: 403"), output=orjson.dumps([SIGNED]))
    Event.objects.create(job=job, kind="noted", text=f"GET {SIGNED}: 403")
    text = get(browser, page_url(job))
    for secret in ("AK1A", "51GN", "PL41NT0KEN", "PA55", acme.api_key[-20:]):
        assert secret not in text, secret
    assert f"in.png?X-Amz-Credential={MASK}&amp;X-Amz-Date=2026&amp;X-Amz-Signature={MASK}" in text


def json_in(text: str) -> str:
    return orjson.dumps({"url": text}).decode()


def command(page: str) -> tuple[str, str]:
    """The command on a page, and what is said below it."""
    found = re.search(r'id="job-curl".*?<textarea[^>]*>(.*?)</textarea>\s*<p[^>]*>(.*?)</p>', page, re.S)
    assert found
    return unescape(found[1]), unescape(found[2])


def test_the_command_of_a_job_submits_it_once_more(browser: Browser, acme: Client, web: Any) -> None:
    given = {"prompt": 'it\'s "so"\n$HOME `x` \\ é', "n": [1, 2.5, None]}
    job = row(acme.submit(given, policy={"ttl": 20_000}))
    text, note = command(get(browser, page_url(job)))
    assert "masked" not in note
    env = {"PATH": os.environ["PATH"], "HEARTH_API_KEY": acme.api_key}
    done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True, timeout=60)
    made = Job.all_tenants.select_related("payload").filter(tenant=acme.tenant).latest("id")
    assert orjson.loads(done.stdout)["id"] == made.public_id != job.public_id
    assert orjson.loads(bytes(made.payload.input)) == given
    assert (made.ttl_ms, acme.api_key in text) == (20_000, False)


def test_a_command_masks_what_is_secret_and_says_so(browser: Browser, acme: Client) -> None:
    text, note = command(get(browser, page_url(row(acme.submit({"api_key": "S3CRET", "url": SIGNED})))))
    assert "S3CRET" not in text
    assert "51GN" not in text
    assert "masked" in note


def test_a_large_input_is_a_file_of_the_command(browser: Browser, acme: Client) -> None:
    text, note = command(get(browser, page_url(row(acme.submit({"image": "A" * 100_000})))))
    assert text.endswith("--data @request.json")
    assert "request.json" in note


@pytest.mark.parametrize("given", [{"input": b"{"}, {"input": b"[" * 5000}, {"policy": b"{"}])
def test_what_is_no_json_is_no_command(browser: Browser, acme: Client, given: dict[str, bytes]) -> None:
    job = row(acme.submit({}))
    Payload.objects.filter(job=job).update(**given)
    assert "job-curl" not in get(browser, page_url(job))


def sent(rows: Rows, job: Job, state: str, **more: Any) -> Any:
    ended = {} if state == "pending" else {"next_at": None, "ended_at": timezone.now()}
    return rows.add_delivery(job=job, state=state, **ended | more)


def resend(browser: Browser, job: Job) -> str:
    url = page_url(job).replace("change", "resend")
    assert browser.post(url, POST)["Location"] == page_url(job)
    return get(browser, page_url(job))


def test_a_jobs_webhooks_are_sent_again_and_no_others(browser: Browser, rows: Rows) -> None:
    job, other = rows.add_job(), rows.add_job()
    failed, told = sent(rows, job, "failed", kind="failed"), sent(rows, job, "delivered", kind="started")
    outdated, theirs = sent(rows, job, "outdated", kind="retried"), sent(rows, other, "failed", kind="failed")
    assert "2 webhooks sent again." in resend(browser, job)
    states = []
    for delivery in (failed, told, outdated, theirs):
        delivery.refresh_from_db(from_queryset=type(delivery).all_tenants.all())
        states.append(delivery.state)
    assert states == ["pending", "pending", "outdated", "failed"]
    assert Change.objects.get(kind="jobs.job", row=str(job.pk)).did == "2 webhooks sent again."


def test_nothing_is_sent_to_a_disabled_webhook(browser: Browser, rows: Rows) -> None:
    job = rows.add_job()
    sent(rows, job, "failed", kind="failed")
    rows.webhook.enabled = False
    rows.webhook.save()
    assert "Nothing was sent" in resend(browser, job)


def test_sending_again_is_offered_where_something_was_sent_to_who_may(browser: Browser, rows: Rows) -> None:
    job = rows.add_job()
    url = page_url(job).replace("change", "resend")
    assert url not in get(browser, page_url(job))
    sent(rows, job, "failed", kind="failed")
    assert url in get(browser, page_url(job))
    staff, looks = User.objects.create_user(unique("staff"), is_staff=True), Browser(SERVER_NAME="localhost")
    staff.user_permissions.add(*Permission.objects.filter(codename="view_job"))
    looks.force_login(staff)
    assert url not in get(looks, page_url(job))
    assert looks.post(url, POST).status_code == 403


@pytest.mark.parametrize("pk", ["nothing", "01a2093a-d5ca-7234-b16e-9e33650c0a44"])
def test_the_webhooks_of_a_job_that_is_not_there_lead_home(browser: Browser, pk: str) -> None:
    assert browser.post(f"/admin/jobs/job/{pk}/resend/", POST)["Location"] == "/admin/jobs/job/"
