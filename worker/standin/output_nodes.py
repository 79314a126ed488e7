"""The nodes that show something: files, previews, texts, frames on the socket."""

import json
import math
import os
import random
import struct
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from worker.standin.files import next_name
from worker.standin.images import Batch, Latent
from worker.standin.node import Run, Ui

WEBP_METHODS = {"default": 4, "fastest": 0, "slowest": 6}
EXIF_MAKE, EXIF_MODEL = 0x010F, 0x0110
LETTERS = "abcdefghijklmnopqrstupvxyz"


def save_image(
    run: Run, images: Batch, filename_prefix: str = "ComfyUI", prompt: Any = None, extra_pnginfo: Any = None
) -> Ui:
    return _saved_pngs(images, filename_prefix, run.folders.output, "output", texts(prompt, extra_pnginfo), 4)


def preview_image(run: Run, images: Batch, prompt: Any = None, extra_pnginfo: Any = None) -> Ui:
    prefix = "ComfyUI_temp_" + "".join(random.choices(LETTERS, k=5))
    return _saved_pngs(images, prefix, run.folders.temp, "temp", texts(prompt, extra_pnginfo), 1)


def _saved_pngs(images: Batch, prefix: str, folder: str, kind: str, told: dict[str, str], compress_level: int) -> Ui:
    full, subfolder, name, counter = next_name(prefix, folder, images.size)
    info = PngInfo()
    for key, text in told.items():
        info.add_text(key, text)
    shown = []
    for place, frame in enumerate(copies(images)):
        file = f"{name.replace('%batch_num%', str(place))}_{counter + place:05}_.png"
        frame.save(os.path.join(full, file), pnginfo=info, compress_level=compress_level)
        shown.append(file_shown(file, subfolder, kind))
    return Ui({"images": shown})


def copies(images: Batch) -> list[Image.Image]:
    """Pillow leaves what it was saving on a picture when saving fails, and frames live on in the cache."""
    return [frame.copy() for frame in images.frames]


def texts(prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, str]:
    """What travels inside a saved file: the graph, and each key of extra_pnginfo."""
    prompts = {} if prompt is None else {"prompt": json.dumps(prompt)}
    return prompts | {key: json.dumps(value) for key, value in (extra_pnginfo or {}).items()}


def file_shown(name: str, subfolder: str, kind: str) -> dict[str, str]:
    return {"filename": name, "subfolder": subfolder, "type": kind}


def save_image_websocket(run: Run, images: Batch) -> tuple[()]:
    for place, frame in enumerate(images.frames):
        run.tick(place, len(images.frames), frame)
    return ()


def save_animated_webp(
    run: Run, images: Batch, filename_prefix: str, fps: float, lossless: bool, quality: int, method: str, **hidden: Any
) -> Ui:
    full, subfolder, name, counter = next_name(filename_prefix, run.folders.output, images.size)
    exif = Image.Exif()
    told = texts(**hidden)
    if "prompt" in told:
        exif[EXIF_MODEL] = "prompt:" + told.pop("prompt")
    for place, (key, text) in enumerate(told.items()):
        exif[EXIF_MAKE - place] = f"{key}:{text}"
    file = f"{name}_{counter:05}_.webp"
    how = {"lossless": lossless, "quality": quality, "method": WEBP_METHODS[method], "exif": exif}
    _save_animated(images, os.path.join(full, file), fps, **how)
    return Ui({"images": [file_shown(file, subfolder, "output")], "animated": [len(images.frames) != 1]})


def save_animated_png(
    run: Run, images: Batch, fps: float, compress_level: int, filename_prefix: str = "ComfyUI", **hidden: Any
) -> Ui:
    full, subfolder, name, counter = next_name(filename_prefix, run.folders.output, images.size)
    info = PngInfo()
    for key, text in texts(**hidden).items():
        info.add(b"comf", f"{key}\0{text}".encode("latin-1"), after_idat=True)
    file = f"{name}_{counter:05}_.png"
    _save_animated(images, os.path.join(full, file), fps, pnginfo=info, compress_level=compress_level)
    return Ui({"images": [file_shown(file, subfolder, "output")], "animated": [True]})


def _save_animated(images: Batch, path: str, fps: float, **how: Any) -> None:
    first, *others = copies(images)
    first.save(path, save_all=True, append_images=others, duration=int(1000 / fps), **how)


def preview_any(run: Run, source: Any = None) -> Ui:
    told = json.dumps(source) if isinstance(source, dict | list) else str(source)
    return Ui({"text": [told]})


def save_latent(
    run: Run, samples: Latent, filename_prefix: str = "ComfyUI", prompt: Any = None, extra_pnginfo: Any = None
) -> Ui:
    full, subfolder, name, counter = next_name(filename_prefix, run.folders.output)
    file = f"{name}_{counter:05}_.latent"
    with open(os.path.join(full, file), "wb") as target:
        zeros = bytes(4 * math.prod(samples.shape))
        tensors = {"latent_format_version_0": ((0,), b""), "latent_tensor": (samples.shape, zeros)}
        target.write(safetensors(tensors, {"prompt": "", **texts(prompt, extra_pnginfo)}))
    return Ui({"latents": [file_shown(file, subfolder, "output")]})


def safetensors(tensors: dict[str, tuple[tuple[int, ...], bytes]], metadata: dict[str, str]) -> bytes:
    """Of (shape, floats) by name: length of the header (8 bytes, little endian), the header, all floats."""
    header: dict[str, Any] = {"__metadata__": metadata}
    floats = b""
    for name, (shape, values) in tensors.items():
        place = [len(floats), len(floats) + len(values)]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": place}
        floats += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + floats
