"""manage.py add_runpod_endpoint, and the endpoint's page: a key goes in and never comes out."""

from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client as Browser

from accounts.models import User
from jobs import history, waits
from jobs.models import Endpoint, RunpodEndpoint
from jobs.sight import see
from jobs.waits import why
from tests.admin.rows import get, no_rows, page_url
from tests.cast import new_place, row, unique
from tests.runpod.cloud import KEY, Cloud, Fault, There
from tests.runpod.pushed import Pushed


@pytest.fixture
def there(cloud: Cloud) -> There:
    return cloud.endpoints.setdefault("added", There())


def add(name: str, *options: str, key: str = KEY, monkeypatch: pytest.MonkeyPatch) -> str:
    out = StringIO()
    monkeypatch.setattr(settings, "RUNPOD_API_KEY", key)
    call_command("add_runpod_endpoint", name, "--id", "added", *options, stdout=out, stderr=out)
    return out.getvalue()


def test_it_checks_and_says_what_it_found(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique("gpu")
    said = add(name, "--max-in-flight", "7", "--dialect", "raw", "--wait", "60", monkeypatch=monkeypatch)
    assert "1 worker, 2 throttled" in said
    assert "will not reach it" in said, "HEARTH_URL is this machine"
    endpoint = Endpoint.objects.select_related("runpod").get(name=name)
    assert (endpoint.backend, endpoint.dialect, endpoint.max_running) == ("runpod", "raw", 7)
    assert (endpoint.runpod.remote_id, endpoint.runpod.wait_s, endpoint.runpod.keeps_keys) == ("added", 60, False)
    assert endpoint.runpod.api_key.unseal() == KEY
    assert KEY not in said


def test_the_key_may_come_by_the_standard_input(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(f"{KEY}\n"))
    name = unique("gpu")
    add(name, "--key", "-", key="", monkeypatch=monkeypatch)
    assert RunpodEndpoint.objects.get(endpoint__name=name).api_key.unseal() == KEY


def test_again_it_changes_what_is_there(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique("gpu")
    add(name, monkeypatch=monkeypatch)
    RunpodEndpoint.objects.filter(endpoint__name=name).update(failures=3, trouble="RunPod refuses the API key")
    add(name, "--max-in-flight", "2", "--hearth", monkeypatch=monkeypatch)
    found = RunpodEndpoint.objects.select_related("endpoint").get(endpoint__name=name)
    assert (found.endpoint.max_running, found.keeps_keys, found.failures, found.trouble) == (2, True, 0, "")


@pytest.mark.parametrize(
    ("key", "fault", "said"),
    [
        ("rpa_WRONG", None, "RunPod refuses the API key"),
        (KEY, Fault(status=404), "RunPod knows no endpoint added"),
        (KEY, Fault(status=500), "500"),
        (KEY, Fault(status=200, body=b"<html>"), "does not answer as RunPod does"),
        ("", None, "There is no API key"),
        ("two words", None, "characters that no key has"),
    ],
)
def test_it_says_what_is_wrong_and_changes_nothing(
    there: There, monkeypatch: pytest.MonkeyPatch, key: str, fault: Fault | None, said: str
) -> None:
    if fault:
        there.meets("health", fault)
    name = unique("gpu")
    with pytest.raises(CommandError, match=said) as caught:
        add(name, key=key, monkeypatch=monkeypatch)
    assert not key or key not in str(caught.value)
    assert not Endpoint.objects.filter(name=name).exists()


@pytest.mark.parametrize("name", ["No Name", "", "x" * 64])
def test_a_bad_name_is_refused(there: There, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(CommandError):
        add(name, monkeypatch=monkeypatch)


def test_an_endpoint_of_own_workers_stays_what_it_is(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="backend fleet"):
        add(new_place().name, monkeypatch=monkeypatch)


def test_an_endpoint_at_runpod_has_a_number_by_the_database(acme: Pushed) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Endpoint.objects.filter(pk=acme.endpoint_id).update(max_running=None)


@pytest.fixture
def browser() -> Browser:
    made = Browser(SERVER_NAME="localhost")
    made.force_login(User.objects.create_superuser(unique("operator")))
    return made


def form(endpoint: Endpoint, **fields: object) -> dict[str, object]:
    given = {"backend": endpoint.backend, "dialect": "raw", "prefetch": 1, "mode": "open", "max_running": 4}
    return given | no_rows("grants", "worker_keys", "runpod", "overflows") | fields


def test_the_page_takes_a_new_key_and_never_shows_one(browser: Browser, acme: Pushed) -> None:
    endpoint = acme.client.place.endpoint
    sealed = acme.runpod.api_key.token.decode()
    page = get(browser, page_url(endpoint))
    assert acme.runpod.remote_id in page
    assert KEY not in page
    assert sealed not in page
    runpod = {"runpod-TOTAL_FORMS": 1, "runpod-INITIAL_FORMS": 1, "runpod-0-endpoint": endpoint.pk}
    runpod |= {"runpod-0-remote_id": "another", "runpod-0-key": "rpa_NEW", "runpod-0-wait_s": 90}
    assert browser.post(page_url(endpoint), form(endpoint, **runpod)).status_code == 302
    assert (acme.runpod.remote_id, acme.runpod.api_key.unseal(), acme.runpod.wait_s) == ("another", "rpa_NEW", 90)
    assert browser.post(page_url(endpoint), form(endpoint, **runpod | {"runpod-0-key": ""})).status_code == 302
    assert acme.runpod.api_key.unseal() == "rpa_NEW"


def test_the_page_refuses_a_key_that_is_none(browser: Browser, acme: Pushed) -> None:
    endpoint = acme.client.place.endpoint
    runpod = {"runpod-TOTAL_FORMS": 1, "runpod-INITIAL_FORMS": 1, "runpod-0-endpoint": endpoint.pk}
    runpod |= {"runpod-0-remote_id": "another", "runpod-0-key": "rpa_ä", "runpod-0-wait_s": 90}
    assert "characters that no key has" in browser.post(page_url(endpoint), form(endpoint, **runpod)).content.decode()
    assert acme.runpod.api_key.unseal() == KEY


def test_the_page_makes_no_pushed_endpoint_without_a_place_at_runpod(browser: Browser) -> None:
    endpoint = new_place().endpoint
    answered = browser.post(page_url(endpoint), form(endpoint, backend="runpod"))
    assert "add_runpod_endpoint" in answered.content.decode()
    assert Endpoint.objects.get(pk=endpoint.pk).backend == "fleet"


def test_the_page_wants_the_number_of_jobs_at_runpod(browser: Browser, acme: Pushed) -> None:
    endpoint = acme.client.place.endpoint
    answered = browser.post(page_url(endpoint), form(endpoint, max_running=""))
    assert "needs a number of running jobs" in answered.content.decode()


def test_a_jobs_page_shows_its_webhooks_and_its_name_at_runpod(browser: Browser, acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.hears(job, "FAILED", error="<b>boom</b>")
    page = get(browser, page_url(row(job)))
    assert acme.remote(job) in page
    assert "applied: FAILED" in page
    assert "<b>boom" not in page


def test_a_waiting_job_is_told_whether_runpod_is_full_or_away(acme: Pushed) -> None:
    jobs = [acme.submit({"n": n}) for n in range(5)]
    acme.dispatch()
    waits._sights.clear()
    told = why(history.queued(row(jobs[4])))
    assert told
    assert (told["reason"], told["text"]) == ("limit", "The endpoint runs 4 jobs at a time.")
    RunpodEndpoint.objects.filter(endpoint=acme.endpoint_id).update(failures=1, trouble="away")
    assert see(acme.endpoint_id).workers == 0
    waits._sights.clear()
    told = why(history.queued(row(jobs[4])))
    assert told
    assert told["reason"] == "no_worker"
    assert "RunPod takes no jobs" in told["text"]
