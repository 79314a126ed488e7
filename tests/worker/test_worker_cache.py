"""What ComfyUI answers from its cache names files that may be gone (comfyui.md [42])."""

from typing import Any

from tests.worker.fakes import FakeComfy, FakeHearth, image_workflow, job, worker_for

WORKFLOW = image_workflow()


def shows(name: str) -> dict[str, Any]:
    return {"2": {"images": [{"filename": name, "subfolder": "", "type": "output"}]}}


def cached(comfy: FakeComfy, prompt_id: str, *nodes: str) -> None:
    comfy.history[prompt_id]["status"]["messages"] = [["execution_cached", {"nodes": list(nodes)}]]


async def test_a_cache_that_names_files_that_are_gone_is_emptied_and_the_prompt_runs_again() -> None:
    free = ("POST free", {"unload_models": False, "free_memory": True})

    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        is_free = free in comfy.asked
        comfy.succeed(prompt_id, shows("anew.png" if is_free else "gone.png"))
        cached(comfy, prompt_id, *(() if is_free else ("1", "2")))
        await comfy.say("executing", prompt_id, node=None)

    async with FakeComfy(play) as comfy, FakeHearth() as hearth, worker_for(comfy.url) as worker:
        result = await worker.handle(job(WORKFLOW, _hearth=hearth.field))
        assert all(("POST history", {"delete": [prompt["prompt_id"]]}) in comfy.asked for prompt in comfy.prompts)
    assert [asset["name"] for asset in result["assets"]] == ["anew.png"]
    assert len(comfy.prompts) == 2


async def test_a_file_that_is_gone_though_it_was_just_made_is_not_tried_for_ever() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        comfy.succeed(prompt_id, shows("gone.png"))
        cached(comfy, prompt_id, "1", "2")
        await comfy.say("executing", prompt_id, node=None)

    async with FakeComfy(play) as comfy, worker_for(comfy.url) as worker:
        result = await worker.handle(job(WORKFLOW))
    assert result["code"] == "output_missing"
    assert len(comfy.prompts) == 3
