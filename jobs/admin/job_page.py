"""What a job's page shows below its facts: why it failed, its timeline, attempts, deliveries, files, and its JSON; one
query for each."""

import json
from datetime import datetime
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from unfold.utils import display_for_label

from accounts import sql
from accounts.admin.pages import Labels, change_url, uuid_in
from jobs import history
from jobs.admin.bars import bars
from jobs.admin.curl import curl
from jobs.admin.shown import MASK, READ_BYTES, duration, pretty, tidy, without_secrets
from jobs.granted import Holder
from jobs.models import Attempt, Delivery, Event, Job, Receipt
from jobs.models.metadata import metadata_of
from jobs.models.webhook import address
from jobs.search import run_again_as
from jobs.states import FINAL, State
from jobs.waits import why as waits_for
from jobs.webhooks.look import goes_to, last_outcome, with_last_try
from storage.admin import preview
from storage.models import Asset

STATES: Labels = {
    State.IN_QUEUE: "primary",
    State.IN_PROGRESS: "info",
    State.COMPLETED: "success",
    State.FAILED: "danger",
    State.TIMED_OUT: "warning",
    State.CANCELLED: "",
}
OUTCOMES: Labels = {"completed": "success", "failed": "danger", "timed_out": "warning", "lost": "warning"}
EVENTS: Labels = OUTCOMES | {"handed": "info", "started": "info", "created": "primary", "retried": "primary"}
SENT: Labels = {
    Delivery.State.PENDING: "info",
    Delivery.State.DELIVERED: "success",
    Delivery.State.FAILED: "danger",
    Delivery.State.OUTDATED: "",
}
FILES_SHOWN = 60
DELIVERIES_SHOWN = 60
WHY_CHARS = 1_000


def label(text: str, kind: str, colours: Labels) -> str:
    """A coloured label; `kind` picks the colour."""
    return str(display_for_label((kind, text), "-", {kind: colours.get(kind, "")}))


def job_page(job: Job) -> dict[str, Any]:
    """`is_live`: it goes on as the job does (live.js)."""
    waits = waits_for(history.queued(job)) if job.state == State.IN_QUEUE else None
    events = list(Event.objects.filter(job=job))
    handed = list(Attempt.objects.filter(job=job).select_related("worker").order_by("number"))
    tables = {"timeline": timeline(job, events), "attempts": attempts(handed), "deliveries": deliveries(job)}
    tables |= {"receipts": receipts(job), "bars": bars(job, handed, events), "lineage": lineage(job)}
    return {"is_live": job.state not in FINAL, "waits": waits, "files": files(job), **tables, **payload(job)}


def lineage(job: Job) -> dict[str, list[tuple[str, str]]]:
    """By how it is related, the jobs that share its request: each with its page, if it is there."""
    origin = uuid_in(job.run_again_of)
    of = [(job.run_again_of, reverse("admin:jobs_job_change", args=[origin]))] if origin else []
    made_of = run_again_as(Holder(key_id=0, tenant_id=job.tenant_id), job)
    return {"Run again of": of, "Run again as": [(str(made), change_url(made)) for made in made_of]}


def timeline(job: Job, events: list[Event]) -> dict[str, Any]:
    kinds = dict(Event.Kind.choices)
    rows = [
        (
            f"+{duration(event['ms'])}",
            duration(event["after_ms"]),
            label(kinds.get(event["kind"], event["kind"]), event["kind"], EVENTS),
            event["attempt"] or "-",
            without_secrets(event["text"]) or "-",
            unbroken(event["at"][:23].replace("T", " ")),
        )
        for event in history.timeline(job, events)
    ]
    return {"headers": ["After", "Since the last", "Event", "Attempt", "What was said", "At (UTC)"], "rows": rows}


def attempts(handed: list[Attempt]) -> dict[str, Any]:
    headers = ["Attempt", "Worker", "Handed over", "Confirmed", "Started", "Ended", "Outcome", "Slot freed", "GPU time"]
    return {"headers": headers, "rows": [_attempt(attempt) for attempt in handed]}


def _attempt(attempt: Attempt) -> tuple[Any, ...]:
    worker: Any = attempt.worker_name or "-"
    if attempt.sent_at:
        worker = f"{worker}: {attempt.remote_id or 'not known whether it was taken'}"
    if attempt.worker:
        worker = format_html('<a class="text-link" href="{}">{}</a>', change_url(attempt.worker), attempt.worker)
    outcome = label(attempt.get_outcome_display(), attempt.outcome, OUTCOMES) if attempt.outcome else "-"
    times = (attempt.confirmed_at, attempt.started_at, attempt.ended_at, attempt.released_at)
    confirmed, started, ended, released = (_after(attempt.handed_at, at) for at in times)
    return (
        attempt.number,
        worker,
        clock(attempt.handed_at),
        confirmed,
        started,
        ended,
        outcome,
        released,
        duration(attempt.gpu_ms),
    )


