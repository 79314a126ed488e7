"""dispatch(): brings an endpoint that is pushed to in line: stops there what ended here, asks what is silent, hands out
what the queue has. Any number may run at a time, and each may die at any point (remote.py). No transaction is open
during HTTP.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from accounts.sealed import SealBroken
from jobs import inline, remote, reported, uploads
from jobs.backends.base import (
    Backend,
    BackendError,
    Handover,
    NotThere,
    NotUnderstood,
    OutcomeUnknown,
    Report,
    Submitted,
    Unwanted,
)
from jobs.backends.dummy import Dummy
from jobs.backends.fleet import Fleet
from jobs.backends.runpod import RunPod
from jobs.depth import Holder
from jobs.ids import AttemptId
from jobs.inline import Inline, NotStored, Stored
from jobs.models import Endpoint
from jobs.queue import claim
from jobs.remote import Due
from jobs.reported import AtS3
from jobs.wake import wake_endpoint
from storage import objects
from storage.outputs import NotLookedAt
from worker.wire import Found

log = logging.getLogger("hearth.dispatch")
AT_ONCE = 8  # requests
LONGEST_S = 5.0  # then others have their turn; and a process that is told to end has ended before it is killed
KEEP_S, S3_S = 30.0, 10.0
MOST_REST_S, PERMANENT_REST_S = 60.0, 60.0


def backend_of(endpoint: Endpoint) -> Backend:
    if endpoint.backend == Endpoint.Backend.RUNPOD:
        return RunPod(settings.RUNPOD_URL, endpoint.runpod.remote_id, endpoint.runpod.api_key)
    return Fleet() if endpoint.backend == Endpoint.Backend.FLEET else Dummy()


def dispatch(endpoint_id: int) -> int:
    """Returns how many jobs were handed over."""
    endpoint = Endpoint.objects.select_related("runpod").get(pk=endpoint_id)
    backend = backend_of(endpoint)
    if backend.is_pulled or remote.rests(endpoint_id):
        return 0
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push") as pool:
        return Line(endpoint, backend, pool).attend()


def rest_s(failures: int, error: BackendError) -> float:
    """How long a backend that failed so often in a row is left alone: longer each time, and not all at once."""
    usual = PERMANENT_REST_S if error.permanent else min(MOST_REST_S, 2.0 ** min(failures, 10))
    return max(error.retry_after_s, usual * random.uniform(0.5, 1.0))


class Line:
    """One dispatcher's turn at one endpoint. Threads only talk to the backend; the database is this thread's."""

    def __init__(self, endpoint: Endpoint, backend: Backend, pool: ThreadPoolExecutor) -> None:
        self._endpoint, self._backend, self._pool = endpoint, backend, pool
        own = getattr(endpoint, "runpod", None)
        self._failures: int = own.failures if own else 0
        self._is_well = True
        self._holder = Holder(name=f"backend {endpoint.backend}", starts=backend.ends_at_once)
        self._claimed: list[AttemptId] = []
        self._until = time.monotonic() + LONGEST_S

    def attend(self) -> int:
        looks = remote.looks(self._endpoint.pk)
        throttled = self._look() if looks.due else looks.throttled
        while self._goes_on and self._attend_due():
            pass
        handed = self._push() if self._goes_on and not (throttled and looks.spills) else 0
        if not self._is_well:
            self._put_back()
        elif not self._goes_on:
            wake_endpoint(self._endpoint.pk, self._endpoint.backend)
        return handed

    @property
    def _goes_on(self) -> bool:
        return self._is_well and time.monotonic() < self._until

    def _look(self) -> bool:
        """Whether it answers is found out without a job; and whether it has no GPU for one."""
        try:
            health = self._backend.health()
        except BackendError as error:
            self._troubled(error)
            return False
        throttled = health.throttled > 0 and not health.workers
        remote.looked_at(self._endpoint.pk, throttled=throttled)
        return throttled

    def _well(self) -> None:
        if self._failures:
            self._failures = 0
            remote.well(self._endpoint.pk)

    def _troubled(self, error: BackendError) -> None:
        if not self._is_well:
            return  # one of the same moment
        self._is_well = False
        self._failures += 1
        log.warning("endpoint %s: %s", self._endpoint, error)
        remote.troubled(self._endpoint.pk, str(error), rest_s(self._failures, error))

    def _put_back(self) -> None:
        """What was claimed and cannot be handed over waits in the queue."""
        for attempt in remote.unsent(self._endpoint.pk):
            remote.not_taken(attempt, "RunPod takes no jobs at the moment")

    def _attend_due(self) -> bool:
        """Stop and ask a batch; whether there may be more."""
        found = remote.due(self._endpoint.pk, AT_ONCE)
        asked = [(due, self._pool.submit(self._ask(due))) for due in found]
        for due, future in asked:
            self._heard(due, future)
        return len(found) == AT_ONCE

    def _ask(self, due: Due) -> Callable[[], Any]:
        if due.ended:
            return lambda: self._backend.cancel(due.remote_id)
        if due.remote_id:
            return lambda: self._backend.status(due.remote_id)
        handover = remote.handover(due.attempt)
        return lambda: self._backend.submit(handover)

    def _heard(self, due: Due, future: "Future[Any]") -> None:
        if not due.remote_id:
            self._submitted(due.attempt, future)
            return
        try:
            report = future.result()
        except NotThere as error:
            remote.let_go(due.attempt, str(error))
        except NotUnderstood as error:  # it is asked again; the others go on
            log.warning("endpoint %s: %s", self._endpoint, error)
        except BackendError as error:
            self._troubled(error)
        else:
            self._well()
            if due.ended:
                remote.let_go(due.attempt, "it was cancelled")
            else:
                self._apply(due.attempt, report)

    def _push(self) -> int:
        """Submit what may be submitted now, many at a time once one has gone well."""
        out: dict[Future[Submitted], AttemptId] = {}
        handed, at_once = 0, 1
        while True:
            while self._goes_on and len(out) < at_once and (found := self._next()):
                attempt, handover = found
                out[self._pool.submit(self._backend.submit, handover)] = attempt
            if not out:
                return handed
            for future in wait(out, return_when=FIRST_COMPLETED).done:
                if self._submitted(out.pop(future), future):
                    handed, at_once = handed + 1, AT_ONCE

    def _next(self) -> tuple[AttemptId, Handover] | None:
        """The next attempt that this dispatcher sends: of those that were claimed before, else of the queue."""
        while True:
            if not self._claimed:
                self._claimed = remote.unsent(self._endpoint.pk) or self._claim()
            if not self._claimed:
                return None
            attempt = self._claimed.pop(0)
            try:
                if handover := remote.send(attempt):
                    return attempt, handover
            except SealBroken as error:
                remote.unwanted(attempt, f"Its bucket's secret cannot be read: {error}.")

    def _claim(self) -> list[AttemptId]:
        jobs = claim(self._endpoint.pk, self._holder, AT_ONCE).jobs
        return [AttemptId(job.job, job.number) for job in jobs]

    def _submitted(self, attempt: AttemptId, future: "Future[Submitted]") -> bool:
        """Whether the backend has it now."""
        try:
            submitted = future.result()
        except Unwanted as error:
            remote.unwanted(attempt, str(error))
            return False
        except OutcomeUnknown as error:
            remote.unknown(attempt, str(error))
            self._troubled(error)
            return False
        except BackendError as error:
            remote.not_taken(attempt, str(error))
            self._troubled(error)
            return False
        self._well()
        _keep_name(attempt, submitted.remote_id)
        if submitted.report:
            self._apply(attempt, submitted.report)
        return True

    def _apply(self, attempt: AttemptId, report: Report) -> None:
        """S3 comes first where nobody has asked yet whether the files are there, or they came inside of the result."""
        try:
            reported.apply(attempt, report)
        except NotLookedAt as error:
            found = self._asked([partial(objects.look, one) for one in uploads.wanted(attempt, error.blobs) or ()])
            absent = frozenset(UUID(one.id) for one in found if one and one.there is False)
            reported.apply(attempt, report, AtS3(absent=absent))
        except NotStored as error:
            stored = self._stored(attempt, error.inline)
            if stored.away:  # RunPod keeps the result and is asked again
                log.warning("endpoint %s: %s", self._endpoint, stored.faults[0])
            else:
                reported.apply(attempt, report, AtS3(stored=stored))

    def _stored(self, attempt: AttemptId, files: Sequence[Inline]) -> Stored:
        puts = inline.begin(attempt, files)
        if isinstance(puts, Stored):
            return puts
        found = self._asked([partial(objects.put, put.wanted, put.inline.content) for put in puts])
        late = Found(id="", there=None, code="TimeoutError")
        return inline.outcome(puts, [one or late for one in found])

    def _asked(self, questions: Sequence[Callable[[], Found]]) -> list[Found | None]:
        """What S3 says to each; None for what it has not said in time: one that hangs keeps nobody waiting for long."""
        futures = [self._pool.submit(question) for question in questions]
        _, late = wait(futures, timeout=S3_S)
        for future in late:
            future.cancel()
        found = [None if future in late else future.result() for future in futures]
        uploads.mark_stored([UUID(one.id) for one in found if one and (one.there or one.untold)])
        return found


def _keep_name(attempt: AttemptId, remote_id: str) -> None:
    """A restart of the database must not cost the name of what runs there: without it only a webhook could tell."""
    until = time.monotonic() + KEEP_S
    while True:
        try:
            return remote.taken(attempt, remote_id)
        except (OperationalError, InterfaceError):
            if time.monotonic() > until:
                raise
            connection.close()
            time.sleep(0.5)
