"""The worker's line to Hearth: started, uploads, hand-back, and the PUTs."""

import asyncio
import hashlib
import logging
from typing import Any

import pytest

from tests.worker.fakes import FakeComfy, FakeHearth, image_workflow, job, png, until, worker_for
from worker.upload import AT_ONCE
from worker.wire import NOT_RUN

WORKFLOW = image_workflow()
PUT_DEFAULTS = {"Accept", "Accept-Encoding", "User-Agent"}


def saves(*names: str) -> Any:
    """A ComfyUI whose every prompt makes these files at once."""

    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        images = [{"filename": name, "subfolder": "", "type": "output"} for name in names]
        await comfy.finish(prompt_id, {"2": {"images": images}})

    return FakeComfy(play)


async def run(comfy: FakeComfy, hearth: FakeHearth, given: dict[str, Any] | None = None, **settings: Any) -> Any:
    given = given or job(WORKFLOW)
    given["input"]["_hearth"] = hearth.field
    async with worker_for(comfy.url, **{"hearth_retry_s": 1.0, **settings}) as worker:
        return await worker.handle(given)


async def test_files_are_put_into_the_bucket_and_told_by_key() -> None:
    async with saves("a.png", "b.mp4") as comfy, FakeHearth() as hearth:
        result = await run(comfy, hearth)
    body = b"bytes of a.png"
    assert result["files"] == ["acme/job/a1/1-a.png", "acme/job/a1/2-b.mp4"]
    assert result["assets"][0] == {
        **{"id": "asset-1", "key": result["files"][0], "node": "2", "kind": "image", "name": "a.png"},
        **{
            "subfolder": "",
            "content_type": "image/png",
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        },
        **{"width": None, "height": None, "duration_ms": None, "preview": None},  # these bytes are no picture
    }
    assert result["assets"][1]["kind"] == "video"


async def test_a_put_carries_exactly_the_signed_headers_and_url() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        await run(comfy, hearth)
    [(path, headers, body)] = hearth.puts
    assert path == "/s3/acme/job/a1/1-a.png?X-Amz-Signature=a%2Fb"
    assert body == b"bytes of a.png"
    expected = {"Content-Type": "image/png", "x-amz-meta-slot": "1", "Content-Length": str(len(body))}
    assert {key: value for key, value in headers.items() if key != "Host"} == expected


async def test_four_files_are_put_at_once_and_no_more() -> None:
    inside: list[int] = []
    full = asyncio.Event()

    async def waits_for_the_others() -> None:
        inside.append(inside[-1] + 1 if inside else 1)
        if inside[-1] == AT_ONCE:
            full.set()
        await full.wait()
        inside.append(inside[-1] - 1)

    async with saves(*(f"{n}.bin" for n in range(7))) as comfy, FakeHearth() as hearth:
        hearth.before_put = waits_for_the_others
        result = await run(comfy, hearth)
    assert (len(result["files"]), max(inside)) == (7, AT_ONCE)


async def test_started_comes_before_the_prompt_and_uploads_after_it() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        await run(comfy, hearth)
    assert hearth.verbs() == ["started", "uploads", "stored"]
    assert hearth.calls[1][1]["files"][0]["bytes"] == len(b"bytes of a.png")


@pytest.mark.parametrize("status", [409, 404])
async def test_a_refused_start_is_not_run_and_sends_no_result(status: int) -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["started"] = [status]
        with pytest.raises(asyncio.CancelledError):
            await run(comfy, hearth)
    assert comfy.prompts == []
    assert hearth.verbs() == ["started"]


async def test_a_start_is_asked_again_while_hearth_restarts() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["started"] = [503, 502]
        result = await run(comfy, hearth)
    assert hearth.verbs() == ["started"] * 3 + ["uploads", "stored"]
    assert len(result["files"]) == 1


async def test_a_hearth_that_stays_away_gets_no_run() -> None:
    async with saves("a.png") as comfy:
        async with FakeHearth() as hearth:
            pass
        with pytest.raises(asyncio.CancelledError):
            await run(comfy, hearth)
    assert comfy.prompts == []


@pytest.mark.parametrize("refused", ["started", "uploads"])
async def test_on_runpod_a_refused_job_ends_with_an_error_that_hearth_does_not_take_for_a_result(refused: str) -> None:
    """RunPod would wait for a job without a result until its time-out, and bill for it."""
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses[refused] = [409]
        result = await run(comfy, hearth, worker_name="")
    assert result["error"].startswith(NOT_RUN)
    assert len(comfy.prompts) == (refused == "uploads")


