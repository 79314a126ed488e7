"""No secret is on any page, in the admin's log or in the web's."""

import base64
import hashlib
from collections.abc import Iterator

import pytest
from django.db import models
from django.test import Client as Browser

from accounts.audit import Change
from accounts.models import ApiKey
from jobs.models import Job, Payload, WebhookSecret, WorkerKey
from jobs.states import State
from storage.models import Bucket
from tests.admin.rows import MODELS, OWN_BUCKET, Rows, list_url, newest, page_url
from tests.cast import new_client, new_place

PASSWORD = "a member's password"


def secrets_of(rows: Rows) -> Iterator[str]:
    """Plain, sealed and hashed, as they might be written."""
    yield from (rows.bucket_secret, rows.request_secret, "T0KEN", PASSWORD)
    for text in rows.keys:
        digest = hashlib.sha256(text.encode()).digest()
        yield from (text, text.split("_", 2)[2], digest.hex(), base64.b64encode(digest).decode())
    sealed = [bucket.secret_access_key for bucket in Bucket.objects.of(rows.tenant)]
    sealed += [secret.secret for secret in WebhookSecret.objects.of(rows.tenant)]
    yield from (text.removeprefix("whsec_") for text in rows.webhook_secrets)
    sealed += Payload.objects.exclude(request_bucket=None).values_list("request_bucket", flat=True)
    yield from (each.token.decode() for each in sealed)
    yield rows.user.password.rpartition("$")[2]


def pages_of(model: type[models.Model]) -> Iterator[str]:
    row = newest(model)
    yield from (list_url(model), f"{list_url(model)}add/", f"{list_url(model)}?q=e")
    yield from (page_url(row, page) for page in ("change", "history", "delete"))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label_lower)
def test_no_page_shows_a_secret(browser: Browser, model: type[models.Model]) -> None:
    rows = Rows()
    rows.add(1)
    rows.user.set_password(PASSWORD)
    rows.user.save()
    rows.add_job(State.FAILED)  # keeps its request's secret
    secrets = set(secrets_of(rows))
    assert len(secrets) > 20
    for url in pages_of(model):
        text = browser.get(url, follow=True).content.decode()
        assert not [secret for secret in secrets if secret in text], url


def test_the_page_of_a_failed_job_says_only_that_it_has_a_bucket_of_its_own(browser: Browser, rows: Rows) -> None:
    job = rows.add_job(State.FAILED)
    assert Payload.objects.get(job=job).request_bucket.unseal()
    text = browser.get(page_url(job)).content.decode()
    assert "the secrets sealed" in text
    assert OWN_BUCKET["accessId"] not in text


def test_secrets_in_the_input_of_a_raw_job_are_masked(browser: Browser) -> None:
    acme = new_client(new_place("raw"))
    given = {
        "tobucket": {"accessId": "A", "accessSecret": "S3CRET"},
        "workflow": '{"api_key": "IN-A-STRING"}',
        "keep": "K",
    }
    job = acme.submit(given)
    text = browser.get(page_url(Job.all_tenants.get(pk=job.uuid))).content.decode()
    assert "S3CRET" not in text
    assert "IN-A-STRING" not in text
    assert "&quot;keep&quot;: &quot;K&quot;" in text


@pytest.mark.parametrize("model", [ApiKey, WorkerKey])
def test_the_admins_log_keeps_no_key(browser: Browser, rows: Rows, model: type[models.Model]) -> None:
    owner = {"tenant": rows.tenant.pk, "endpoint": rows.place.endpoint.pk}
    browser.post(f"{list_url(model)}add/", owner | {"name": "logged", "scopes": ["run"]})
    line, made = Change.objects.latest("pk"), newest(model)
    assert line.name == f"{made.kind}_{made.prefix}_… logged"  # type: ignore[attr-defined]
