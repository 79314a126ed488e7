"""Files of our own worker at RunPod: put by slots that Hearth gave it, looked for before the job is completed."""

from typing import Any

import orjson
import pytest

from jobs import inputs
from jobs.models import Payload
from tests.conftest import Web
from tests.fleet.hooks import asset, file, put
from tests.fleet.wire import Answer, call, status
from tests.runpod.pushed import Pushed, error, kinds, state


def ask(web: Web, own: Pushed, what: str, body: Any) -> Answer:
    """As the worker does, by the way back in its input."""
    token = own.there.asked("run")[-1].json["input"]["_hearth"]["token"]
    return call("POST", f"{web.url}/hooks/worker/{token}/{what}", orjson.dumps(body))


def uploaded(web: Web, own: Pushed, *, put_it: bool = True) -> dict[str, Any]:
    """What the worker reports of one file."""
    assert ask(web, own, "started", {}).status == 200
    (slot,) = ask(web, own, "uploads", {"files": [file()]}).json["uploads"]
    if put_it:
        assert put(slot, b"abc").status == 200
    return {"files": [slot["key"]], "datas": {}, "assets": [asset(file(), slot)]}


@pytest.mark.parametrize("by", ["webhook", "status"])
def test_files_come_home_as_signed_urls(web: Web, own: Pushed, by: str) -> None:
    job = own.pushed()
    body = own.there.becomes(own.remote(job), "COMPLETED", output=uploaded(web, own), executionTime=900)
    if by == "webhook":
        assert call("POST", own.there.asked("run")[0].json["webhook"], body).status == 200
    else:
        own.attends(6)
    seen = status(web.url, own.client, job)
    assert seen["status"] == "COMPLETED"
    assert call("GET", seen["output"]["files"][0]).body == b"abc"
    assert kinds(job) == ["created", "handed", "started", "completed"]


@pytest.mark.parametrize("by", ["webhook", "status"])
def test_a_file_that_is_not_in_s3_fails_the_job(web: Web, own: Pushed, by: str) -> None:
    job = own.pushed()
    body = own.there.becomes(own.remote(job), "COMPLETED", output=uploaded(web, own, put_it=False))
    if by == "webhook":
        assert call("POST", own.there.asked("run")[0].json["webhook"], body).status == 200
    else:
        own.attends(6)
    assert state(job) == "FAILED"
    assert "S3 has it not" in error(job)


def test_after_a_cancel_the_worker_at_runpod_gets_nothing_more(web: Web, own: Pushed) -> None:
    job = own.pushed()
    own.client.cancel(job)
    assert [ask(web, own, what, body).status for what, body in (("started", {}), ("uploads", {"files": [file()]}))] == [
        409,
        409,
    ]


def test_the_worker_at_runpod_is_told_where_its_input_files_are(own: Pushed) -> None:
    place = inputs.Place(ref="asset:x", key="acme/x.png", name="x.png", bytes=3)
    job = own.submit()
    Payload.objects.filter(job=job.uuid).update(inputs=inputs.stored([place]))
    assert own.dispatch() == 1
    told = own.there.asked("run")[-1].json["input"]["_hearth"]["inputs"]["asset:x"]
    assert (told["name"], told["bytes"]) == ("x.png", 3)
    assert "X-Amz-Signature" in told["url"]
