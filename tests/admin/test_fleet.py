"""Workers and tasks as the operator sees them."""

import re
from datetime import timedelta

import pytest
from django.test import Client as Browser
from django.utils import timezone
from django_q.models import Failure, OrmQ

from jobs.models import Worker
from tests.admin.rows import Rows, get, list_url, page_url

OLD = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("fields", "health"),
    [
        ({}, "alive"),
        ({"take_at": timezone.now() - OLD, "ping_at": None}, "gone"),
        ({"take_at": None}, "gone"),
        ({"unhealthy": "CUDA error"}, "unhealthy"),
    ],
)
def test_a_workers_health_is_shown_and_filtered_by(
    browser: Browser, rows: Rows, fields: dict[str, object], health: str
) -> None:
    Worker.objects.filter(pk=rows.worker.pk).update(**fields)
    for each in ("alive", "gone", "unhealthy"):
        page = get(browser, f"{list_url(Worker)}?q={rows.worker.name}&health={each}")
        assert (page_url(rows.worker) in page) is (each == health)
    page = get(browser, page_url(rows.worker))
    assert f"\n{health}\n" in page.replace("    ", "")


def test_a_worker_shows_the_attempts_it_holds(browser: Browser, rows: Rows) -> None:
    job = rows.submit().uuid
    rows.add_attempt(job, 1)
    page = get(browser, page_url(rows.worker))
    assert f"{job}-e1" in page
    assert rows.job
    assert rows.job.public_id not in page


def test_a_workers_node_catalogue_is_shown(browser: Browser, rows: Rows) -> None:
    catalogue = rows.worker.catalogue
    assert catalogue
    assert catalogue.sha256[:12] in get(browser, page_url(rows.worker))
    assert page_url(catalogue) in get(browser, f"{list_url(Worker)}?q={rows.worker.name}")
    page = get(browser, page_url(catalogue))
    assert catalogue.sha256 in page
    assert re.search(r"node classes.*?>\s*2\s*<", page, re.DOTALL | re.IGNORECASE)


def test_a_failed_task_says_why_and_can_be_submitted_again(browser: Browser, rows: Rows) -> None:
    failure = Failure.objects.get(name=rows.name)
    assert "ValueError: it broke" in get(browser, f"{list_url(Failure)}?q={rows.name}")
    assert "Traceback …\nValueError" in get(browser, page_url(failure))
    before = OrmQ.objects.count()
    browser.post(list_url(Failure), {"action": "resubmit", "_selected_action": [failure.pk]})
    assert OrmQ.objects.count() == before + 1
    assert not Failure.objects.filter(pk=failure.pk).exists()
