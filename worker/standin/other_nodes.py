"""Nodes of others, as well-known custom nodes behave, of ComfyUI itself the seldom ones, and some that only a stand-in
needs."""

import json
import os
import struct
from fractions import Fraction
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from worker.standin.files import next_name
from worker.standin.images import Batch
from worker.standin.media import Audio, Video, write_mp4, write_webm
from worker.standin.node import Run, Ui
from worker.standin.output_nodes import copies, file_shown, safetensors, texts

Triangle = tuple[tuple[float, float, float], ...]
JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942


def video_combine(
    run: Run, images: Batch, frame_rate: float, loop_count: int, filename_prefix: str, format: str, **more: Any
) -> Ui:
    """VHS_VideoCombine: beside the video lies a picture with the workflow inside, and `fullpath` is the disk's."""
    kind = "output" if more.pop("save_output") else "temp"
    frames, audio = copies(images), more.pop("audio", None)
    if more.pop("pingpong"):
        frames += frames[-2:0:-1]
    full, subfolder, name, counter = next_name(filename_prefix, getattr(run.folders, kind), images.size)
    picture, file = f"{name}_{counter:05}.png", f"{name}_{counter:05}.{format.rpartition('-')[2].rpartition('/')[2]}"
    info = PngInfo()
    for key, text in texts(**more).items():
        info.add_text(key, text)
    frames[0].save(os.path.join(full, picture), pnginfo=info)
    _write(frames, audio, os.path.join(full, file), format, frame_rate, loop_count)
    about = {"format": format, "frame_rate": frame_rate, "workflow": picture, "fullpath": os.path.join(full, file)}
    files = [os.path.join(full, made) for made in (picture, file)]
    return Ui({"gifs": [{**file_shown(file, subfolder, kind), **about}]}, ((kind == "output", files),))


def _write(frames: list[Image.Image], audio: Audio | None, path: str, form: str, fps: float, loops: int) -> None:
    if form.startswith("image/"):
        first, *others = frames
        first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=loops)
    elif form == "video/webm":
        write_webm(tuple(frames), path, "vp9", fps, 32, {})
    else:
        write_mp4(Video(tuple(frames), Fraction(fps), audio), path, {})


def mesh(run: Run, size: float) -> tuple[Triangle]:
    return (((0.0, 0.0, 0.0), (size, 0.0, 0.0), (0.0, size, 0.0)),)


def save_glb(run: Run, mesh: Triangle, filename_prefix: str, **hidden: Any) -> Ui:
    full, subfolder, name, counter = next_name(filename_prefix, run.folders.output)
    file = f"{name}_{counter:05}_.glb"
    with open(os.path.join(full, file), "wb") as target:
        target.write(_glb(mesh, texts(**hidden)))
    return Ui({"3d": [file_shown(file, subfolder, "output")]})


def _glb(triangle: Triangle, extras: dict[str, str]) -> bytes:
    """One triangle without indices: a header, a chunk of JSON, a chunk of floats."""
    floats = struct.pack("<9f", *(value for corner in triangle for value in corner))
    corners = {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}
    corners |= {"min": [min(axis) for axis in zip(*triangle, strict=True)]}
    corners |= {"max": [max(axis) for axis in zip(*triangle, strict=True)]}
    about = {
        "asset": {"version": "2.0", "extras": extras},
        "buffers": [{"byteLength": len(floats)}],
        "bufferViews": [{"buffer": 0, "byteLength": len(floats)}],
        "accessors": [corners],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
    }
    text = json.dumps(about).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(floats))
    return head + struct.pack("<II", len(text), JSON_CHUNK) + text + struct.pack("<II", 36, BINARY_CHUNK) + floats


def svg(run: Run, width: int) -> tuple[str]:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{width}"><circle r="9"/></svg>',)


def save_svg(run: Run, svg: str, filename_prefix: str, **hidden: Any) -> Ui:
    full, subfolder, name, counter = next_name(filename_prefix, run.folders.output)
    file = f"{name}_{counter:05}_.svg"
    with open(os.path.join(full, file), "w") as target:
        target.write(svg)
    return Ui({"images": [file_shown(file, subfolder, "output")]})


def oddities(run: Run, images: Batch) -> Ui:
    """All that custom nodes put into `ui`: a file deep inside, a preview of its own name at the top of temp/, one
    saved at the top of output/ without a prefix, and values of every kind."""
    saved = [file_shown(f"oddity_{place}.png", "", kind) for place, kind in enumerate(("output", "temp"))]
    for file in saved:
        images.frames[0].save(os.path.join(getattr(run.folders, file["type"]), file["filename"]))
    values: dict[str, list[Any]] = {
        "number": [1.5],
        "text": ["a", "b"],
        "flags": [True],
        "nothing": [None],
        "lists": [[1, 2], [3]],
    }
    return Ui({**values, "nested": [{"label": "deep", "made": {"files": saved[:1]}}], "preview": saved[1:]})


def load_vae(run: Run, vae_name: str) -> tuple[str]:
    return (vae_name,)


def save_vae(run: Run, vae: str, filename_prefix: str, **hidden: Any) -> tuple[()]:
    """A model of one number. Like all that save models it tells nobody of the file."""
    full, _, name, counter = next_name(filename_prefix, run.folders.output)
    with open(os.path.join(full, f"{name}_{counter:05}_.safetensors"), "wb") as target:
        target.write(safetensors({f"{vae}_vae": ((), struct.pack("<f", 1.0))}, texts(**hidden)))
    return ()


def string(run: Run, value: str) -> tuple[str]:
    return (value,)
