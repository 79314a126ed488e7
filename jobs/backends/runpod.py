"""RunPod's cloud, or another Hearth in its place: its serverless API as a client (protocol/runpod.md 2)."""

import math
import re
from functools import cache
from typing import Any, NoReturn

import httpx
import orjson
from django.conf import settings

from accounts.sealed import SealBroken, Sealed
from jobs.backends.base import (
    Backend,
    BackendError,
    Handover,
    Health,
    NotThere,
    NotUnderstood,
    OutcomeUnknown,
    Report,
    Submitted,
    Unwanted,
)
from jobs.states import FINAL, State
from jobs.wire.bodies import Part, Unreadable, shown, split_object

TIMEOUT = httpx.Timeout(20.0, connect=5.0)  # of a submit, whose outcome is dear; all else may be asked again
ASK_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
# After these nothing was sent; after any other httpx.RequestError the request may have arrived.
NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
MOST_RETRY_AFTER_S = 300.0


@cache
def client() -> httpx.Client:
    """The process's own, for its kept connections. Idle ones go after 5 s, well before the other side would hang up on
    a request that is on its way. A connection that cannot be made is tried twice."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=32, keepalive_expiry=5.0)
    return httpx.Client(transport=httpx.HTTPTransport(retries=1, limits=limits))


class RunPod(Backend):
    """One endpoint there. base_url: with /v2."""

    def __init__(self, base_url: str, endpoint_id: str, api_key: Sealed) -> None:
        self._endpoint_id, self._api_key = endpoint_id, api_key
        self._url = f"{base_url.rstrip('/')}/{endpoint_id}"

    def submit(self, handover: Handover) -> Submitted:
        try:
            answer = self._call("POST", "run", request_body(handover), {"Idempotency-Key": handover.once_key})
        except _Unanswered as error:
            raise OutcomeUnknown(str(error)) if error.sent else BackendError(str(error), permanent=False) from error
        if answer.status != 200:
            self._not_submitted(answer)
        try:
            remote_id = _named(orjson.loads(answer.body)["id"])
        except (ValueError, TypeError, KeyError):
            remote_id = ""
        if not remote_id:
            raise OutcomeUnknown(f"RunPod did not say the job's id: {answer.said()}")
        return Submitted(remote_id=remote_id)

    def _not_submitted(self, answer: "_Answer") -> NoReturn:
        """429 and 503 say that it was not taken. Other 5xx may come from a proxy that did not wait for the answer, and
        409, 422 from a Hearth that knows the Idempotency-Key."""
        if answer.status in (400, 413):
            raise Unwanted(f"RunPod refuses it: {answer.said()}")
        if answer.status in (408, 409, 422) or (answer.status >= 500 and not answer.is_refusal()):
            raise OutcomeUnknown(f"RunPod answered {answer.said()}", retry_after_s=answer.retry_after_s)
        self._failed(answer)

    def cancel(self, remote_id: str) -> None:
        self._ask("POST", f"cancel/{remote_id}", remote_id)

    def status(self, remote_id: str) -> Report:
        answer = self._ask("GET", f"status/{remote_id}", remote_id)
        if answer.cut:
            fault = f"it is larger than {settings.OUTPUT_MAX_BYTES} bytes"
            return Report(remote_id=remote_id, state=State.FAILED, fault=fault)
        try:
            return read_report(answer.body)
        except Unreadable as error:
            raise NotUnderstood(f"RunPod's status of {remote_id} is not readable: {error}") from error

    def health(self) -> Health:
        answer = self._ask("GET", "health", "")
        try:
            found = orjson.loads(answer.body)
            jobs, workers = found["jobs"], found["workers"]
            ready = sum(int(workers.get(name, 0)) for name in ("idle", "running", "initializing"))
            throttled, queued, running = workers.get("throttled", 0), jobs.get("inQueue", 0), jobs.get("inProgress", 0)
            return Health(workers=ready, throttled=int(throttled), queued=int(queued), running=int(running))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BackendError(f"{self._url}/health does not answer as RunPod does", permanent=True) from error

    def _ask(self, method: str, path: str, remote_id: str) -> "_Answer":
        """A request that may be repeated as often as one likes."""
        try:
            answer = self._call(method, path)
        except _Unanswered as error:
            raise BackendError(str(error), permanent=False) from error
        if answer.status == 404 and remote_id:
            raise NotThere(f"RunPod does not know the job {remote_id}")
        if remote_id and 400 <= answer.status < 500 and answer.status not in (401, 403, 408, 429):
            raise NotUnderstood(f"RunPod does not do it for the job {remote_id}: {answer.said()}")
        if answer.status != 200:
            self._failed(answer)
        return answer

    def _failed(self, answer: "_Answer") -> NoReturn:
        why = {
            401: "RunPod refuses the API key",
            403: "RunPod refuses the API key",
            404: f"RunPod knows no endpoint {self._endpoint_id}",
            429: "RunPod asks for fewer requests",
        }.get(answer.status, "RunPod does not do it")
        permanent = answer.status < 500 and answer.status not in (408, 429)
        raise BackendError(f"{why}: {answer.said()}", permanent=permanent, retry_after_s=answer.retry_after_s)

    def _call(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> "_Answer":
        sent = {"Authorization": f"Bearer {self._key()}", "Content-Type": "application/json"} | (headers or {})
        content, timeout = body if method == "POST" else None, TIMEOUT if path == "run" else ASK_TIMEOUT
        try:
            url = f"{self._url}/{path}"
            with client().stream(method, url, content=content, headers=sent, timeout=timeout) as response:
                return _Answer(response)
        except httpx.InvalidURL as error:
            raise BackendError(f"HEARTH_RUNPOD_URL is no URL: {error}", permanent=True) from error
        except (httpx.RequestError, httpx.StreamError) as error:
            raise _Unanswered(error) from error

    def _key(self) -> str:
        try:
            return self._api_key.unseal()
        except SealBroken as error:
            raise BackendError(f"RunPod's API key cannot be used: {error}", permanent=True) from error


class _Unanswered(Exception):
    """No answer came. `sent`: the request may have arrived."""

    def __init__(self, error: Exception) -> None:
        self.sent = not isinstance(error, NOT_SENT)
        super().__init__(f"RunPod did not answer ({type(error).__name__}: {error})"[:300])


class _Answer:
    """An answer, its body read up to OUTPUT_MAX_BYTES; `cut`: there was more."""

    def __init__(self, response: httpx.Response) -> None:
        self.status, self.body, self.cut = response.status_code, b"", False
        self.retry_after_s = _seconds(response.headers.get("retry-after", ""))
        chunks: list[bytes] = []
        size = 0
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > settings.OUTPUT_MAX_BYTES:
                self.cut = True
                return
            chunks.append(chunk)
        self.body = b"".join(chunks)

    def said(self) -> str:
        text = self.body[:300].decode(errors="replace").strip()
        return f"{self.status} {''.join(char if char.isprintable() else ' ' for char in text)}".strip()

    def is_refusal(self) -> bool:
        """Whether a 503 says that nothing was done; Hearth's "unavailable" says that it does not know."""
        return self.status == 503 and b'"unavailable"' not in self.body