async def test_on_runpod_a_job_that_is_handed_back_ends_there() -> None:
    async with FakeComfy() as comfy, FakeHearth() as hearth, worker_for(comfy.url, worker_name="") as worker:
        draining = asyncio.create_task(worker.drain())
        await asyncio.sleep(0)
        result = await worker.handle(job(WORKFLOW, _hearth=hearth.field))
        await draining
    assert hearth.verbs() == ["hand-back"]
    assert result["error"].startswith(NOT_RUN)


async def test_uploads_refused_in_the_middle_drop_the_result() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["uploads"] = [409]
        with pytest.raises(asyncio.CancelledError):
            await run(comfy, hearth)
    assert hearth.puts == []


async def test_the_token_reaches_neither_comfyui_nor_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    given = job(WORKFLOW, images={"a.txt": "c2VjcmV0LWRhdGE="})
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses = {"started": [500], "put": [500, 500, 500], "uploads": [503]}
        await run(comfy, hearth, given)
    assert "tok-secret" not in str(comfy.prompts) + caplog.text
    assert "c2VjcmV0" not in caplog.text
    assert "_hearth" not in given["input"]


async def test_a_put_is_tried_again_after_a_5xx() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["put"] = [503]
        result = await run(comfy, hearth)
    assert len(hearth.puts) == 1
    assert "error" not in result


async def test_the_operators_s3_may_be_away_as_long_as_hearth() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["put"] = [503] * 4
        result = await run(comfy, hearth, hearth_retry_s=20.0)
    assert len(hearth.puts) == 1
    assert "error" not in result


async def test_an_expired_slot_is_asked_for_anew_once() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["put"] = [403]
        result = await run(comfy, hearth)
    assert hearth.verbs() == ["started", "uploads", "uploads", "stored"]
    assert result["files"] == ["acme/job/a1/2-a.png"]
    assert result["assets"][0]["id"] == "asset-2"


async def test_a_file_that_s3_refuses_for_good_is_named_and_the_rest_is_kept() -> None:
    async with saves("a.png", "b.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["put a.png"] = [403, 403]
        result = await run(comfy, hearth)
    assert result["code"] == "upload_refused"
    assert "a.png of node 2" in result["error"]
    assert "S3 answered 403 NoLuck" in result["error"]
    assert [asset["name"] for asset in result["assets"]] == ["b.png"]
    assert len(result["files"]) == 1


async def test_a_file_that_s3_took_and_has_not_is_sent_again() -> None:
    async with saves("a.png", "b.png") as comfy, FakeHearth() as hearth:
        hearth.absent = 2
        result = await run(comfy, hearth)
    assert "error" not in result
    assert [len(body["ids"]) for verb, body in hearth.calls if verb == "stored"] == [2, 2, 2]
    assert len(hearth.puts) == 6


async def test_a_file_that_s3_never_has_fails_by_name() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.absent = 99
        result = await run(comfy, hearth)
    assert "a.png of node 2" in result["error"]
    assert "S3 took it 3 times and has it not" in result["error"]
    assert "files" not in result


async def test_what_s3_does_not_tell_is_taken_as_stored() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.found = {"there": None, "status": 403, "code": "403"}
        result = await run(comfy, hearth)
    assert ("error" in result, len(result["files"]), len(hearth.puts)) == (False, 1, 1)


async def test_a_hearth_that_is_away_after_the_put_looks_later_by_itself() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["stored"] = [503] * 20
        result = await run(comfy, hearth, hearth_retry_s=0.3)
    assert ("error" in result, len(result["files"])) == (False, 1)


async def test_an_attempt_that_ended_during_the_upload_sends_no_result() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["stored"] = [409]
        with pytest.raises(asyncio.CancelledError):
            await run(comfy, hearth)


async def test_a_redirect_is_not_followed() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["put"] = [307]
        result = await run(comfy, hearth)
    assert "S3 answered 307" in result["error"]
    assert hearth.puts == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "private.test"])
