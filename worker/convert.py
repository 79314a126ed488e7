"""A picture in another format, or without what ComfyUI wrote into it, as a job may ask for. What cannot be converted
without harm is left as it is, and the result's `warnings` say why."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from worker import media
from worker.files import OutputFile
from worker.wire import OUTPUT_FORMATS, OUTPUT_QUALITY

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # others have more than 8 bits in a channel
EXIF_PROMPT, EXIF_WORKFLOW = 0x0110, 0x010F  # where ComfyUI's own WebP have them
JPEG_SEGMENT_BYTES = 65_000
MOST_BYTES = 256 * 1024**2  # of a file that is taken into memory


@dataclass(frozen=True, kw_only=True)
class Wish:
    """format: one of OUTPUT_FORMATS' values, "" for as it is. strip: without workflow, prompt and all other texts."""

    format: str = ""
    quality: int = OUTPUT_QUALITY
    strip: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Wish":
        """From a job's input that wire.output_fault finds sound."""
        return cls(
            format=OUTPUT_FORMATS[given["output_format"]] if given.get("output_format") else "",
            quality=given.get("output_quality") or OUTPUT_QUALITY,
            strip=bool(given.get("strip_metadata")),
        )


AS_MADE = Wish()


class Left(Exception):
    """The file is left as it is; says why."""


FAILED = "it could not be converted"


async def converted(files: Sequence[OutputFile], wish: Wish) -> tuple[list[OutputFile], list[str]]:
    """The files in order, and for each a sentence if it could not be done as wished, else ""."""
    if not wish.format and not wish.strip:
        return list(files), [""] * len(files)
    made: list[OutputFile | str] = await media.each_aside(lambda file: _one(file, wish), files, FAILED)
    pairs = list(zip(files, made, strict=True))
    told = [
        f"{file.name} of node {file.node} is left as it is: {new}" if isinstance(new, str) else ""
        for file, new in pairs
    ]
    return [file if isinstance(new, str) else new for file, new in pairs], told


def _one(file: OutputFile, wish: Wish) -> OutputFile | str:
    try:
        if wish.format and file.kind == "image" and file.content_type != f"image/{wish.format}":
            file = _encoded(file, wish)
        return _stripped(file) if wish.strip and file.kind in WITH_TEXTS else file
    except Left as why:
        return str(why)


WITH_TEXTS = ("image", "video", "audio")


def _encoded(file: OutputFile, wish: Wish) -> OutputFile:
    with Image.open(file.body.reader()) as image:
        if getattr(image, "is_animated", False):
            raise Left("it moves")
        if image.mode not in MODES:
            raise Left(f"its colours ({image.mode}) do not fit into {wish.format}")
        if image.width * image.height > media.MOST_PIXELS:
            raise Left(f"it has more than {media.MOST_PIXELS} pixels")
        image.load()
        out = io.BytesIO()
        SAVE[wish.format](image, out, wish)
    extension = "jpg" if wish.format == "jpeg" else wish.format
    return file.remade(out.getvalue(), f"{PurePosixPath(file.name).stem}.{extension}")


def _save_webp(image: Image.Image, out: io.BytesIO, wish: Wish) -> None:
    mode = "RGBA" if image.has_transparency_data else "RGB"
    more = {} if wish.strip else {"exif": _exif(image)}
    image.convert(mode).save(out, "WEBP", quality=wish.quality, icc_profile=image.info.get("icc_profile"), **more)


def _save_jpeg(image: Image.Image, out: io.BytesIO, wish: Wish) -> None:
    """What is transparent becomes white."""
    flat = image.convert("RGB")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    exif = b"" if wish.strip else _exif(image).tobytes()
    more = {"exif": exif} if 0 < len(exif) <= JPEG_SEGMENT_BYTES else {}
    flat.save(out, "JPEG", quality=wish.quality, icc_profile=image.info.get("icc_profile"), **more)


def _save_png(image: Image.Image, out: io.BytesIO, wish: Wish) -> None:
    mode = "RGBA" if image.has_transparency_data else "RGB"
    exif, texts = image.getexif(), PngInfo()
    for tag, name in ((EXIF_PROMPT, "prompt"), (EXIF_WORKFLOW, "workflow")):
        if str(exif.get(tag, "")).startswith(f"{name}:"):
            texts.add_text(name, str(exif[tag]).partition(":")[2])
    more = {} if wish.strip else {"pnginfo": texts}
    image.convert(mode).save(out, "PNG", compress_level=4, icc_profile=image.info.get("icc_profile"), **more)


SAVE: Mapping[str, Callable[[Image.Image, io.BytesIO, Wish], None]] = {
    "webp": _save_webp,
    "jpeg": _save_jpeg,
    "png": _save_png,
}


def _exif(image: Image.Image) -> Image.Exif:
    """With the prompt and the workflow of a PNG where ComfyUI finds them in a WebP."""
    exif = image.getexif()
    for tag, name in ((EXIF_PROMPT, "prompt"), (EXIF_WORKFLOW, "workflow")):
        if isinstance(text := image.info.get(name), str):
            exif[tag] = f"{name}:{text}"
    return exif


def _stripped(file: OutputFile) -> OutputFile:
    """Without decoding it: what is seen stays as it was, to the bit."""
    strip = STRIP.get(file.content_type)
    if strip is None:
        raise Left("only PNG, WebP and JPEG lose their metadata")
    if file.size > MOST_BYTES:
        raise Left(f"it has more than {MOST_BYTES} bytes")
    try:
        return file.remade(b"".join(strip(file.body.read_at(0, file.size))), file.name)
    except (ValueError, IndexError, struct.error) as error:
        raise Left(f"it is no sound {file.content_type}") from error


PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME")


def _strip_png(content: bytes) -> Iterator[bytes]:
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError
    yield content[:8]
    at = 8
    while True:
        size, kind = struct.unpack_from(">I4s", content, at)
        chunk = content[at : at + size + 12]
        if len(chunk) < size + 12 or zlib.crc32(chunk[4:-4]) != struct.unpack(">I", chunk[-4:])[0]:
            raise ValueError
        if kind not in PNG_TEXTS:
            yield chunk
        if kind == b"IEND":
            return
        at += len(chunk)


VP8X_EXIF, VP8X_XMP = 0x08, 0x04


def _strip_webp(content: bytes) -> Iterator[bytes]:
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        raise ValueError
    kept, at = [], 12
    while at < len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        chunk = content[at : at + 8 + size + size % 2]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~(VP8X_EXIF | VP8X_XMP)]) + chunk[9:]
        if kind not in (b"EXIF", b"XMP "):
            kept.append(chunk)
        at += len(chunk)
    body = b"".join(kept)
    yield b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


JPEG_TEXTS = (0xE1, 0xED, 0xFE)  # Exif and XMP, IPTC, comments; the colour profile is 0xE2


def _strip_jpeg(content: bytes) -> Iterator[bytes]:
    if content[:2] != b"\xff\xd8":
        raise ValueError
    yield content[:2]
    at = 2
    while content[at + 1] != 0xDA:  # from there on it is the picture
        mark, kind, size = struct.unpack_from(">BBH", content, at)
        if mark != 0xFF:
            raise ValueError
        if kind not in JPEG_TEXTS:
            yield content[at : at + 2 + size]
        at += 2 + size
    yield content[at:]


STRIP: Mapping[str, Callable[[bytes], Iterator[bytes]]] = {
    "image/png": _strip_png,
    "image/webp": _strip_webp,
    "image/jpeg": _strip_jpeg,
}
