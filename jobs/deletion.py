"""Deletion on request, of a job or of a whole tenant.

From the moment that it is asked for, nothing of it can be read (410). What there is of it goes step by step, each a
transaction or a talk with S3 of its own: whoever is killed, or finds S3 away, leaves the rest to the next (go_on), and
any number may be at it. The receipt says what went, and when nothing was left. Usage stays.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django_q.tasks import async_task

from accounts import sql
from accounts.errors import not_found
from accounts.models import ApiKey, Member, Tenant, User
from accounts.sealed import SealBroken
from jobs import absent, removal, tally
from jobs.lifecycle import cancel_job
from jobs.live import announce, job_key
from jobs.models import Deletion, Job, Webhook
from jobs.states import FINAL, lock
from storage import assets, objects
from storage.faults import LIST, S3Fault, told
from storage.models import Asset, Blob, Bucket
from storage.places import Place, full_key, operators_place, tenants_place

log = logging.getLogger("hearth.deletion")
BATCH = 200
WITHIN_S = 120.0
What = Deletion.What


def delete_job(job: UUID, by: str) -> Deletion:
    """End the job, and delete all that is its own. Twice is as good as once. Raises Refused: 404, 410."""
    with transaction.atomic():
        state = lock(job)
        if known := Deletion.all_tenants.filter(job_id=job).first():
            return known
        if state is None:
            raise absent.of(job)
        if state not in FINAL:
            cancel_job(job, f"deleted {by}")
        tenant_id = Job.all_tenants.values_list("tenant_id", flat=True).get(pk=job)
        made: Deletion = Deletion.all_tenants.create(tenant_id=tenant_id, what=What.JOB, job_id=job, asked_by=by)
        removal.empty([job], made.pk)
        announce(job_key(job))
        async_task("jobs.tasks.go_on_deleting", cluster="slow")
    made.refresh_from_db()
    return made


def delete_tenant(tenant_id: UUID, by: str) -> Deletion:
    """Revoke its keys, and delete all that is its own but its name, its keys' names, and what it used. Twice is as good
    as once. Raises Refused: 404."""
    with transaction.atomic():
        tenant = Tenant.objects.select_for_update(no_key=True).filter(pk=tenant_id).first()
        if tenant is None:
            raise not_found(f"There is no tenant {tenant_id}.")
        if known := Deletion.all_tenants.filter(tenant=tenant, what=What.TENANT).first():
            return known
        Tenant.objects.filter(pk=tenant_id).update(deleted_at=Now())
        ApiKey.objects.of(tenant).filter(revoked_at=None).update(revoked_at=Now())
        Webhook.objects.of(tenant).update(enabled=False)
        made: Deletion = Deletion.all_tenants.create(tenant=tenant, what=What.TENANT, asked_by=by)
        async_task("jobs.tasks.go_on_deleting", cluster="slow")
    made.refresh_from_db()
    return made


def to_do() -> bool:
    return Deletion.all_tenants.filter(done_at=None).exists()


@dataclass(frozen=True)
class Pass:
    """One pass: when it ends, and the S3s that failed in it. None is asked twice, so that one that is away does not
    keep the pass from all others."""

    ends: float
    failed: dict[Place, S3Fault] = field(default_factory=dict)

    def is_over(self) -> bool:
        return time.monotonic() > self.ends

    def clear(self, place: Place, folder: str) -> str:
        """All else that lies in that folder goes too, as uploads in parts that nobody knows of. Says what is not known.
        Raises S3Fault."""
        prefix = full_key(place, folder)
        if place in self.failed:
            raise self.failed[place]
        try:
            with told(place, LIST):
                objects.clear(place, prefix)
        except S3Fault as fault:
            if fault.kind == "permission":
                return f"Whether anything else lies below {prefix!r} is not known: {fault}"
            self.failed[place] = fault
            raise
        return ""


def go_on(within_s: float = WITHIN_S) -> int:
    """One pass over all that is not done, each as far as it comes now; how many are done."""
    now, done = Pass(time.monotonic() + within_s), 0
    for receipt in Deletion.all_tenants.filter(done_at=None).order_by("asked_at"):
        if now.is_over():
            break
        try:
            done += _job(receipt, now) if receipt.what == What.JOB else _tenant(receipt, now)
        except (S3Fault, SealBroken) as fault:
            log.warning("%s waits: %s", receipt, fault)
            tally.blame([receipt.pk], str(fault))
    return done


def _job(receipt: Deletion, now: Pass) -> bool:
    """Its row goes last, as it says which S3 bucket is its own."""
    assert receipt.job_id
    job = Job.all_tenants.select_related("bucket").filter(pk=receipt.job_id).first()
    note = ""
    if job:
        if not removal.removable([job.pk]):
            return False
        place = tenants_place(job.bucket) if job.bucket else operators_place(public=False)
        note = now.clear(place, f"{job.tenant_id}/{job.pk}/")
        removal.remove([job.pk], receipt.pk)
    return not _has_blobs(receipt) and _done(receipt, note)


def _tenant(receipt: Deletion, now: Pass) -> bool:
    tenant = receipt.tenant_id
    while not now.is_over() and (_end_some(tenant, receipt.pk) + _forget_some(tenant, receipt.pk)):
        pass
    for batch in _jobs(tenant):
        removal.remove(batch, receipt.pk)
        if now.is_over():
            return False
    if not _is_over(receipt):
        return False
    notes = [now.clear(place, f"{tenant}/") for place in _places(tenant)]
    with transaction.atomic():
        _only_its_own(tenant).delete()
        for statement in REST:
            sql.run(statement, [tenant])
    return _done(receipt, " ".join(note for note in notes if note))


WITH_CONTENT = """
SELECT id FROM jobs_job WHERE id = ANY (ARRAY(
       SELECT id FROM jobs_job WHERE tenant_id = %(tenant)s AND finished_at IS NOT NULL AND payload_gone_at IS NULL
        LIMIT %(batch)s)
    || ARRAY(SELECT j.id FROM jobs_grant g JOIN jobs_job j ON j.grant_id = g.id AND j.state = 'IN_QUEUE'
              WHERE g.tenant_id = %(tenant)s LIMIT %(batch)s)
    || ARRAY(SELECT a.job_id FROM jobs_grant g JOIN jobs_attempt a ON a.grant_id = g.id AND a.released_at IS NULL
              WHERE g.tenant_id = %(tenant)s AND a.ended_at IS NULL LIMIT %(batch)s))
   AND payload_gone_at IS NULL ORDER BY id LIMIT %(batch)s FOR NO KEY UPDATE SKIP LOCKED"""


def _end_some(tenant: UUID, receipt: UUID) -> int:
    """A batch of the tenant's jobs is ended and emptied."""
    with transaction.atomic():
        found = [id for (id,) in sql.rows(WITH_CONTENT, {"tenant": tenant, "batch": BATCH})]
        for job, finished in Job.all_tenants.filter(pk__in=found).values_list("pk", "finished_at"):
            if finished is None:
                cancel_job(job, "its tenant is deleted")
        removal.empty(found, receipt)
        announce(*(job_key(job) for job in found))
    return len(found)