async def test_a_tenants_bucket_at_a_private_address_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def looked_up(*_: Any, **__: Any) -> Any:
        return [(2, 1, 6, "", ("10.1.2.3", 443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", looked_up)
    async with saves("a.png") as comfy, FakeHearth(trusted=False, slot_url=f"https://{host}/x") as hearth:
        result = await run(comfy, hearth, url_allow=())
    assert "address is refused" in result["error"]
    assert "is not public" in result["error"]


async def test_a_tenants_bucket_at_a_listed_address_is_used() -> None:
    async with saves("a.png") as comfy, FakeHearth(trusted=False) as hearth:
        result = await run(comfy, hearth)
    assert "error" not in result
    assert len(hearth.puts) == 1


async def test_base64_is_given_when_asked_for() -> None:
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        result = await run(comfy, hearth, job(WORKFLOW, tobase64=True))
    assert result["files"] == ["Ynl0ZXMgb2YgYS5wbmc="]
    assert result["assets"][0]["key"] is None
    assert hearth.verbs() == ["started"]


async def test_base64_that_would_not_fit_goes_into_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.answer.RUN_BYTES", 40)
    async with saves("a.png", "b.png") as comfy, FakeHearth() as hearth:
        result = await run(comfy, hearth, job(WORKFLOW, tobase64=True))
    assert result["files"] == ["acme/job/a1/1-a.png", "acme/job/a1/2-b.png"]


async def test_a_large_file_is_put_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.spool.IN_MEMORY_BYTES", 1024)
    body = png(size=500) * 40
    monkeypatch.setattr(FakeComfy, "content", body)
    async with saves("a.png") as comfy, FakeHearth() as hearth:
        hearth.statuses["put"] = [500]
        result = await run(comfy, hearth)
    assert hearth.puts[0][2] == body
    assert result["assets"][0]["sha256"] == hashlib.sha256(body).hexdigest()


async def test_the_next_jobs_files_are_uploaded_while_the_first_runs() -> None:
    async with FakeComfy() as comfy, worker_for(comfy.url) as worker:
        first = asyncio.create_task(worker.handle(job(WORKFLOW)))
        await until(lambda: comfy.prompts)
        second = asyncio.create_task(worker.handle(job(WORKFLOW, files={"a.txt": "YQ=="})))
        await until(lambda: comfy.uploads)
        first_id = comfy.prompts[0]["prompt_id"]
        assert len(comfy.prompts) == 1
        await comfy.finish(first_id)
        await until(lambda: len(comfy.prompts) == 2)
        second.cancel()
        comfy.running = []
        await asyncio.wait({first, second})


async def test_the_next_job_starts_while_the_last_ones_files_are_uploaded() -> None:
    stuck = asyncio.Event()
    async with saves("a.png") as comfy, FakeHearth() as hearth, worker_for(comfy.url) as worker:
        hearth.before_put = stuck.wait
        jobs = [job(WORKFLOW, id=id, _hearth=hearth.field) for id in ("one", "two")]
        tasks = [asyncio.create_task(worker.handle(given)) for given in jobs]
        await until(lambda: len(comfy.prompts) == 2)
        assert not any(task.done() for task in tasks)
        stuck.set()
        results = await asyncio.gather(*tasks)
    assert all(result["files"] for result in results)


async def test_a_shutdown_hands_back_what_waits_and_finishes_what_runs() -> None:
    async with FakeComfy() as comfy, FakeHearth() as hearth, worker_for(comfy.url) as worker:
        running = asyncio.create_task(worker.handle(job(WORKFLOW, _hearth=hearth.field)))
        await until(lambda: comfy.prompts)
        waiting = asyncio.create_task(worker.handle(job(WORKFLOW, _hearth=hearth.field)))
        await asyncio.sleep(0.05)
        draining = asyncio.create_task(worker.drain())
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        await comfy.finish(comfy.prompts[0]["prompt_id"])
        assert "error" not in await running
        await draining
    assert [verb for verb in hearth.verbs() if verb != "alive"] == ["started", "hand-back"]


async def test_a_job_that_comes_during_the_shutdown_is_handed_back() -> None:
    async with FakeComfy() as comfy, FakeHearth() as hearth, worker_for(comfy.url) as worker:
        draining = asyncio.create_task(worker.drain())
        await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await worker.handle(job(WORKFLOW, _hearth=hearth.field))
        await draining
    assert hearth.verbs() == ["hand-back"]
    assert comfy.prompts == []


async def test_a_stopped_job_that_waits_for_its_turn_is_not_handed_back() -> None:
    async with FakeComfy() as comfy, FakeHearth() as hearth, worker_for(comfy.url, stop_s=0.2) as worker:
        running = asyncio.create_task(worker.handle(job(WORKFLOW)))
        await until(lambda: comfy.prompts)
        waiting = asyncio.create_task(worker.handle(job(WORKFLOW, _hearth=hearth.field)))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait({waiting})
        running.cancel()
        await asyncio.wait({running})
    assert hearth.calls == []
