"""Every kind of file that nodes make, through the worker, and decoded: it is whole, and it is what it says."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import media
from tests.media import Film, Picture, Sound
from tests.standin.pictures import tone
from tests.worker.fakes import Process, b64, handled, image_workflow, job, png

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "workflows"
INPUTS = {"up.png": b64(png("red", 24)), "job1/up2.png": b64(png("lime", 24)), "tmpup.png": b64(png("blue", 24))}
INPUTS["tone.wav"] = b64(tone())
Made = list[tuple[dict[str, Any], bytes]]


def example(name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text())
    return workflow


async def made(url: str, workflow: dict[str, Any], **more: Any) -> Made:
    """Each asset of a job with its bytes."""
    result = await handled(url, job(workflow, files=INPUTS, **more))
    assert "error" not in result, result["error"]
    return list(zip(result["assets"], map(base64.b64decode, result["files"]), strict=True))


async def one(url: str, workflow: dict[str, Any], content_type: str, subfolder: str = "rec") -> bytes:
    [(asset, content)] = await made(url, workflow)
    assert (asset["content_type"], asset["subfolder"]) == (content_type, subfolder)
    assert asset["kind"] == content_type.split("/")[0]
    assert (asset["bytes"], asset["name"].split("_")[1]) == (len(content), "00001")
    return content


PICTURES = {
    "batch": [Picture("PNG", (32, 32), 1, 0, (0, 0, 255))] * 3,
    "img_chain": [Picture("PNG", (128, 96), 1, 0, (204, 153, 102))],
    "load_image": [Picture("PNG", (48, 48), 1, 0, (255, 0, 0))],
    "load_image_annotated": [Picture("PNG", (24, 24), 1, 0, (0, 0, 255))],
    "load_image_subfolder": [Picture("PNG", (24, 24), 1, 0, (0, 255, 0))],
    "load_mask": [Picture("PNG", (24, 24), 1, 0, (255, 255, 255))],
    "two_outputs": [Picture("PNG", (32, 32), 1, 0, (0, 0, 12))],
    "ws_image": [Picture("PNG", (32, 32), 1, 0, (0, 0, 5))] * 3,
    "anim_png": [Picture("PNG", (32, 32), 1, 0, (0, 0, 98))],  # Pillow makes one frame of equal ones
    "anim_webp": [Picture("WEBP", (32, 32), 1, 0, (0, 0, 99))],
    "preview": [],
    "text_preview": [],
}


@pytest.mark.parametrize("name", PICTURES)
async def test_the_pictures_of_an_example_are_what_its_workflow_says(comfyui: str, name: str) -> None:
    found = await made(comfyui, example(name))
    seen = [media.picture(content) for _, content in found]
    assert [replace(picture, color=()) for picture in seen] == [
        replace(picture, color=()) for picture in PICTURES[name]
    ]
    assert all(near(picture.color, expected.color, 2) for picture, expected in zip(seen, PICTURES[name], strict=True))
    assert {(asset["kind"], asset["content_type"].split("/")[0]) for asset, _ in found} <= {("image", "image")}


def near(seen: tuple[int, ...], expected: tuple[int, ...], levels: int) -> bool:
    return max(abs(a - b) for a, b in zip(seen, expected, strict=True)) <= levels


def moving(saver: str, **inputs: Any) -> dict[str, Any]:
    """Four pictures that differ, saved as one by node 9."""
    workflow: dict[str, Any] = {str(node): image_workflow(node * 50)["1"] for node in range(1, 5)}
    for node, pair in (("5", "12"), ("6", "34"), ("7", "56")):
        images = {"image1": [pair[0], 0], "image2": [pair[1], 0]}
        workflow[node] = {"class_type": "ImageBatch", "inputs": images}
    workflow["9"] = {"class_type": saver, "inputs": {"images": ["7", 0], "filename_prefix": "anim/m", **inputs}}
    return workflow


@pytest.mark.parametrize(
    ("saver", "inputs", "form"),
    [
        ("SaveAnimatedPNG", {"fps": 5.0, "compress_level": 4}, "PNG"),
        ("SaveAnimatedWEBP", {"fps": 5.0, "lossless": True, "quality": 80, "method": "default"}, "WEBP"),
    ],
)
async def test_a_moving_picture_keeps_its_frames_and_their_time(
    comfyui: str, saver: str, inputs: dict[str, Any], form: str
) -> None:
    result = await handled(comfyui, job(moving(saver, **inputs)))
    assert media.picture(base64.b64decode(result["files"][0])) == Picture(form, (32, 32), 4, 800, (0, 0, 200))
    assert result["datas"] == {"9": {"animated": [True]}}


SOUNDS = {
    "audio_flac": ("audio/flac", Sound("flac", 16000, 1, 0.5, 0)),
    "audio_mp3": ("audio/mpeg", Sound("mp3float", 44100, 2, 0.5, 0)),
    "audio_load": ("audio/flac", Sound("flac", 16000, 1, 0.5, 0.49)),
}


@pytest.mark.parametrize("name", SOUNDS)
async def test_the_sound_of_an_example_is_what_its_workflow_says(comfyui: str, name: str) -> None:
    content_type, expected = SOUNDS[name]
    content = await one(comfyui, example(name), content_type)
    heard = media.sound(content)
    assert heard == replace(expected, seconds=heard.seconds, loudest=heard.loudest)
    assert heard.seconds == pytest.approx(expected.seconds, abs=0.1)  # MP3 is padded to whole frames
    assert heard.loudest == pytest.approx(expected.loudest, abs=0.01)
    assert media.metadata(content)["prompt"]["2"]["class_type"].startswith("SaveAudio")


FILMS = {
    "video_mp4": ("video/mp4", Film("h264", (64, 64), 8, 8, (0, 0, 97), None)),
    "video_audio_mp4": ("video/mp4", Film("h264", (64, 64), 8, 8, (0, 0, 96), Sound("aac", 44100, 2, 1, 0))),
    "webm": ("video/webm", Film("vp9", (64, 64), 8, 8, (0, 0, 95), None)),
}


@pytest.mark.parametrize("name", FILMS)
async def test_the_film_of_an_example_is_what_its_workflow_says(comfyui: str, name: str) -> None:
    content_type, expected = FILMS[name]
    content = await one(comfyui, example(name), content_type)
    seen = media.film(content)
    check_film(seen, expected)
    assert media.metadata(content)["prompt"] != {}


def check_film(seen: Film, expected: Film) -> None:
    """Colours travel as YUV, and sound in whole frames."""
    assert near(seen.color, expected.color, 6)
    assert replace(seen, color=(), sound=None) == replace(expected, color=(), sound=None)
    if seen.sound and expected.sound:
        assert replace(seen.sound, seconds=0.0) == replace(expected.sound, seconds=0.0)
        assert seen.sound.seconds == pytest.approx(expected.sound.seconds, abs=0.1)
    else:
        assert seen.sound is expected.sound


async def test_a_saved_latent_has_its_shape_and_values_and_kind(comfyui: str) -> None:
    [(asset, content)] = await made(comfyui, example("latent_save"))
    shape, values, about = media.latent(content)
    assert (shape, values) == ([1, 4, 8, 8], {0.0})
    assert json.loads(about["prompt"])["2"]["class_type"] == "SaveLatent"
    assert (asset["kind"], asset["name"]) == ("latent", "lat_00001_.latent")


def test_every_example_is_decoded_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.json")}
    assert names == PICTURES.keys() | SOUNDS.keys() | FILMS.keys() | {"latent_save"}


async def test_previews_of_pictures_and_sound_come_when_asked_for(comfyui: str) -> None:
    [(asset, content)] = await made(comfyui, example("preview"), temp=True)
    assert media.picture(content).size == (32, 32)
    assert asset["subfolder"] == ""
    found = await made(comfyui, example("audio_load"), temp=True)
    assert [asset["node"] for asset, _ in found] == ["2", "3"]
    assert len({media.sound(content) for _, content in found}) == 1


async def test_opus_is_made_at_a_rate_that_it_knows(comfyui: str) -> None:
    workflow = example("audio_flac")
    workflow["2"] = {"class_type": "SaveAudioOpus", "inputs": workflow["2"]["inputs"] | {"quality": "64k"}}
    heard = media.sound(await one(comfyui, workflow, "audio/ogg"))
    assert (heard.codec, heard.channels) == ("libopus", 1) or heard.codec == "opus"


async def test_a_film_is_loaded_and_taken_apart(comfyui: str) -> None:
    [(_, film)] = await made(comfyui, example("video_audio_mp4"))
    workflow = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "film.mp4"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "a"}},
        "4": {"class_type": "SaveAudio", "inputs": {"audio": ["2", 1], "filename_prefix": "a"}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}},
    }
    result = await handled(comfyui, job(workflow, files={"film.mp4": b64(film)}))
    assert result["datas"] == {"5": {"text": ["8.0"]}}
    assert [asset["kind"] for asset in result["assets"]] == ["image"] * 8 + ["audio"]


async def test_equal_names_of_two_nodes_and_two_subfolders_are_all_kept(comfyui: str) -> None:
    workflow = image_workflow(0xFF0000, prefix="x") | {"7": image_workflow(0xFF)["1"]}
    for node, prefix in (("3", "x"), ("4", "a/x"), ("5", "b/c/x")):
        workflow[node] = {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": prefix}}
    found = await made(comfyui, workflow)
    names = [(asset["subfolder"], asset["name"]) for asset, _ in found]
    assert sorted(names[:2]) == [("", "x_00001_.png"), ("", "x_00002_.png")]
    assert names[2:] == [("a", "x_00001_.png"), ("b/c", "x_00001_.png")]
    assert len({asset["id"] for asset, _ in found}) == 4


# Nodes of others, which only the stand-in has.


@pytest.fixture
def others(standin: Callable[..., Process]) -> str:
    return standin().url


def combine(form: str, **more: Any) -> dict[str, Any]:
    workflow = example("video_mp4")
    inputs = {"images": ["1", 0], "frame_rate": 8, "loop_count": 0, "filename_prefix": "clips/c", "format": form}
    workflow["3"] = {
        "class_type": "VHS_VideoCombine",
        "inputs": {**inputs, "pingpong": False, "save_output": True, **more},
    }
    del workflow["2"]
    return workflow


async def test_a_combined_film_is_a_file_and_what_is_said_about_it_data(others: str) -> None:
    workflow = combine("video/h264-mp4", audio=["4", 0])
    workflow["4"] = {"class_type": "EmptyAudio", "inputs": {"duration": 1.0, "sample_rate": 44100, "channels": 2}}
    result = await handled(others, job(workflow))
    [asset], content = result["assets"], base64.b64decode(result["files"][0])
    assert (asset["kind"], asset["subfolder"], asset["name"]) == ("video", "clips", "c_00001.mp4")
    check_film(media.film(content), Film("h264", (64, 64), 8, 8, (0, 0, 97), Sound("aac", 44100, 2, 1, 0)))
    about = {"filename": "c_00001.mp4", "format": "video/h264-mp4", "frame_rate": 8.0, "workflow": "c_00001.png"}
    assert result["datas"] == {"3": {"gifs": [about]}}


async def test_a_combined_gif_is_animated(others: str) -> None:
    inputs = {"frame_rate": 5, "loop_count": 0, "format": "image/gif", "pingpong": True, "save_output": True}
    [(asset, content)] = await made(others, moving("VHS_VideoCombine", **inputs))
    seen = media.picture(content)
    assert (seen.form, seen.frames, seen.milliseconds) == ("GIF", 6, 1200)
    assert (asset["kind"], asset["content_type"]) == ("image", "image/gif")


async def test_a_combined_film_that_is_a_preview_comes_only_when_asked_for(others: str) -> None:
    workflow = combine("video/webm", save_output=False)
    assert await made(others, workflow) == []
    [(asset, content)] = await made(others, workflow, temp=True)
    assert (media.film(content).codec, asset["subfolder"]) == ("vp9", "clips")


async def test_a_path_on_the_workers_disk_shows_nowhere(others: str) -> None:
    workflow = combine("image/gif") | {"8": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}}}
    result = await handled(others, job(workflow))
    assert result["datas"]["8"]["text"] == ["(True, ['clips/c_00001.png', 'clips/c_00001.gif'])"]
    assert "hearth-" not in str([result["datas"], result["assets"]])


async def test_3d_and_svg_are_files_too(others: str) -> None:
    workflow = {
        "1": {"class_type": "StandinMesh", "inputs": {"size": 2.0}},
        "2": {"class_type": "SaveGLB", "inputs": {"mesh": ["1", 0], "filename_prefix": "mesh/m"}},
        "3": {"class_type": "StandinSVG", "inputs": {"width": 40}},
        "4": {"class_type": "SaveSVGNode", "inputs": {"svg": ["3", 0], "filename_prefix": "s"}},
    }
    [(glb, corners), (svg, drawing)] = await made(others, workflow)
    assert media.mesh(corners) == [(0, 0, 0), (2, 0, 0), (0, 2, 0)]
    assert (glb["kind"], glb["content_type"], glb["subfolder"]) == ("file", "model/gltf-binary", "mesh")
    assert b'width="40"' in drawing
    assert (svg["kind"], svg["content_type"]) == ("image", "image/svg+xml")


async def test_odd_outputs_are_kept_as_they_are_and_files_are_found_at_any_depth(others: str) -> None:
    workflow = image_workflow(5) | {"3": {"class_type": "StandinOddities", "inputs": {"images": ["1", 0]}}}
    result = await handled(others, job(workflow))
    assert [asset["name"] for asset in result["assets"]] == ["x_00001_.png", "oddity_0.png"]
    values = {"number": [1.5], "text": ["a", "b"], "flags": [True], "nothing": [None], "lists": [[1, 2], [3]]}
    assert result["datas"] == {"3": values | {"nested": [{"label": "deep"}]}}