def deliveries(job: Job) -> dict[str, Any]:
    """What webhooks were told of it, the first ones."""
    found = with_last_try(Delivery.all_tenants.filter(job=job)).order_by("id")
    headers = ["News", "Receiver", "State", "Tries", "Last try", "Next try", "Delivery"]
    return {"headers": headers, "rows": [_delivery(delivery) for delivery in found[:DELIVERIES_SHOWN]]}


def _delivery(delivery: Any) -> tuple[Any, ...]:
    page = format_html('<a class="text-link" href="{}">{}</a>', change_url(delivery), delivery)
    state = label(delivery.state, delivery.state, SENT)
    last = last_outcome(delivery) or "-"
    return (delivery.kind, goes_to(delivery), state, delivery.tries, last, clock(delivery.next_at), page)


def receipts(job: Job) -> dict[str, Any]:
    """RunPod's webhooks."""
    rows = [
        (receipt.attempt, clock(receipt.at), receipt.outcome, filesizeformat(receipt.bytes), said(receipt.said))
        for receipt in Receipt.objects.filter(job=job)
    ]
    return {"headers": ["Attempt", "At (UTC)", "What came of it", "Size", "What it said"], "rows": rows}


def said(text: str) -> str:
    return format_html('<code class="text-xs break-all">{}</code>', without_secrets(text) or "-")


def clock(at: datetime | None) -> str:
    return unbroken(at.strftime("%Y-%m-%d %H:%M:%S")) if at else "-"


def unbroken(text: str) -> str:
    return format_html('<span class="whitespace-nowrap">{}</span>', text)


def _after(since: datetime, at: datetime | None) -> str:
    return f"+{duration((at - since).total_seconds() * 1000)}" if at else "-"


def files(job: Job) -> dict[str, Any]:
    """The first files of its output, to see or fetch."""
    found = Asset.all_tenants.filter(job_id=job.pk).select_related("blob__bucket").order_by("position", "id")
    assets = list(found[: FILES_SHOWN + 1])
    shown = [{"file": preview(asset), "asset": asset, "url": change_url(asset)} for asset in assets[:FILES_SHOWN]]
    return {"shown": shown, "more": len(assets) > FILES_SHOWN}


def _part(name: str) -> str:
    return f"octet_length({name}), CASE WHEN octet_length({name}) <= %(most)s THEN {name} END"


PARTS = ("error", "output", "progress", "policy", "params", "input")
PAYLOAD = f"""
SELECT webhook, request_bucket IS NOT NULL, request_bucket_wiped, {", ".join(_part(name) for name in PARTS)}
  FROM jobs_payload WHERE job_id = %(job)s"""


def payload(job: Job) -> dict[str, Any]:
    """`given`: what came beside the input; `parts`: the JSON there is; `why`: its error in words; `curl`: the job once
    more. The sealed secrets are not even read."""
    webhook, own_bucket, wiped, *columns = sql.first(PAYLOAD, {"job": job.pk, "most": READ_BYTES}) or ("", False, False)
    found = {
        name: (size, None if raw is None else bytes(raw))
        for name, size, raw in zip(PARTS, columns[::2], columns[1::2], strict=False)
        if size is not None
    }
    parts = [{"title": name.capitalize(), **pretty(raw, size)} for name, (size, raw) in found.items()]
    bucket = "its own, the secrets wiped" if wiped else "its own, the secrets sealed" if own_bucket else ""
    raw = {name: raw for name, (_, raw) in found.items()}
    given = {"webhook": address(webhook), "request_bucket": bucket, "metadata": tidy(metadata_of(job)), "parts": parts}
    return given | {"why": why(raw.get("error")), "curl": curl(job, raw.get("input"), raw.get("policy"))}


def why(error: bytes | None) -> str:
    """An error in words, its beginning; "" if there is none."""
    if not error:
        return ""
    try:
        value = tidy(json.loads(error))
    except (ValueError, RecursionError):
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.encode("utf-8", "backslashreplace").decode()  # lone surrogates, as in pretty()
    return text if len(text) <= WHY_CHARS else text[:WHY_CHARS] + MASK
