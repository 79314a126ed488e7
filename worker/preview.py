"""Small pictures of a job's pictures and films, made while those are stored and put beside them. They are nice to have:
whatever goes wrong with one, there is none, and the job neither fails by it nor waits for long."""

import asyncio
import io
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

import av
from PIL import Image, ImageOps

from worker import media
from worker.aside import at_most
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.hearth import Hearth
from worker.put import Piece, Putter, Signed
from worker.spool import Spool
from worker.wire import SMALL_BYTES, Slot

log = logging.getLogger("hearth.worker")
PIXELS = 512
AS_SMALL_AS = ((PIXELS, 75), (PIXELS, 50), (PIXELS // 2, 50))  # pixels and quality, until it fits
MOST_PIXELS, MOST_BYTES = 50_000_000, 256 * 1024**2  # of a picture or a frame that is decoded, and of a picture's file
FILM_S, POSTER_AT = 5, 0.1  # what decoding may take; of its length, since many begin black
MOST, AT_ONCE = 100, 4  # files of one job that have one, and how many are put at a time
MADE_S, PUT_S = 15, 5  # for those that are not made yet when all files are stored, by threads of low priority; for S3
Kept = Stored | JobError
BROWSERS_SHOW = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/apng", "image/avif")

POOL = media.pool("preview")


class Previews:
    """Of these files, from now on: WebP of at most PIXELS each way and SMALL_BYTES. None of what is as small itself, of
    what is neither picture nor film, and of what cannot be read."""

    def __init__(self, files: Sequence[OutputFile]) -> None:
        self._files = [(at, file) for at, file in enumerate(files) if file.kind in MAKERS][:MOST]
        self._made: dict[int, Spool] = {}
        self._making = asyncio.create_task(self._make())

    async def beside(self, stored: Sequence[Kept], hearth: Hearth, putter: Putter) -> list[Kept]:
        """Put beside the files that have arrived, which then say so. stored: of all the files, in order."""
        try:
            await asyncio.wait({self._making}, timeout=MADE_S)
            pairs = [(stored[at], body) for at, body in sorted(self._made.items())]
            arrived = await _put({one.asset.id: body for one, body in pairs if isinstance(one, Stored)}, hearth, putter)
            return [_telling(item, arrived) for item in stored]
        except Exception as error:  # a generation that is paid for is not lost to a thumbnail
            log.info("previews were left out: %s: %s", type(error).__name__, error)
            return list(stored)

    def close(self) -> None:
        self._making.cancel()

    async def _make(self) -> None:
        async def one(place: tuple[int, OutputFile]) -> None:
            at, file = place
            if made := await media.aside(POOL, _preview, file, None):
                self._made[at] = made

        await at_most(media.AT_ONCE, one, self._files)


async def _put(made: Mapping[str, Spool], hearth: Hearth, putter: Putter) -> set[str]:
    """The ids of those that S3 took in time."""
    arrived: set[str] = set()

    async def one(slot: Slot) -> None:
        try:
            piece = Piece(body=made[slot.id], offset=0, size=made[slot.id].size)
            await putter.once(piece, Signed(url=slot.url, headers=slot.headers, trusted=slot.trusted))
            arrived.add(slot.id)
        except Exception as error:  # the others may arrive
            log.info("the preview of %s was left out: %s", slot.id, error)

    with suppress(TimeoutError):
        async with asyncio.timeout(PUT_S):
            await at_most(AT_ONCE, one, await hearth.previews({id: body.size for id, body in made.items()}))
    return arrived


def _telling(item: Kept, arrived: Collection[str]) -> Kept:
    return item.telling(preview=True) if isinstance(item, Stored) and item.asset.id in arrived else item


def _preview(file: OutputFile) -> Spool | None:
    image = MAKERS[file.kind](file)
    content = _webp(image.convert("RGBA" if image.has_transparency_data else "RGB")) if image else b""
    return Spool.of(content) if 0 < len(content) <= SMALL_BYTES else None


def _webp(image: Image.Image) -> bytes:
    """Without the workflow and other texts of its original."""
    for pixels, quality in AS_SMALL_AS:
        out = io.BytesIO()
        image.thumbnail((pixels, pixels))
        image.save(out, "WEBP", quality=quality, method=2)
        if out.tell() <= SMALL_BYTES:
            break
    return out.getvalue()


def _small(file: OutputFile) -> Image.Image | None:
    """The picture, its first one if it moves."""
    if file.size > MOST_BYTES:
        return None
    with Image.open(file.body.reader()) as opened:
        if opened.width * opened.height > MOST_PIXELS:
            return None
        if max(opened.size) <= PIXELS and file.size <= SMALL_BYTES and file.content_type in BROWSERS_SHOW:
            return None
        image: Image.Image = opened.convert("RGBA") if opened.mode in ("P", "PA") else opened
        image.thumbnail((PIXELS, PIXELS))  # of a JPEG no more is decoded than that takes
        image = ImageOps.exif_transpose(image)  # a copy
    return image.point(lambda value: value * (1 / 256)).convert("L") if image.mode == "I;16" else image


def _poster(file: OutputFile) -> Image.Image | None:
    """A frame of the film that stands by itself, at or before POSTER_AT."""
    until = time.monotonic() + FILM_S
    with av.open(file.body.reader(), "r") as container:
        film = next(iter(container.streams.video), None)
        if film is None:
            return None
        film.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        if container.duration:
            with suppress(av.FFmpegError):
                container.seek(int(container.duration * POSTER_AT))
        for packet in container.demux(film):
            for frame in packet.decode():
                return _still(frame)
            if time.monotonic() > until:
                break
    return None


def _still(frame: av.VideoFrame) -> Image.Image:
    shrunk = min(1.0, PIXELS / max(frame.width, frame.height))
    size = {"width": max(1, round(frame.width * shrunk)), "height": max(1, round(frame.height * shrunk))}
    image: Image.Image = frame.to_image(**size)  # type: ignore[no-untyped-call]
    return image


MAKERS: Mapping[str, Callable[[OutputFile], Image.Image | None]] = {"image": _small, "video": _poster}
"""By kind."""
