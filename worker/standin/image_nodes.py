"""The nodes that make, load or change something and show nothing."""

import json
import math
import struct
import time
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageFile, ImageOps, ImageSequence

from worker.standin.images import Batch, Latent, blurred, inverted, joined, scaled
from worker.standin.node import Run

TICK_S = 0.1


def empty_image(run: Run, width: int, height: int, batch_size: int, color: int) -> tuple[Batch]:
    rgb = (color >> 16 & 255, color >> 8 & 255, color & 255)
    return (Batch((Image.new("RGB", (width, height), rgb),) * batch_size),)


def image_scale(run: Run, image: Batch, upscale_method: str, width: int, height: int, crop: str) -> tuple[Batch]:
    """width or height 0 keeps the aspect; both 0 leaves the picture as it is."""
    if width == height == 0:
        return (image,)
    width = width or max(1, round(image.size[0] * height / image.size[1]))
    height = height or max(1, round(image.size[1] * width / image.size[0]))
    return (image.map(lambda frame: scaled(frame, width, height, upscale_method, crop)),)


def image_invert(run: Run, image: Batch) -> tuple[Batch]:
    return (image.map(inverted),)


def image_blur(run: Run, image: Batch, blur_radius: int, sigma: float) -> tuple[Batch]:
    return (image.map(lambda frame: blurred(frame, blur_radius, sigma)),)


def image_crop(run: Run, image: Batch, width: int, height: int, x: int, y: int) -> tuple[Batch]:
    """Out of range is no error: at least the last pixel remains."""
    x, y = min(x, image.size[0] - 1), min(y, image.size[1] - 1)
    box = (x, y, min(x + width, image.size[0]), min(y + height, image.size[1]))
    return (image.map(lambda frame: frame.crop(box)),)


def image_batch(run: Run, image1: Batch, image2: Batch) -> tuple[Batch]:
    return (joined(image1, image2),)


def image_stitch(run: Run, image1: Batch, image2: Batch | None = None, **how: Any) -> tuple[Batch]:
    if image2 is not None:
        raise NotImplementedError("the stand-in stitches nothing: ImageStitch only passes image1 on")
    return (image1,)


def image_from_batch(run: Run, image: Batch, batch_index: int, length: int) -> tuple[Batch]:
    start = min(len(image.frames) - 1, batch_index)
    return (Batch(image.frames[start : start + length]),)


def string_concatenate(run: Run, string_a: str, string_b: str, delimiter: str) -> tuple[str]:
    return (delimiter.join((string_a, string_b)),)


def empty_latent_image(run: Run, width: int, height: int, batch_size: int) -> tuple[Latent]:
    return (Latent((batch_size, 4, height // 8, width // 8)),)


def load_latent(run: Run, latent: str) -> tuple[Latent]:
    """Of the file only the shape: the stand-in's latents are all zeros."""
    with open(run.folders.path_of(latent), "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        batch, channels, height, width = json.loads(file.read(length))["latent_tensor"]["shape"]
    return (Latent((batch, channels, height, width)),)


def mask_to_image(run: Run, mask: Batch) -> tuple[Batch]:
    return (mask.map(lambda frame: frame.convert("RGB")),)


def standin_sleep(run: Run, seconds: float, image: Batch | None = None) -> tuple[Batch]:
    """StandinSleep exists only in the stand-in: a slow job that costs no CPU and can be interrupted at each tick. As a
    sampler does, it shows what it has to who asks.

    A test that must also pass with a real ComfyUI makes a slow job of real nodes instead: ImageBlur of radius 31 on
    a big EmptyImage, several in a row.
    """
    image = image or Batch((Image.new("RGB", (64, 64)),))
    wait_ticking(run.tick, seconds, image.frames[0] if run.previews else None)
    return (image,)


def wait_ticking(
    tick: Callable[[int, int, Image.Image | None], None], seconds: float, preview: Image.Image | None = None
) -> None:
    """Sleep, with a tick every 0.1 s."""
    steps = math.ceil(seconds / TICK_S)
    for step in range(steps):
        tick(step, steps, preview)
        time.sleep(min(TICK_S, seconds - step * TICK_S))


def load_image(run: Run, image: str) -> tuple[Batch, Batch]:
    """The frames of a file that have its first frame's size, and the mask of what is transparent."""
    opened = tolerant(Image.open, run.folders.path_of(image))
    frames: list[Image.Image] = []
    masks: list[Image.Image] = []
    for frame in ImageSequence.Iterator(opened):
        frame = _upright(frame)
        picture = frame.convert("RGB")
        picture.info.clear()
        if not frames or picture.size == frames[0].size:
            frames.append(picture)
            masks.append(_transparency(frame))
    shown = 1 if opened.format == "MPO" else len(frames)
    return Batch(tuple(frames[:shown])), Batch(tuple(masks[:shown]))


def load_image_mask(run: Run, image: str, channel: str) -> tuple[Batch]:
    picture = _upright(tolerant(Image.open, run.folders.path_of(image))).convert("RGBA")
    band = picture.getchannel(channel[0].upper())
    return (Batch((inverted(band) if channel == "alpha" else band,)),)


def tolerant(step: Callable[[Any], Any], subject: Any) -> Any:
    """Once more with Pillow's patience for truncated files. As ComfyUI: for opening and turning, not for decoding."""
    try:
        return step(subject)
    except (OSError, ValueError):
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            return step(subject)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def _upright(frame: Image.Image) -> Image.Image:
    turned: Image.Image = tolerant(ImageOps.exif_transpose, frame)
    return turned.point(lambda value: value * (1 / 255)) if turned.mode == "I" else turned


def _transparency(frame: Image.Image) -> Image.Image:
    """White where the picture is transparent; 64 x 64 of black for a picture without alpha, as ComfyUI's."""
    if frame.mode == "P" and "transparency" in frame.info:
        frame = frame.convert("RGBA")
    return inverted(frame.getchannel("A")) if "A" in frame.getbands() else Image.new("L", (64, 64))
