"""GET /api/v1/jobs/<id>/events: a job's news to its end, in order, resumed without loss, and nobody else's."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from accounts.errors import Refused
from jobs import following, lifecycle, loss, news
from jobs.history import have_news
from jobs.live import Hub, news_key
from jobs.models import Job
from jobs.queue import Claimed
from jobs.wire import news as wire
from tests.cast import WORKFLOW, attempt_of, new_client
from tests.wire.api import Api, check_refusal, finish, job_of, job_row, until
from tests.wire.sse import Stream

PROGRESS = {"fraction": 0.5, "node": "3", "class_type": "KSampler", "title": "Sample", "value": 10, "max": 20}


def path(job: str) -> str:
    return f"/api/v1/jobs/{job}/events"


def ask(api: Api, job: str, **headers: str) -> Any:
    return api.http.get(path(job), headers={"Authorization": api.authorization, **headers})


def tell(api: Api, claimed: Claimed, progress: str | dict[str, Any], worker: str = "w1") -> None:
    """A worker's progress, as the SDK sends it."""
    raw = progress if isinstance(progress, str) else json.dumps(progress)
    url = f"/v2/{api.endpoint}/job-done/{worker}/{claimed.job}-e1"
    body = f'{{"status": "IN_PROGRESS", "output": {raw}}}'
    answered = api.http.post(url, content=body, headers={"Authorization": api.place.worker_key})
    assert answered.status_code == 200


def test_a_whole_life_is_told_in_order_and_ends_with_the_status(own_acme: Api) -> None:
    job = own_acme.run({"workflow": WORKFLOW})
    stream = Stream(own_acme, job)
    stream.has("queue", position=1)
    claimed = own_acme.take()
    stream.has("state", event="handed")
    news.started(attempt_of(claimed))
    stream.has("state", event="started", status="IN_PROGRESS", attempt=1)
    tell(own_acme, claimed, PROGRESS)
    assert stream.has("progress").data == PROGRESS
    finish(own_acme, claimed, {"files": [], "assets": [], "datas": {}})
    said = stream.end()
    assert stream.moves == ["created", "handed", "started", "completed"]
    assert (said[-1].kind, said[-1].id) == ("end", "4-end")
    assert said[-1].data == own_acme.status(job)
    assert [x.id for x in said if x.kind == "state"] == ["1", "2", "3", "4"]
    assert stream.raw[0].startswith("retry: ")


def test_a_job_that_has_ended_is_told_at_once_and_whole(acme: Api) -> None:
    job = acme.run()
    loss.lose(acme.take().job, 1, "its worker went away")
    finish(acme, acme.take(), {"seen": 1})
    said = Stream(acme, job).end()
    assert [(x.kind, x.data.get("event")) for x in said] == [
        *(("state", kind) for kind in ("created", "handed", "lost", "handed", "completed")),
        ("end", None),
    ]
    assert (said[2].data["why"], said[2].data["status"]) == ("its worker went away", "IN_QUEUE")
    assert said[-1].data == acme.status(job)


def test_whatever_was_heard_last_the_rest_follows_and_nothing_twice(acme: Api) -> None:
    job = acme.run()
    finish(acme, acme.take())
    whole = Stream(acme, job).end()
    for n, last in enumerate(whole[:-1]):
        assert Stream(acme, job, last.id).end() == whole[n + 1 :]


def test_a_stream_that_broke_off_goes_on_where_it_was(acme: Api) -> None:
    job = acme.run()
    first = Stream(acme, job)
    first.has("state", event="created")
    first.close()
    claimed = acme.take()
    tell(acme, claimed, '{"fraction": 0.4}')
    second = Stream(acme, job, first.said[-1].id)
    assert second.has("progress").data == {"fraction": 0.4}
    finish(acme, claimed)
    second.end()
    assert first.moves + second.moves == ["created", "handed", "completed"]


@pytest.mark.parametrize("nonsense", ["x", "-1", "1.5", "99999999999999999999", "2-fin"])
def test_an_id_that_is_none_begins_from_the_start(acme: Api, nonsense: str) -> None:
    job = acme.run()
    acme.post(f"cancel/{job}")
    stream = Stream(acme, job, nonsense)
    stream.end()
    assert stream.moves == ["created", "cancelled"]


