"""What /api/v1 answers, as its OpenAPI document says it; tests hold the answers to it."""

from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers as s
from rest_framework.serializers import Serializer

from accounts.models import ApiKey, Key
from jobs.models import Attempt, Endpoint, Event
from jobs.states import State
from storage.models import Asset


class Error(Serializer):  # type: ignore[misc]
    """What is wrong, which value, what to do; `code` is for programs. `nodes`: of a workflow, by node;
    `params`: of the parameters of a stored one, by name."""

    error = s.CharField()
    code = s.CharField()
    nodes = s.DictField(child=s.ListField(child=s.DictField()), required=False)
    params = s.DictField(child=s.ListField(child=s.DictField()), required=False)


class AnAsset(Serializer):  # type: ignore[misc]
    """A file: an upload, an input or an output."""

    id = s.UUIDField()
    source = s.ChoiceField(Asset.Source.choices)
    name = s.CharField()
    content_type = s.CharField()
    bytes = s.IntegerField()
    sha256 = s.CharField()
    job = s.CharField(required=False)
    node = s.CharField(required=False)
    kind = s.CharField(required=False)
    created_at = s.DateTimeField()
    expires_at = s.DateTimeField(allow_null=True)
    url = s.CharField(help_text="Signed now.")
    preview = s.CharField(allow_null=True, help_text="A small WebP of it, signed now.")


class Upload(Serializer):  # type: ignore[misc]
    """The PUT that brings the bytes to S3: exactly these headers."""

    method = s.CharField()
    url = s.CharField()
    headers = s.DictField(child=s.CharField())
    expires_in_s = s.IntegerField()


class ToUpload(Serializer):  # type: ignore[misc]
    """An announced file."""

    id = s.UUIDField()
    upload = Upload()


class KeyOfJob(Serializer):  # type: ignore[misc]
    prefix = s.CharField()
    name = s.CharField()


class ListedJob(Serializer):  # type: ignore[misc]
    """A job without what it was given and gave."""

    id = s.CharField()
    endpoint = s.CharField()
    place = s.CharField(help_text="The endpoint whose workers run it: another one, if it was moved.")
    status = s.ChoiceField(State.choices)
    priority = s.IntegerField()
    workflow = s.CharField(allow_null=True, help_text="The stored workflow that it named, and its version: portrait@3.")
    key = KeyOfJob(allow_null=True)
    created_at = s.DateTimeField()
    started_at = s.DateTimeField(allow_null=True)
    finished_at = s.DateTimeField(allow_null=True)
    delay_ms = s.IntegerField(allow_null=True)
    execution_ms = s.IntegerField(allow_null=True)
    worker = s.CharField(allow_null=True)
    attempt_count = s.IntegerField(help_text="Hand-overs to a worker so far.")
    retries = s.IntegerField()
    metadata = s.DictField(help_text="What its request said of it.")
    run_again_of = s.CharField(allow_null=True, help_text="The job whose request it was made of.")


class AnAttempt(Serializer):  # type: ignore[misc]
    """One hand-over of the job to a worker."""

    number = s.IntegerField()
    worker = s.CharField(allow_null=True)
    outcome = s.ChoiceField(Attempt.Outcome.choices, allow_null=True)
    handed_at = s.DateTimeField()
    started_at = s.DateTimeField(allow_null=True)
    ended_at = s.DateTimeField(allow_null=True)
    gpu_ms = s.IntegerField(allow_null=True)
    cost = s.CharField(allow_null=True)


class Line(Serializer):  # type: ignore[misc]
    """Of the timeline. `ms`: since the job was submitted; `after_ms`: since the line before."""

    at = s.DateTimeField()
    ms = s.IntegerField()
    after_ms = s.IntegerField()
    kind = s.ChoiceField(Event.Kind.choices)
    attempt = s.IntegerField()
    text = s.CharField(allow_blank=True)


class Waits(Serializer):  # type: ignore[misc]
    """Why a queued job waits."""

    position = s.IntegerField()
    estimate_s = s.IntegerField(allow_null=True)
    reason = s.CharField()
    text = s.CharField()


class OneJob(ListedJob):
    """A job with all that was kept of it."""

    attempts = AnAttempt(many=True)
    run_again_as = s.ListField(child=s.CharField(), help_text="Jobs that were made of its request, newest first.")
    timeline = Line(many=True)
    queue = Waits(allow_null=True)
    output = s.JSONField(allow_null=True)
    error = s.JSONField(allow_null=True)
    params = s.DictField(allow_null=True, help_text="What each parameter of that workflow was.")
    input = s.JSONField(required=False, allow_null=True)
    payload_deleted_at = s.DateTimeField(allow_null=True)


class Moved(Serializer):  # type: ignore[misc]
    id = s.CharField()
    status = s.ChoiceField(State.choices)


