"""Output files decoded, so that a test sees what a viewer would: Pillow for pictures, PyAV for sound and film."""

import io
import json
import struct
from dataclasses import dataclass
from typing import Any

import av
from PIL import Image


@dataclass(frozen=True)
class Sound:
    codec: str
    rate: int
    channels: int
    seconds: float
    loudest: float


@dataclass(frozen=True)
class Film:
    codec: str
    size: tuple[int, int]
    frames: int
    fps: float
    color: tuple[int, ...]
    sound: Sound | None


@dataclass(frozen=True)
class Picture:
    form: str
    size: tuple[int, int]
    frames: int
    milliseconds: float
    color: tuple[int, ...]


def picture(content: bytes) -> Picture:
    image = Image.open(io.BytesIO(content))
    frames, lasting = getattr(image, "n_frames", 1), 0.0
    for place in range(frames):
        image.seek(place)
        image.load()
        lasting += image.info.get("duration", 0)
    color = image.convert("RGB").getpixel((0, 0))
    assert isinstance(color, tuple)
    return Picture(image.format or "", image.size, frames, lasting, color)


def sound(content: bytes) -> Sound:
    with av.open(io.BytesIO(content)) as container:
        return _sound(container)


def film(content: bytes) -> Film:
    with av.open(io.BytesIO(content)) as container:
        stream: Any = container.streams.video[0]
        decoded: list[Any] = list(container.decode(video=0))
        container.seek(0)
        heard = _sound(container) if container.streams.audio else None
        color = decoded[0].to_image().getpixel((0, 0))
        size = (decoded[0].width, decoded[0].height)
        return Film(stream.codec_context.name, size, len(decoded), float(stream.average_rate), color, heard)


def metadata(content: bytes) -> dict[str, Any]:
    """What ComfyUI wrote about the workflow into a sound or film, by lower-case names."""
    with av.open(io.BytesIO(content)) as container:
        named = {name.lower(): text for name, text in container.metadata.items()}
        return {name: json.loads(text) for name, text in named.items() if text.startswith("{")}


def latent(content: bytes) -> tuple[list[int], set[float], dict[str, str]]:
    """(shape, distinct values, metadata) of a safetensors file's latent_tensor."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    first, last = header["latent_tensor"]["data_offsets"]
    floats = content[8 + length + first : 8 + length + last]
    values = set(struct.unpack(f"<{len(floats) // 4}f", floats))
    return header["latent_tensor"]["shape"], values, header.get("__metadata__", {})


def mesh(content: bytes) -> list[tuple[float, ...]]:
    """The corners of a GLB file's first mesh."""
    magic, version, total, length = struct.unpack("<4sIII", content[:16])
    assert (magic, version, total) == (b"glTF", 2, len(content))
    about, start = json.loads(content[20 : 20 + length]), 28 + length
    floats = struct.unpack(f"<{about['accessors'][0]['count'] * 3}f", content[start : start + 36])
    return [floats[place : place + 3] for place in range(0, len(floats), 3)]


def _sound(container: Any) -> Sound:
    stream = container.streams.audio[0]
    plain = av.AudioResampler(format="flt", layout="mono", rate=stream.rate)
    samples, loudest = 0, 0.0
    for frame in [*container.decode(stream), None]:
        for part in plain.resample(frame):
            values = struct.unpack(f"<{part.samples}f", bytes(part.planes[0])[: part.samples * 4])
            samples, loudest = samples + part.samples, max(loudest, *map(abs, values))
    return Sound(stream.codec_context.name, stream.rate, stream.channels, samples / stream.rate, loudest)