def test_who_has_heard_the_end_is_told_to_stay_away_until_the_job_is_retried(acme: Api) -> None:
    job = acme.run()
    finish(acme, acme.take(), error="boom")
    last = Stream(acme, job).end()[-1]
    assert ask(acme, job, **{"Last-Event-ID": last.id}).status_code == 204
    acme.post(f"retry/{job}")
    stream = Stream(acme, job, last.id)
    stream.has("queue")
    finish(acme, acme.take())
    assert stream.end()[-1].data["status"] == "COMPLETED"
    assert stream.moves == ["retried", "handed", "completed"]


def test_the_queue_is_told_again_when_it_has_moved(acme: Api) -> None:
    before, job = acme.run(), acme.run()
    stream = Stream(acme, job)
    waits = stream.has("queue", position=2).data
    assert waits.keys() == {"position", "estimate_s", "reason", "text"}
    assert waits["reason"] == "no_worker"
    acme.post(f"cancel/{before}")
    stream.has("queue", position=1)
    acme.post(f"cancel/{job}")
    assert stream.end()[-1].data["status"] == "CANCELLED"


def test_progress_is_told_as_the_furthest_and_not_after_the_end(acme: Api) -> None:
    job = acme.run()
    claimed = acme.take()
    for fraction in (0.2, 0.6, 0.4):
        tell(acme, claimed, {"fraction": fraction})
    stream = Stream(acme, job)
    assert stream.has("progress").data == {"fraction": 0.6}
    finish(acme, claimed, "done")
    tell(acme, claimed, {"fraction": 0.9})
    stream.end()
    assert [x.data for x in stream.said if x.kind == "progress"] == [{"fraction": 0.6}]
    assert acme.status(job)["output"] == "done"


def test_many_reports_make_few_events(acme: Api) -> None:
    job = acme.run()
    claimed = acme.take()
    stream = Stream(acme, job)
    for n in range(60):
        tell(acme, claimed, {"fraction": n / 100})
    stream.has("progress", fraction=0.59)
    assert len([x for x in stream.said if x.kind == "progress"]) < 30
    acme.post(f"cancel/{job}")


def test_json_over_many_lines_arrives_as_it_was_sent(acme: Api) -> None:
    job = acme.run()
    claimed = acme.take()
    stream = Stream(acme, job)
    tell(acme, claimed, '{"fraction": 0.1,\r\n "text": "a\\nb",\n\n "more": [1,\r 2]}')
    assert stream.has("progress").data == {"fraction": 0.1, "text": "a\nb", "more": [1, 2]}
    acme.job_done(job, b'{"output": {"a":\n\n1}}')
    assert stream.end()[-1].data["output"] == {"a": 1}


def test_a_progress_too_large_for_a_stream_is_left_to_the_status(acme: Api) -> None:
    job = acme.run()
    claimed = acme.take()
    tell(acme, claimed, {"fraction": 0.1, "text": "x" * 70_000})
    stream = Stream(acme, job)
    stream.has("state", event="handed")
    assert acme.status(job)["output"]["fraction"] == 0.1
    finish(acme, claimed)
    assert [x.kind for x in stream.end() if x.kind == "progress"] == []


def test_a_lost_attempts_progress_is_not_the_next_ones(acme: Api) -> None:
    job = acme.run()
    claimed = acme.take()
    stream = Stream(acme, job)
    tell(acme, claimed, {"fraction": 0.7})
    stream.has("progress", fraction=0.7)
    loss.hand_back(claimed.job, 1, "the worker shuts down", loss.SHUTDOWN)
    stream.has("queue")
    again = acme.take("w2")
    url = f"/v2/{acme.endpoint}/job-done/w2/{again.job}-e1-a2"
    body = b'{"status": "IN_PROGRESS", "output": {"fraction": 0.1}}'
    acme.http.post(url, content=body, headers={"Authorization": acme.place.worker_key})
    stream.has("progress", fraction=0.1)
    finish(acme, again, worker="w2")
    stream.end()
    assert stream.moves == ["created", "handed", "handed_back", "handed", "completed"]


def test_the_operators_lines_are_not_told_but_counted(acme: Api) -> None:
    job = acme.run()
    claimed = acme.take()
    assert news.done(acme.place.endpoint.pk, "w2", attempt_of(claimed), news.Done(output=b"1")) is False
    finish(acme, claimed)
    said = Stream(acme, job).end()
    assert [x.id for x in said] == ["1", "2", "4", "4-end"]
    lifecycle.cancel_job(job_of(job).uuid, "by root in the admin")
    assert "root" not in str(said)


