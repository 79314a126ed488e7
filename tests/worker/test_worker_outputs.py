"""History entries taken apart: nothing is silently dropped."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.worker.fakes import FakeComfy
from worker.comfy import Comfy
from worker.files import OutputFile, content_type_of
from worker.outputs import Found, collect, fetch, hidden
from worker.rejected import failure, rejected
from worker.settings import Settings

OURS = "hearth-" + "0123456789abcdef" * 2

WORKFLOW: dict[str, Any] = {"9": {"class_type": "SaveImage"}, "4": {"class_type": "X"}}


def image(name: str, type: str = "output") -> dict[str, str]:
    return {"filename": name, "subfolder": "s", "type": type}


def taken(outputs: dict[str, Any], temp: bool = False) -> tuple[list[str], Any]:
    files, datas = collect({"outputs": outputs}, WORKFLOW, temp=temp)
    return [f"{file.node}:{file.filename}" for file in files], datas


def test_files_come_in_the_workflows_order() -> None:
    outputs = {"4": {"images": [image("b")]}, "1.2": {"images": [image("c")]}, "9": {"audio": [image("a")]}}
    assert taken(outputs) == (["9:a", "4:b", "1.2:c"], {})


def test_what_is_no_file_becomes_data_as_it_is() -> None:
    values = {"text": ["a", "b"], "animated": [True], "n": 3, "none": None, "empty": [], "odd": [{"filename": 3}]}
    assert taken({"4": values}) == ([], {"4": values})


def test_a_mixed_list_is_split() -> None:
    assert taken({"4": {"images": [image("a"), "caption", image("b")]}}) == (
        ["4:a", "4:b"],
        {"4": {"images": ["caption"]}},
    )


def test_a_file_that_stands_alone_is_found() -> None:
    assert taken({"4": {"video": image("a")}}) == (["4:a"], {})


def test_previews_are_left_out_unless_wanted() -> None:
    outputs = {"4": {"images": [image("a", "temp"), image("b")]}}
    assert taken(outputs) == (["4:b"], {})
    assert taken(outputs, temp=True) == (["4:a", "4:b"], {})


def test_a_file_is_found_at_any_depth_and_what_is_said_beside_it_stays() -> None:
    shown = {"runs": [{"label": "one", "made": {"files": [image("a"), image("b")]}}, [image("c")]]}
    assert taken({"4": shown}) == (["4:a", "4:b", "4:c"], {"4": {"runs": [{"label": "one"}]}})


def test_what_a_node_says_about_a_file_is_data_without_the_path_on_the_workers_disk() -> None:
    combined = image("a.mp4") | {"format": "video/mp4", "frame_rate": 8.0, "fullpath": "/srv/comfyui/output/s/a.mp4"}
    about = {"filename": "a.mp4", "format": "video/mp4", "frame_rate": 8.0}
    assert taken({"4": {"gifs": [combined]}}) == (["4:a.mp4"], {"4": {"gifs": [about]}})
    assert taken({"4": {"gifs": [combined | {"type": "temp"}]}}) == ([], {})


def test_an_input_that_a_node_shows_is_no_output_but_data() -> None:
    shown = {"images": [image("a.png", "input"), image("b.png", "models")]}
    assert taken({"4": shown}, temp=True) == ([], {"4": shown})


@pytest.mark.parametrize(
    ("filename", "subfolder"),
    [
        ("", ""),
        ("/srv/a.png", ""),
        ("a.png", "/srv"),
        ("../a.png", ""),
        ("a.png", "x/../.."),
        ("C:\\a.png", ""),
        ("x/", ""),
    ],
)
def test_a_place_that_no_file_of_the_job_can_have_is_data(filename: str, subfolder: str) -> None:
    shown = {"images": [{"filename": filename, "subfolder": subfolder, "type": "output"}]}
    assert taken({"4": shown}) == ([], {"4": shown})


def test_a_path_in_a_filename_belongs_to_the_subfolder() -> None:
    entry = {"outputs": {"4": {"images": [{"filename": "x/y\\a..b.png", "subfolder": "s"}]}}}
    [file] = collect(entry, WORKFLOW, temp=False)[0]
    assert (file.subfolder, file.filename, file.type) == ("s/x/y", "a..b.png", "output")


@pytest.mark.parametrize(
    ("subfolder", "asked"),
    [("", ""), (OURS, ""), (f"{OURS}/a/b", "a/b"), (f"{OURS}\\a\\b", "a/b"), ("hearth-mine", "hearth-mine")],
)
def test_the_jobs_own_folder_is_no_part_of_the_subfolder(subfolder: str, asked: str) -> None:
    file = Found(node="1", filename="a", subfolder=subfolder, type="output")
    assert file.asked_subfolder == asked


def test_the_jobs_own_folder_shows_in_no_text() -> None:
    said = [
        f"saved /srv/comfyui/output/{OURS}/a.png",
        {f"{OURS}/b": (1, None)},
        f"x '{OURS}/c.png'",
        f"C:\\y\\temp\\{OURS}\\d",
    ]
    assert hidden(said) == ["saved a.png", {"b": (1, None)}, "x 'c.png'", "d"]


def test_a_name_that_view_refuses_says_what_to_change() -> None:
    async def fetched() -> Any:
        async with FakeComfy() as comfy, aiohttp.ClientSession() as session:
            file = Found(node="4", filename="refused..png", subfolder="", type="output")
            return await fetch(Comfy(Settings(comfyui_url=comfy.url), session), [file])

    [error] = asyncio.run(fetched())
    assert (error.code, "filename_prefix" in str(error)) == ("output_missing", True)


KINDS = {
    "image": "a.PNG a.jpg a.webp a.gif a.apng a.svg a.exr a.hdr a.avif a.tiff a.jxl a.psd",
    "video": "a.mp4 a.webm a.mkv a.mov a.avi",
    "audio": "a.flac a.mp3 a.opus a.ogg a.wav a.m4a a.aac",
    "text": "a.txt a.srt a.csv a.md",
    "latent": "a.latent a.LATENT",
    "file": "a.glb a.gltf a.obj a.ply a.stl a.fbx a.usdz a.splat a.spz a.safetensors a.npy a.json a.zip plain .png",
}


@pytest.mark.parametrize(("kind", "names"), KINDS.items())
def test_kinds_follow_the_comfy_api(kind: str, names: str) -> None:
    assert {OutputFile(node="1", name=name).kind for name in names.split()} == {kind}


def test_3d_files_have_types_that_a_browser_can_tell_apart() -> None:
    types = [content_type_of(f"a.{extension}") for extension in ("glb", "gltf", "obj", "stl", "splat")]
    assert types == [
        *(f"model/{form}" for form in ("gltf-binary", "gltf+json", "obj", "stl")),
        "application/octet-stream",
    ]


def test_a_rejection_without_json_keeps_the_text() -> None:
    assert "HTTP 502 bad gateway" in str(rejected(502, "bad gateway", WORKFLOW))


def test_a_rejection_without_nodes_keeps_type_and_details() -> None:
    body = '{"error": {"message": "Prompt has no outputs", "details": "d-etails"}, "node_errors": {}}'
    error = rejected(400, body, WORKFLOW)
    assert "Prompt has no outputs d-etails." in str(error)
    assert error.nodes is None or error.nodes == {}


def test_an_error_entry_without_messages_still_fails() -> None:
    error = failure({"status": {"status_str": "error", "messages": []}}, WORKFLOW)
    assert error
    assert error.code == "node_failed"


def test_running_out_of_gpu_memory_gets_advice_of_its_own() -> None:
    said = {"node_id": "9", "exception_type": "torch.OutOfMemoryError", "exception_message": "CUDA out of memory"}
    error = failure({"status": {"status_str": "error", "messages": [["execution_error", said]]}}, WORKFLOW)
    assert "make the images or the batch smaller" in str(error)


def test_an_old_entry_without_status_is_a_success() -> None:
    assert failure({"outputs": {}}, WORKFLOW) is None
