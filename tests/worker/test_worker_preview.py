"""Small pictures of what jobs made: what they show, how little they take, and that no job fails or waits by them."""

import asyncio
import io
import struct
import threading
import zlib
from typing import Any

import av
import pytest
from PIL import Image, ImageFile

from tests.worker.fakes import FAST, FakeComfy, FakeHearth, handled, image_workflow, job
from tests.worker.test_worker_convert import GRAPH, PROMPT, SECRET, file
from worker import media, preview
from worker.files import OutputFile
from worker.wire import SMALL_BYTES

RED, BLUE = (255, 0, 0), (0, 0, 255)


def saved(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **more)
    return out.getvalue()


def small(given: OutputFile) -> Image.Image | None:
    """As the worker makes one: in a thread, and without a word if it cannot."""
    made = asyncio.run(media.aside(preview.POOL, preview._preview, given, None))
    if made is None:
        return None
    assert made.size <= SMALL_BYTES
    image = Image.open(made.reader())
    image.load()
    assert (image.format, image.info.keys() & {"exif", "xmp", "icc_profile"}) == ("WEBP", set())
    return image


def colour(image: Image.Image | None) -> tuple[int, ...]:
    assert image
    found = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    assert isinstance(found, tuple)
    return tuple(255 if value > 200 else 0 if value < 60 else 127 for value in found)


def test_a_picture_becomes_small_and_keeps_its_shape() -> None:
    made = small(file(saved(Image.new("RGB", (1600, 800), RED))))
    assert made
    assert made.size == (512, 256)
    assert colour(made) == RED


def test_a_workflow_in_a_picture_is_in_no_preview() -> None:
    exif = Image.Exif()
    exif[0x0110], exif[0x010F] = f"prompt:{PROMPT}", f"workflow:{GRAPH}"
    given = file(saved(Image.new("RGB", (1600, 800), RED), "WEBP", exif=exif), "a.webp")
    assert SECRET in given.body.read_at(0, given.size)
    made = asyncio.run(media.aside(preview.POOL, preview._preview, given, None))
    assert made
    assert SECRET not in made.read_at(0, made.size)


def test_what_is_transparent_stays_so() -> None:
    made = small(file(saved(Image.new("RGBA", (900, 900), (*RED, 0)))))
    assert made
    assert made.mode == "RGBA"
    assert made.getpixel((9, 9))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "I;16"])
def test_a_picture_of_any_colours_has_one(mode: str) -> None:
    grey = {"I;16": 127 * 256, "1": 1, "LA": (127, 255), "CMYK": (0, 0, 0, 128)}.get(mode, 127)
    image = Image.new(mode, (900, 600), grey)
    if mode == "P":
        image.putpalette([127] * 768)
    form = "TIFF" if mode == "CMYK" else "PNG"
    assert colour(small(file(saved(image, form), f"a.{form.lower()}"))) == ((255,) if mode == "1" else (127,)) * 3


def test_a_picture_of_few_colours_is_made_small_as_smoothly_as_others() -> None:
    stripes = Image.frombytes("L", (1024, 1024), bytes((0, 255)) * 512 * 1024)
    assert colour(small(file(saved(stripes.convert("P"))))) == (127, 127, 127)


def test_the_worst_picture_fits_too() -> None:
    noise = Image.effect_noise((1024, 1024), 200)
    assert small(file(saved(Image.merge("RGB", [noise, noise.rotate(90), noise.rotate(180)]))))


