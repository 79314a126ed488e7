"""No run is lost to a size: what is too large for an answer goes where files go, and the answer says so."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.worker.fakes import FAST, FakeComfy, FakeHearth, handled, image_workflow, job
from worker import answer
from worker.answer import Limits, apart

WORKFLOW = image_workflow()
LONG = "é" * 3_000_000


@asynccontextmanager
async def says(outputs: dict[str, Any]) -> AsyncIterator[FakeComfy]:
    async with FakeComfy(lambda fake, prompt_id: fake.finish(prompt_id, outputs)) as fake:
        yield fake


async def run(fake: FakeComfy, given: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return await handled(fake.url, given, **{**FAST, "http_s": 10.0, **settings})


def test_an_answer_of_run_and_of_runsync_fits_through_runpods_cloud() -> None:
    for id, whole in (("abc", 10_000_000), ("sync-abc", 20_000_000)):
        limits = Limits.of(id, None)
        assert whole * 0.8 < limits.base64_bytes * 4 / 3 + limits.datas_bytes < whole
    assert Limits.of("abc", 1_000_000).datas_bytes == 125_000
    assert Limits.of("abc", 10**9) == Limits.of("abc", None)


def test_the_largest_datas_go_apart_first_and_no_more_than_must() -> None:
    datas = {"1": {"text": ["x" * 100]}, "2": {"text": ["y" * 500]}, "3": {"text": ["z"]}}
    kept, files = apart(datas, 200)
    assert kept == {"1": datas["1"], "3": datas["3"]}
    assert [(file.node, file.name, file.content_type) for file in files] == [("2", "datas.json", "application/json")]
    assert json.loads(files[0].body.read_at(0, 10_000)) == datas["2"]
    assert apart(datas, sum(len(json.dumps(said)) for said in datas.values())) == (datas, [])


async def test_huge_datas_go_to_s3_and_the_answer_links_them() -> None:
    async with says({"2": {"text": [LONG]}, "1": {"text": ["short"]}}) as fake, FakeHearth() as hearth:
        result = await run(fake, job(WORKFLOW, _hearth=hearth.field))
    [(_, headers, body)] = hearth.puts
    assert json.loads(body) == {"text": [LONG]}
    assert headers["Content-Type"] == "application/json"
    [asset] = result["assets"]
    assert result["files"] == [asset["key"]]
    assert (asset["node"], asset["name"], asset["bytes"]) == ("2", "datas.json", len(body))
    assert result["datas"] == {"1": {"text": ["short"]}, "2": {"asset": asset["id"], "bytes": len(body)}}
    assert len(json.dumps(result)) < 2000


async def test_base64_keeps_huge_datas_out_of_the_answer_too() -> None:
    outputs = {"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}], "text": [LONG]}}
    async with says(outputs) as fake, FakeHearth() as hearth:
        result = await run(fake, job(WORKFLOW, tobase64=True, _hearth=hearth.field))
    assert result["files"] == ["Ynl0ZXMgb2YgYS5wbmc=", result["assets"][1]["key"]]
    assert [asset["key"] is None for asset in result["assets"]] == [True, False]


async def test_a_hearth_that_takes_less_is_sent_less() -> None:
    async with says({"2": {"text": ["x" * 2000]}}) as fake, FakeHearth() as hearth:
        result = await run(fake, job(WORKFLOW, _hearth=hearth.field | {"answer_bytes": 8000}))
    assert result["datas"]["2"]["asset"] == result["assets"][0]["id"]


async def test_alone_and_without_a_bucket_the_rest_is_there_and_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer, "RUN_BYTES", 800)
    names = ("a.png", "b.png", "c.png")
    images = [{"filename": name, "subfolder": "", "type": "output"} for name in names]
    monkeypatch.setattr(FakeComfy, "content", b"x" * 200)
    async with says({"2": {"images": images, "text": ["y" * 200]}}) as fake:
        result = await run(fake, job(WORKFLOW))
    assert [asset["name"] for asset in result["assets"]] == ["a.png", "b.png"]
    assert result["code"] == "answer_too_large"
    assert "c.png of node 2" in result["error"]
    assert "datas.json of node 2" in result["error"]
    assert "tobucket" in result["error"]
    assert len(json.dumps(result["files"])) < 800


async def test_a_thousand_files_are_stored_in_several_calls() -> None:
    images = [{"filename": f"{number}.png", "subfolder": "", "type": "output"} for number in range(1001)]
    async with says({"2": {"images": images}}) as fake, FakeHearth() as hearth:
        result = await run(fake, job(WORKFLOW, _hearth=hearth.field))
    asked = [len(body["files"]) for verb, body in hearth.calls if verb == "uploads"]
    assert (asked, len(result["files"])) == ([500, 500, 1], 1001)
    assert [asset["name"] for asset in result["assets"]] == [image["filename"] for image in images]


async def test_what_hearth_refuses_as_wrong_fails_the_job_with_its_words_rather_than_drop_it() -> None:
    outputs = {"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}
    async with says(outputs) as fake, FakeHearth() as hearth:
        hearth.statuses["uploads"] = [413]
        result = await run(fake, job(WORKFLOW, _hearth=hearth.field))
    assert result["code"] == "upload_failed"
    assert "uploads: HTTP 413" in result["error"]


async def test_names_and_node_ids_of_any_kind_can_be_stored() -> None:
    node = "n" * 1000
    workflow = {"1": WORKFLOW["1"], node: WORKFLOW["2"]}
    outputs = {node: {"images": [{"filename": "a\n\tb.png", "subfolder": "", "type": "output"}]}}
    async with says(outputs) as fake, FakeHearth() as hearth:
        result = await run(fake, job(workflow, _hearth=hearth.field))
    [file] = next(body["files"] for verb, body in hearth.calls if verb == "uploads")
    assert (file["name"], file["node"]) == ("a  b.png", "n" * 300)
    assert "error" not in result


async def test_a_node_that_fails_with_megabytes_of_words_is_quoted_in_part() -> None:
    async def play(fake: FakeComfy, prompt_id: str) -> None:
        said = {"node_id": "1", "node_type": "X", "exception_type": "E", "exception_message": "x" * 5_000_000}
        fake.running = []
        status = {"status_str": "error", "messages": [["execution_error", said]]}
        fake.history[prompt_id] = {"outputs": {}, "status": status}
        await fake.say("execution_error", prompt_id, **said)

    async with FakeComfy(play) as fake:
        result = await run(fake, job(WORKFLOW))
    assert result["code"] == "node_failed"
    assert len(json.dumps(result)) < 20_000
    assert "Node " in result["error"]
