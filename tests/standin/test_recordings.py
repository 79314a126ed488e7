"""Recordings played again as they are. Ids, names and numbers that ComfyUI makes up are compared in form only."""

import asyncio
import json
from typing import Any

import pytest

from .client import Client
from .pictures import CORRUPT, TRUNCATED, png, tone
from .recordings import names, recording
from .replay import IDLE, play, replay
from .servers import ROOT, Standin

NEEDS_FILES = ["10_wf_load_image", "10_wf_load_image_annotated", "10_wf_load_image_subfolder", "10_wf_load_mask"]
NEEDS_FILES += ["30_error_corrupt_png", "30_error_truncated_png", "30_error_zero_bytes", "32_no_client_id"]
IN_THE_ORDER_OF_A_SET = ["10_wf_audio_load", "10_wf_two_outputs", "30_error_one_ok_then_one_fails"]
ALONE = [
    *("11_cached_rerun", "12_preview_metadata_feature", "31_prompt_id_extra_data", "37_free_then_rerun"),
    *("38_history_ops", "43_png_metadata"),
]
SMALLER = (('"width": 1024', '"width": 512'), ('"height": 1024', '"height": 512'))
SEVERAL_AT_A_TIME: dict[str, Any] = {
    "33_queue_two_and_priority": (),
    "34_delete_running_noop": (),
    "35_interrupt": (),
    "52_same_number_same_id_while_queued": SMALLER,
    "53_same_number_same_id_other_graph": SMALLER,
}
"""What runs meanwhile need not be as slow as when it was recorded."""
WORKFLOWS = [name for name in names("10_wf_*") if name not in NEEDS_FILES + IN_THE_ORDER_OF_A_SET]
FAILURES = [name for name in names("30_error_*") if name not in NEEDS_FILES + IN_THE_ORDER_OF_A_SET]


async def _upload_all(url: str) -> None:
    async with Client.to(url) as client:
        await client.upload("up.png", png(), overwrite="true")
        await client.upload("up2.png", png(), overwrite="true", subfolder="job1")
        await client.upload("tmpup.png", png(), overwrite="true", type="temp")
        await client.upload("tone.wav", tone(), overwrite="true")
        await client.upload("corrupt.png", CORRUPT, overwrite="true")
        await client.upload("trunc.png", TRUNCATED, overwrite="true")
        await client.upload("zero.png", b"", overwrite="true")


@pytest.mark.parametrize("name", names("10_wf_*"))
def test_the_example_of_that_name_is_what_was_recorded(name: str) -> None:
    example = json.loads((ROOT / "examples" / "workflows" / f"{name.removeprefix('10_wf_')}.json").read_text())
    sent = next(event["request"]["json"] for event in recording(name) if event["kind"] == "http")
    assert sent["prompt"] == example


@pytest.mark.parametrize("name", WORKFLOWS)
def test_an_example_workflow_runs_with_the_recorded_messages_history_and_files(comfy: str, name: str) -> None:
    replay(comfy, name)


@pytest.mark.parametrize("name", names("20_prompt_*"))
def test_a_prompt_is_taken_or_refused_as_recorded(comfy: str, name: str) -> None:
    replay(comfy, name)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_node_is_reported_as_recorded(comfy: str, name: str) -> None:
    replay(comfy, name)


@pytest.mark.parametrize("name", ALONE)
def test_a_recording_that_needs_nothing_before_it_holds(comfy: str, name: str) -> None:
    replay(comfy, name)


def test_the_routes_of_a_fresh_server_answer_as_recorded(comfy: str) -> None:
    replay(comfy, "38_history_ops")
    replay(comfy, "01_meta_endpoints")


@pytest.mark.parametrize("name", ["54_extra_data_list", "54_extra_data_string"])
def test_extra_data_that_is_no_object_does_no_harm_to_the_queue(comfy: str, name: str) -> None:
    first, *others = recording(name)
    asyncio.run(play(comfy, [first, IDLE, *others]))


@pytest.mark.parametrize("name", NEEDS_FILES)
def test_a_recording_about_uploaded_files_holds(comfy: str, name: str) -> None:
    asyncio.run(_upload_all(comfy))
    replay(comfy, name)


@pytest.mark.parametrize("name", IN_THE_ORDER_OF_A_SET)
def test_a_recording_whose_order_comes_from_a_set_holds_for_the_standin(standin: Standin, name: str) -> None:
    asyncio.run(_upload_all(standin.url))
    replay(standin.url, name)


@pytest.mark.parametrize("name", SEVERAL_AT_A_TIME)
def test_a_recording_with_several_prompts_at_a_time_holds(comfy: str, name: str) -> None:
    asyncio.run(play(comfy, recording(name, *SEVERAL_AT_A_TIME[name]), racing=True))


def test_a_socket_that_drops_misses_messages_and_two_sockets_of_one_client_deafen_each_other(comfy: str) -> None:
    events = recording("36_ws_drop_and_reconnect", *SMALLER)
    asyncio.run(play(comfy, events, racing=True, leaves_early="A"))