@pytest.mark.parametrize(("form", "name"), [("WEBP", "a.webp"), ("GIF", "a.gif"), ("PNG", "a.png")])
def test_a_moving_picture_shows_its_first(form: str, name: str) -> None:
    frames = [Image.new("RGB", (700, 600), shade) for shade in (RED, BLUE)]
    moving = saved(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
    assert colour(small(file(moving, name))) == RED


def film(*shades: tuple[int, ...], frames: int = 10) -> bytes:
    """Of some frames of each shade, in each of which it can be begun."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 640, 480, "yuv420p", frames
        for shade in shades:
            for _ in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (640, 480), shade))))
        container.mux(stream.encode())
    return out.getvalue()


def test_a_film_has_a_poster() -> None:
    made = small(file(film(RED), "a.mp4"))
    assert made
    assert made.size == (512, 384)
    assert colour(made) == RED


def test_a_poster_is_not_the_black_that_films_begin_with() -> None:
    assert colour(small(file(film((0, 0, 0), *[BLUE] * 9), "a.mp4"))) == BLUE


def test_what_is_as_small_itself_has_none_if_a_browser_shows_it() -> None:
    image = Image.new("RGB", (512, 512), RED)
    assert small(file(saved(image))) is None
    assert colour(small(file(saved(image.resize((99, 99)), "TIFF"), "a.tiff"))) == RED
    assert small(file(saved(Image.effect_noise((512, 512), 90)))), "of many bytes"


BROKEN = {
    "cut.png": saved(Image.effect_noise((900, 900), 90))[:9000],
    "none.png": b"bytes of nothing",
    "empty.webp": b"",
    "drawn.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "cut.mp4": film(RED)[:900],
    "none.mp4": b"bytes of nothing",
    "text.txt": b"text",
    "a.latent": b"x",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_has_none(name: str) -> None:
    assert small(file(BROKEN[name], name)) is None


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [7_100, 12_000, 100_000])
def test_of_a_picture_that_would_take_the_memory_nothing_is_decoded(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Any] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.size))
    assert small(file(bomb(side, side))) is None
    assert decoded == []
    small(file(bomb(700, 700)))
    assert decoded, "the same of fewer pixels is"


def test_of_a_film_of_too_many_pixels_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    given = file(film(RED), "a.mp4")
    monkeypatch.setattr(preview, "MOST_PIXELS", 640 * 480 - 1)
    assert small(given) is None
    monkeypatch.setattr(preview, "MOST_PIXELS", 640 * 480)
    assert small(given)


# with a job

IMAGES = [{"filename": name, "subfolder": "", "type": "output"} for name in ("a.png", "b.png", "c.txt")]
PICTURE = saved(Image.new("RGB", (1200, 900), BLUE))


@pytest.fixture
def of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeComfy, "content", PICTURE)
    monkeypatch.setattr(preview, "MADE_S", 60)
    monkeypatch.setattr(preview, "PUT_S", 60)


async def made_by(hearth: FakeHearth, **input: Any) -> dict[str, Any]:
    async with FakeComfy(lambda fake, id: fake.finish(id, {"2": {"images": IMAGES}})) as fake:
        return await handled(fake.url, job(image_workflow(), _hearth=hearth.field, **input), **FAST)


def told(result: dict[str, Any]) -> list[bool | None]:
    assert "error" not in result
    assert [asset["name"] for asset in result["assets"]] == ["a.png", "b.png", "c.txt"]
    return [asset["preview"] for asset in result["assets"]]


async def test_previews_are_put_beside_their_files(of_pictures: None) -> None:
    async with FakeHearth() as hearth:
        result = await made_by(hearth)
    assert told(result) == [True, True, None]
    asked = [body for verb, body in hearth.calls if verb == "small"]
    assert [file["id"] for file in asked[0]["files"]] == ["asset-1", "asset-2"]
    bodies = [body for path, _, body in sorted(hearth.puts) if ".preview" in path]
    assert [len(body) for body in bodies] == [file["bytes"] for file in asked[0]["files"]]
    assert {Image.open(io.BytesIO(body)).size for body in bodies} == {(512, 384)}


async def test_base64_has_no_previews(of_pictures: None) -> None:
    async with FakeHearth() as hearth:
        assert told(await made_by(hearth, tobase64=True)) == [None] * 3
        assert "small" not in hearth.verbs()


@pytest.mark.parametrize("status", [400, 404, 409, 500])
async def test_a_hearth_that_gives_no_place_for_them_costs_the_job_nothing(of_pictures: None, status: int) -> None:
    async with FakeHearth() as hearth:
        hearth.statuses["small"] = [status]
        assert told(await made_by(hearth)) == [None] * 3


@pytest.mark.parametrize("answer", [{}, {"small": None}, {"small": [{"id": "x"}]}, {"small": [7]}, [], {"small": "x"}])
async def test_nor_does_one_that_answers_nonsense(of_pictures: None, answer: Any) -> None:
    async with FakeHearth() as hearth:
        hearth.small = answer
        assert told(await made_by(hearth)) == [None] * 3


async def test_an_s3_that_refuses_one_takes_the_others(of_pictures: None) -> None:
    async with FakeHearth() as hearth:
        hearth.statuses["put 1.preview.webp"] = [403]
        assert told(await made_by(hearth)) == [None, True, None]


async def test_a_hearth_that_hangs_is_not_waited_for(of_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "PUT_S", 0.2)
    async with FakeHearth() as hearth:
        hearth.hangs = ("small",)
        assert told(await made_by(hearth)) == [None] * 3


async def test_a_picture_that_takes_too_long_is_not_waited_for(
    of_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, made = threading.Event(), threading.Event()

    def slow(file: OutputFile) -> None:
        go_on.wait(20)
        made.set()

    monkeypatch.setattr(preview, "MADE_S", 0.2)
    monkeypatch.setattr(preview, "_preview", slow)
    async with FakeHearth() as hearth:
        try:
            assert told(await made_by(hearth)) == [None] * 3
            assert not made.is_set()
        finally:
            go_on.set()


@pytest.mark.parametrize("fault", [RuntimeError("a defect"), MemoryError(), KeyError("x")])
@pytest.mark.parametrize("where", ["_preview", "_put", "_telling"])
async def test_no_defect_in_them_fails_a_job(
    of_pictures: None, monkeypatch: pytest.MonkeyPatch, where: str, fault: Exception
) -> None:
    def broken(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(preview, where, broken)
    async with FakeHearth() as hearth:
        assert told(await made_by(hearth)) == [None] * 3
