"""The nodes' pictures against a real ComfyUI's: tests/golden/comfyui/pictures/, made from `input.png` there."""

import asyncio
import io
import json
from typing import Any

import pytest
from PIL import Image

from .client import Client
from .pictures import png
from .recordings import GOLDEN
from .replay import furthest

FOLDER = GOLDEN / "pictures"
SOURCE = (FOLDER / "input.png").read_bytes()


def scale(method: str, width: int, height: int, crop: str = "disabled") -> dict[str, Any]:
    how = {"upscale_method": method, "width": width, "height": height, "crop": crop}
    return {"class_type": "ImageScale", "inputs": {"image": ["1", 0], **how}}


CHANGES: dict[str, dict[str, Any]] = {
    "nearest": scale("nearest-exact", 80, 60),
    "bilinear": scale("bilinear", 67, 0),
    "bilinear_cropped": scale("bilinear", 100, 40, "center"),
    "area": scale("area", 20, 15),
    "lanczos": scale("lanczos", 0, 13),
    "unchanged": scale("lanczos", 0, 0),
    "invert": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "blur": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 9, "sigma": 0.3}},
    "crop": {"class_type": "ImageCrop", "inputs": {"image": ["1", 0], "width": 10, "height": 99, "x": 5, "y": 7}},
    "mask": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}},
}


def graph(change: dict[str, Any], file: str = "standin-input.png") -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": file}},
        "2": change,
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }


async def changed(url: str, change: dict[str, Any]) -> bytes:
    async with Client.to(url) as client:
        await client.upload("standin-input.png", SOURCE, overwrite="true")
        entry = await client.run(graph(change))
        return await client.file(entry["outputs"]["3"]["images"][0])


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_picture_is_within_two_levels_of_comfyuis(comfy: str, name: str) -> None:
    seen = Image.open(io.BytesIO(asyncio.run(changed(comfy, CHANGES[name]))))
    assert furthest(seen, Image.open(FOLDER / f"{name}.png")) <= 2


@pytest.mark.parametrize(("color", "pixel"), [(0x336699, (0x33, 0x66, 0x99)), (98, (0, 0, 98))])
def test_an_empty_image_has_its_color_and_says_how_it_was_made(comfy: str, color: int, pixel: tuple[int, ...]) -> None:
    size = {"width": 16, "height": 9, "batch_size": 1, "color": color}
    empty = {"1": {"class_type": "EmptyImage", "inputs": size}}
    shown = {"2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}

    async def made() -> Image.Image:
        async with Client.to(comfy) as client:
            entry = await client.run(empty | shown, extra_data={"extra_pnginfo": {"workflow": {"k": 1}}})
            return Image.open(io.BytesIO(await client.file(entry["outputs"]["2"]["images"][0])))

    seen = asyncio.run(made())
    assert (seen.mode, seen.size, seen.getpixel((15, 8))) == ("RGB", (16, 9), pixel)
    assert json.loads(seen.info["prompt"]) == empty | shown
    assert json.loads(seen.info["workflow"]) == {"k": 1}


def test_a_color_mask_is_one_channel(comfy: str) -> None:
    mask = {"class_type": "LoadImageMask", "inputs": {"image": "standin-mask.png", "channel": "green"}}
    shown = {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}
    nodes = {"1": mask, "2": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 0]}}, "3": shown}

    async def made() -> Image.Image:
        async with Client.to(comfy) as client:
            await client.upload("standin-mask.png", png((10, 200, 30)), overwrite="true")
            entry = await client.run(nodes)
            return Image.open(io.BytesIO(await client.file(entry["outputs"]["3"]["images"][0])))

    assert asyncio.run(made()).getpixel((0, 0)) == (200, 200, 200)