def _seconds(retry_after: str) -> float:
    """Retry-After in seconds; a date is read as a while, since nobody's clock is ours."""
    if re.fullmatch(r"\d{1,9}", retry_after):
        return min(float(retry_after), MOST_RETRY_AFTER_S)
    return 60.0 if retry_after else 0.0


def request_body(handover: Handover) -> bytes:
    """The body of /run: the same bytes for the same handover."""
    body: dict[str, Any] = {"input": orjson.Fragment(handover.input)}
    if handover.webhook:
        body["webhook"] = handover.webhook
    body["policy"] = {"executionTimeout": handover.execution_timeout_ms, "ttl": handover.ttl_ms}
    if handover.s3_config is not None:
        body["s3Config"] = orjson.Fragment(handover.s3_config)
    return orjson.dumps(body)


REMOTE_ID = re.compile(r"[A-Za-z0-9._~-]{1,200}")
STATES = {state.value: state for state in State}


def read_report(body: bytes) -> Report:
    """RunPod's status JSON, as /status answers it and as a webhook brings it. Raises Unreadable."""
    parts = split_object(body)
    values = parts.values
    state = STATES.get(_value(values, "status"))
    if state is None:
        raise Unreadable(f"its `status` is {shown(_value(values, 'status'))}")
    output, error = values.get("output"), values.get("error")
    ran = _value(values, "executionTime")
    has_error = error is not None and error.value not in (None, "", False)
    return Report(
        remote_id=_named(_value(values, "id")),
        state=state,
        output=output.raw if output and not (output.value is None and state not in FINAL) else None,
        output_value=output.value if output else None,
        error=error.raw if error and has_error else None,
        error_value=error.value if error and has_error else None,
        execution_ms=_ms(ran),
        mended=parts.mended,
    )


def _value(values: dict[str, Part], name: str) -> Any:
    part = values.get(name)
    return part.value if part and (not isinstance(part.value, list | dict)) else None


def _named(remote_id: Any) -> str:
    """A job's id at RunPod, which goes into URLs; "" for what is none."""
    return remote_id if isinstance(remote_id, str) and REMOTE_ID.fullmatch(remote_id) else ""


def _ms(value: Any) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return int(value) if is_number and 0 <= value < 10**12 else None