class Receipt(Serializer):  # type: ignore[misc]
    """Of a deletion, how far it is."""

    receipt = s.UUIDField()
    asked_at = s.DateTimeField()
    done_at = s.DateTimeField(allow_null=True)
    payloads = s.IntegerField()
    events = s.IntegerField()
    assets = s.IntegerField()
    files = s.IntegerField()
    bytes = s.IntegerField()
    out_of_reach = s.IntegerField()


class Bounds(Serializer):  # type: ignore[misc]
    """null: no limit."""

    max_queued = s.IntegerField(allow_null=True)
    max_running = s.IntegerField(allow_null=True)
    requests_per_10s = s.IntegerField(allow_null=True)
    gpu_s_a_month = s.IntegerField(allow_null=True)
    cost_a_month = s.CharField(allow_null=True)


class AKey(Bounds):
    """An API key; never its text."""

    prefix = s.CharField()
    name = s.CharField(allow_blank=True)
    scopes = s.ListField(child=s.ChoiceField(ApiKey.Scope.choices))
    endpoints = s.ListField(
        child=s.CharField(), help_text="It is good for these alone; empty: for all that you may use."
    )
    state = s.ChoiceField([Key.ACTIVE, Key.EXPIRED, Key.UNUSED, Key.REVOKED])
    good = s.BooleanField(help_text="Whether it is active.")
    created_at = s.DateTimeField()
    last_used_at = s.DateTimeField(allow_null=True)
    expires_at = s.DateTimeField(allow_null=True)
    revoked_at = s.DateTimeField(allow_null=True)


class NewKey(AKey):
    """With its text, this once."""

    key = s.CharField()


class ATenant(Bounds):
    id = s.UUIDField()
    name = s.CharField()
    max_stored_bytes = s.IntegerField(allow_null=True)
    unused_key_days = s.IntegerField(allow_null=True, help_text="So long unused its keys expire; null: never.")


class Me(Serializer):  # type: ignore[misc]
    tenant = ATenant()
    key = AKey()


class AnEndpoint(Serializer):  # type: ignore[misc]
    """An endpoint that the caller may use."""

    name = s.CharField()
    url = s.CharField()
    dialect = s.ChoiceField(Endpoint.Dialect.choices)
    mode = s.ChoiceField(Endpoint.Mode.choices)
    message = s.CharField(allow_null=True)
    weight = s.FloatField()
    max_running = s.IntegerField(allow_null=True)
    price = s.CharField(allow_null=True, help_text="Per GPU-second.")
    currency = s.CharField(allow_null=True)


class Endpoints(Serializer):  # type: ignore[misc]
    results = AnEndpoint(many=True)


class OneEndpoint(AnEndpoint):
    """With RunPod's health."""

    jobs = s.DictField(child=s.IntegerField())
    workers = s.DictField(child=s.IntegerField())


class Used(Serializer):  # type: ignore[misc]
    """What was used on an endpoint by a key, on a day or in a month."""

    endpoint = s.CharField()
    key = s.CharField(allow_null=True, help_text="Its prefix.")
    day = s.DateField(required=False)
    month = s.CharField(required=False)
    completed = s.IntegerField()
    failed = s.IntegerField()
    cancelled = s.IntegerField()
    timed_out = s.IntegerField()
    attempts = s.IntegerField()
    lost = s.IntegerField()
    gpu_ms = s.IntegerField()
    unbilled_gpu_ms = s.IntegerField()
    cost = s.CharField()
    bytes_in = s.IntegerField()
    bytes_out = s.IntegerField()


class UsageOf(Serializer):  # type: ignore[misc]
    currency = s.CharField(allow_null=True)
    results = Used(many=True)


def page(of: type[Serializer]) -> Any:
    """A page of a list, newest first."""
    url = {"allow_null": True, "required": True}
    fields = {"next": s.CharField(**url), "previous": s.CharField(**url), "results": of(many=True)}
    return inline_serializer(f"PageOf{of.__name__}", fields)


OF_METADATA = OpenApiParameter(
    "metadata.NAME", description="Jobs whose metadata has this value under this name; several: all of them."
)
ALWAYS = (401, 403, 429, 503)


def answers(
    summary: str,
    shape: Any,
    status: int = 200,
    *,
    given: Any = None,
    query: Any = None,
    errors: tuple[int, ...] = (),
    name: str | None = None,
) -> Callable[[Any], Any]:
    """What the OpenAPI document says of a method: its body and query, what it answers, and with which statuses it
    may refuse. `name`: its operationId, if that is not its path and method."""
    refusals = dict.fromkeys(sorted({*ALWAYS, *errors}), Error)
    return extend_schema(
        operation_id=name,
        summary=summary,
        request=given,
        parameters=list(query) if isinstance(query, tuple) else [query] if query else [],
        responses={status: shape, **refusals},
    )