def _forget_some(tenant: UUID, receipt: UUID) -> int:
    """A batch of its files that are of no job, and of what was never named or is held no more."""
    with transaction.atomic():
        found = list(Asset.all_tenants.filter(tenant_id=tenant).select_for_update(skip_locked=True)[:BATCH])
        assets.forget(found, receipt)
        tally.count(receipt, assets=len(found))
    loose = Blob.all_tenants.filter(tenant_id=tenant, assets=None, holds=None).exclude(state=Blob.State.DYING)
    with transaction.atomic():
        let_go = assets.let_go(loose.values_list("pk", flat=True)[:BATCH], receipt)
    return len(found) + let_go


def _jobs(tenant: UUID) -> Iterator[list[UUID]]:
    """All its jobs, in batches."""
    last = UUID(int=0)
    more = "SELECT id FROM jobs_job WHERE tenant_id = %s AND id > %s ORDER BY id LIMIT %s"
    while batch := [id for (id,) in sql.rows(more, [tenant, last, BATCH])]:
        yield batch
        last = batch[-1]


def _is_over(receipt: Deletion) -> bool:
    """Nothing is left, and nothing can come any more: upload URLs, and requests that were on their way, have ended."""
    wait_s = (settings.UPLOAD_URL_LIFETIME + assets.SLACK).total_seconds()
    over = "SELECT 1 FROM jobs_deletion WHERE id = %s AND asked_at < clock_timestamp() - %s * interval '1 s'"
    rows = (Job.all_tenants, Asset.all_tenants, Blob.all_tenants)
    return bool(sql.first(over, [receipt.pk, wait_s])) and not any(
        kind.filter(tenant_id=receipt.tenant_id).exists() for kind in rows
    )


def _has_blobs(receipt: Deletion) -> bool:
    return Blob.all_tenants.filter(deletion_id=receipt.pk).exists()


def _places(tenant: UUID) -> Iterator[Place]:
    yield operators_place(public=False)
    for bucket in Bucket.all_tenants.filter(tenant_id=tenant):
        yield tenants_place(bucket)


def _only_its_own(tenant: UUID) -> Any:
    """Members who are of no other tenant, nor the operator's staff."""
    elsewhere = Member.all_tenants.filter(user=OuterRef("pk")).exclude(tenant_id=tenant)
    own = User.objects.filter(is_staff=False, is_superuser=False, memberships__tenant_id=tenant)
    return own.exclude(Exists(elsewhere))


REST = (
    "DELETE FROM jobs_deliverytry WHERE tenant_id = %s",
    "DELETE FROM jobs_delivery WHERE tenant_id = %s",
    "DELETE FROM jobs_webhook WHERE tenant_id = %s",
    "DELETE FROM jobs_webhooksecret WHERE tenant_id = %s",
    "DELETE FROM jobs_idempotencykey WHERE tenant_id = %s",
    "DELETE FROM jobs_workflowversion WHERE tenant_id = %s",
    "DELETE FROM jobs_workflow WHERE tenant_id = %s",
    "DELETE FROM jobs_grant WHERE tenant_id = %s",
    "DELETE FROM storage_bucket WHERE tenant_id = %s",
    "DELETE FROM storage_gone WHERE tenant_id = %s",
    "DELETE FROM accounts_member WHERE tenant_id = %s",
)


def _done(receipt: Deletion, note: str) -> bool:
    done = Deletion.all_tenants.filter(Q(pk=receipt.pk) & Q(done_at=None)).update(done_at=Now(), fault=note)
    if done:
        log.info("%s is done: %s of %s", receipt, receipt.what, receipt.job_id or receipt.tenant_id)
    return bool(done)
