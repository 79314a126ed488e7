"""Rows of every kind that the admin shows, of one tenant, on endpoints of its own."""

import gzip
import secrets
from datetime import timedelta
from typing import Any

import orjson
from axes.models import AccessAttempt
from django.contrib import admin
from django.db import models, transaction
from django.test import Client as Browser
from django.urls import reverse
from django.utils import timezone
from django_q.models import OrmQ, Task
from django_q.signing import SignedPackage

import hearth.urls  # noqa: F401  loads the pages
from accounts.models import Member, Tenant, User, uuid7
from accounts.sealed import Sealed
from jobs.ids import JobId
from jobs.models import (
    Attempt,
    Catalogue,
    Deletion,
    Delivery,
    DeliveryTry,
    Endpoint,
    Grant,
    Job,
    Usage,
    Webhook,
    Worker,
    WorkerKey,
)
from jobs.states import State, end
from jobs.webhooks.register import roll_secret
from jobs.workflows import stored
from storage.models import Asset, Blob, Bucket
from tests.cast import WORKFLOW, new_client, new_place, unique

OWN_BUCKET = {"endpointUrl": "http://127.0.0.1:9/b", "accessId": "AKIAREQUEST", "bucketName": "b"}


class Rows:
    """`name` begins the name of every row. `secrets`: what must be on no page."""

    def __init__(self) -> None:
        self.name = unique("rows")
        self.place = new_place("hearth")
        self.acme = new_client(self.place, self.name)
        self.tenant: Tenant = self.acme.tenant
        self.bucket_secret = secrets.token_hex(20)
        self.request_secret = secrets.token_hex(20)
        self.keys = [self.acme.api_key, self.place.worker_key]
        self.webhook_secrets: list[str] = []
        self.job: Job | None = None

    def add(self, n: int) -> None:
        for _ in range(n):
            self._accounts()
            self._fleet()
            self.job = self.add_job()
            self._webhooks()
            self._tasks()

    def _accounts(self) -> None:
        new_client(self.place, self.name)  # a tenant
        self.user = user = User.objects.create_user(unique(self.name))
        Member.all_tenants.create(tenant=self.tenant, user=user)
        self.keys.append(self.acme.new_key(name=self.name))
        self.workflow = stored.create(self.tenant.pk, unique("flow"), WORKFLOW, [], self.name)
        self.bucket = Bucket.all_tenants.create(
            tenant=self.tenant,
            name=unique("bucket"),
            endpoint_url="http://127.0.0.1:9",
            s3_bucket="b",
            access_key_id="AKIATENANT",
            secret_access_key=Sealed.seal(self.bucket_secret),
        )

    def _fleet(self) -> None:
        endpoint = Endpoint.objects.create(name=unique(self.name), dialect="raw")
        Grant.all_tenants.create(tenant=self.tenant, endpoint=endpoint)
        Usage.all_tenants.create(tenant=self.tenant, endpoint=endpoint, day=timezone.now().date(), gpu_ms=1000)
        self.keys.append(WorkerKey.issue(endpoint=self.place.endpoint, name=self.name)[1])
        sha256, body = secrets.token_hex(32), gzip.compress(b'{"SaveImage": {}, "LoadImage": {}}')
        catalogue = Catalogue.objects.create(endpoint=self.place.endpoint, sha256=sha256, body=body)
        self.worker = Worker.objects.create(
            endpoint=self.place.endpoint, name=unique(self.name), take_at=timezone.now(), catalogue=catalogue
        )

    def _webhooks(self) -> None:
        url = "https://hooks.example.com/hearth?token=T0KEN"
        own = {"tenant": self.tenant}
        self.webhook = Webhook.all_tenants.create(**own, url=url, kinds=["completed"])
        self.webhook_secrets.append(roll_secret(self.tenant, timedelta(0)))
        self.delivery = self.add_delivery(job=self.job)

    def add_delivery(self, **fields: Any) -> Delivery:
        """To `webhook`, with a try."""
        own = {"tenant": self.tenant, "webhook": self.webhook, "lane": self.webhook.pk, "kind": "completed"}
        made: Delivery = Delivery.all_tenants.create(**own | fields)
        said = {"ms": 12, "status": 500, "answer": "<b>oops</b>"}
        DeliveryTry.all_tenants.create(tenant=self.tenant, delivery=made, **said)
        made.refresh_from_db(from_queryset=Delivery.all_tenants.all())
        return made

    def submit(self, **fields: Any) -> JobId:
        own = OWN_BUCKET | {"accessSecret": self.request_secret}
        return self.acme.submit(s3Config=own, webhook="https://127.0.0.1/hook?token=T0KEN", **fields)

    def add_job(self, to: State = State.COMPLETED) -> Job:
        """A job that ended on `worker`, with a file."""
        job = self.submit().uuid
        self.add_attempt(job, 1)
        Job.all_tenants.filter(pk=job).update(worker_name=self.worker.name)
        self.add_file(job)
        with transaction.atomic():
            end(job, to, "said so", released=True, output=orjson.dumps({"files": [f"{self.name}/key.png"]}))
        return Job.all_tenants.get(pk=job)

    def add_attempt(self, job: Any, number: int, **fields: Any) -> None:
        """The job's attempt that is open now."""
        now = timezone.now()
        values = {"worker": self.worker, "worker_name": self.worker.name, "handed_at": now, "started_at": now} | fields
        place = {"endpoint": self.place.endpoint, "grant": self.acme.grant}
        Attempt.objects.create(job_id=job, number=number, **place, **values)
        Job.all_tenants.filter(pk=job).update(state="IN_PROGRESS", attempt=number, started_at=now)

    def end_attempt(self, job: Any) -> None:
        now = timezone.now()
        Attempt.objects.filter(job_id=job, ended_at=None).update(ended_at=now, released_at=now, outcome="lost")

    def add_file(self, job: Any) -> None:
        own = {"tenant": self.tenant, "job_id": job}
        key = f"{self.name}/{secrets.token_hex(4)}.png"
        blob = Blob.all_tenants.create(
            **own, bucket=self.bucket, key=key, bytes=9, content_type="image/png", state="kept"
        )
        Asset.all_tenants.create(**own, blob=blob, name="picture.png", node="9", kind="image")
        Deletion.all_tenants.create(tenant=self.tenant, what="job", job_id=uuid7(), asked_by=self.name)

    def _tasks(self) -> None:
        now = timezone.now()
        ended = {"func": "jobs.tasks.dispatch", "args": (1,), "started": now, "stopped": now + timedelta(seconds=1)}
        for success, result in ((True, None), (False, "Traceback …\nValueError: it broke")):
            Task.objects.create(
                id=secrets.token_hex(16), name=self.name, success=success, result=result, cluster="fast", **ended
            )
        AccessAttempt.objects.create(
            username=self.name, ip_address="192.0.2.1", user_agent=unique("browser"), failures_since_start=1
        )
        package = {"id": secrets.token_hex(16), "name": self.name, "func": "jobs.tasks.dispatch", "args": (1,)}
        OrmQ.objects.create(key="not-run-by-tests", payload=SignedPackage.dumps(package))


MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label_lower)


def list_url(model: type[models.Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def page_url(row: models.Model, page: str = "change") -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{page}", args=[row.pk])


def no_rows(*prefixes: str) -> dict[str, object]:
    """What a page's form says of lists in it that are empty."""
    return {f"{prefix}-{name}_FORMS": 0 for prefix in prefixes for name in ("TOTAL", "INITIAL")}


def newest(model: type[models.Model], among: Any = None) -> models.Model:
    row = (model._default_manager.order_by("-pk") if among is None else among).first()
    assert row is not None, f"Rows.add makes no {model._meta.label}"
    return row


def get(browser: Browser, url: str, status: int = 200) -> str:
    """The page's text."""
    response = browser.get(url)
    assert response.status_code == status, f"{response.status_code} for {url}"
    return str(response.content.decode())