def test_only_the_tenants_own_jobs_are_followed(acme: Api, globex: Api) -> None:
    job = acme.run()
    for other in (globex, acme.by(f"Bearer {globex.client.api_key}")):
        check_refusal(ask(other, job), 404, "not_found")
    check_refusal(ask(acme, "nonsense"), 404, "not_found")
    check_refusal(ask(acme, f"sync-{job}"), 404, "not_found")
    check_refusal(ask(acme.by("Bearer nonsense"), job), 401, "unauthorized")
    check_refusal(ask(acme.by(f"Bearer {acme.client.new_key(scopes=['run'])}"), job), 403, "forbidden")
    check_refusal(ask(acme.by(acme.place.worker_key), job), 401, "unauthorized")


def test_other_methods_are_refused_and_the_other_paths_are_djangos(acme: Api) -> None:
    job = acme.run()
    answered = acme.http.post(path(job), headers={"Authorization": acme.authorization})
    check_refusal(answered, 405, "method_not_allowed")
    beside = acme.http.get(f"/api/v1/jobs/{job}/nothing", headers={"Authorization": acme.authorization})
    assert "There is nothing at" in check_refusal(beside, 404, "not_found")["error"]
    head = acme.http.head(path(job), headers={"Authorization": acme.authorization})
    assert (head.status_code, head.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")


def test_a_stream_counts_as_a_status_request(acme: Api) -> None:
    job = acme.run()
    acme.client.tenant.requests_per_10s = 1
    acme.client.tenant.save()
    fresh = Api.of(acme.http, acme.client).by(f"Bearer {acme.client.new_key()}")  # whose limits nobody remembers
    acme.post(f"cancel/{job}")
    until(lambda: ask(fresh, job).status_code == 429)
    refused = ask(fresh, job)
    assert "`status` request" in refused.json()["error"]
    assert refused.headers["RateLimit-Policy"].startswith('"status";q=1')


def test_a_reader_who_has_all_is_left_alone_by_the_recheck(acme: Api) -> None:
    key = news_key(job_of(acme.run()).uuid)
    ((_, version),) = have_news([key])
    assert have_news([key]) == [(key, version)]
    claimed = acme.take()
    ((_, handed),) = have_news([key])
    tell(acme, claimed, {"fraction": 0.1})
    ((_, told),) = have_news([key])
    assert len({version, handed, told}) == 3


def test_a_job_that_is_deleted_ends_its_streams(acme: Api) -> None:
    job = acme.run()
    stream = Stream(acme, job)
    stream.has("queue")
    Job.all_tenants.filter(pk=job_row(job).pk).delete()
    assert stream.end()[-1].kind != "end"


def test_globex_at_the_same_endpoint_is_told_of_its_own_place(acme: Api) -> None:
    acme.run()
    globex = Api.of(acme.http, new_client(acme.place, "globex"))
    mine = Stream(globex, globex.run())
    assert mine.has("queue").data["position"] in (1, 2)


def told(monkeypatch: pytest.MonkeyPatch, *, gone_after: int) -> list[bytes]:
    """What a stream in which nothing happens says, until its client is gone."""
    left = iter(range(gone_after))

    async def nothing(*_: Any) -> Any:
        return following.Reading([], following.Seen())

    async def is_disconnected() -> bool:
        return next(left, None) is None

    async def main() -> list[bytes]:
        monkeypatch.setattr(Hub, "current", Hub(nothing, nothing))
        request: Any = SimpleNamespace(is_disconnected=is_disconnected)
        return [said async for said in wire._told(request, uuid4(), uuid4(), following.Seen())]

    monkeypatch.setattr(wire, "verb", nothing)
    monkeypatch.setattr(wire, "BEAT_S", 0.01)
    return asyncio.run(main())


def test_a_stream_in_which_nothing_happens_beats_until_its_client_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    retry, *beats, last = told(monkeypatch, gone_after=4)
    assert retry.startswith(b"retry: ")
    assert beats == [b":\n\n"] * 3
    assert last.startswith(b": to be continued")
    assert not wire._open


def test_a_stream_has_an_end_after_which_its_key_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LIFE_S", 0)
    assert len(told(monkeypatch, gone_after=100)) == 2


def test_a_tenants_open_streams_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = uuid4()
    monkeypatch.setitem(wire._open, tenant, wire.MOST_STREAMS)
    state = SimpleNamespace(caller=SimpleNamespace(tenant_id=tenant))
    path = {"job": f"{uuid4()}-e1"}
    request: Any = SimpleNamespace(path_params=path, state=state, headers={}, query_params={})
    with pytest.raises(Refused, match="10000 event streams open") as refused:
        asyncio.run(wire._events(request))
    assert (refused.value.status, refused.value.code) == (429, "too_many_streams")
