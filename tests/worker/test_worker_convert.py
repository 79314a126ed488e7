"""Pictures in another format, and without the workflow, as a job asks for; what cannot be converted stays as it is."""

import io
import json
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.worker.fakes import FAST, FakeComfy, FakeHearth, handled, image_workflow, job
from worker.convert import Wish, converted
from worker.files import OutputFile
from worker.wire import output_fault

PROMPT, GRAPH = json.dumps({"1": {"class_type": "A", "inputs": {}}}), json.dumps({"nodes": []})
NOISE = Image.effect_noise((90, 60), 40)
SECRET = b"class_type"


def picture(form: str = "PNG", mode: str = "RGB", **more: Any) -> bytes:
    """As ComfyUI saves one: with the prompt and the workflow in it."""
    image, out = NOISE.convert(mode), io.BytesIO()
    if form == "PNG":
        texts = PngInfo()
        texts.add_text("prompt", PROMPT)
        texts.add_text("workflow", GRAPH, zip=True)
        image.save(out, "PNG", pnginfo=texts, **more)
    else:
        exif = image.getexif()
        exif[0x0110], exif[0x010F] = f"prompt:{PROMPT}", f"workflow:{GRAPH}"
        image.save(out, form, exif=exif, **more)
    return out.getvalue()


def file(content: bytes, name: str = "a.png") -> OutputFile:
    made = OutputFile(node="9", name=name, subfolder="sub")
    made.write(content)
    return made


async def one(given: OutputFile, **wish: Any) -> tuple[OutputFile, str]:
    [made], told = await converted([given], Wish(**wish))
    return made, " ".join(told)


def body(made: OutputFile) -> bytes:
    return made.body.read_at(0, made.size)


def opened(made: OutputFile) -> Image.Image:
    return Image.open(io.BytesIO(body(made)))


@pytest.mark.parametrize(("form", "name"), [("webp", "a.webp"), ("jpeg", "a.jpg")])
async def test_a_png_becomes_what_was_asked_for_and_keeps_its_workflow(form: str, name: str) -> None:
    made, told = await one(file(picture()), format=form, quality=80)
    image = opened(made)
    assert (image.format, image.size, told) == (form.upper(), NOISE.size, "")
    assert (made.name, made.content_type, made.node, made.subfolder) == (name, f"image/{form}", "9", "sub")
    assert image.getexif()[0x0110] == f"prompt:{PROMPT}"
    assert image.getexif()[0x010F] == f"workflow:{GRAPH}"
    assert made.upload().bytes == len(body(made))
    assert made.upload().sha256 != file(picture()).upload().sha256


async def test_a_webp_becomes_a_png_that_comfyui_reads_the_workflow_of() -> None:
    made, _ = await one(file(picture("WEBP"), "a.webp"), format="png")
    assert opened(made).info["prompt"] == PROMPT
    assert opened(made).info["workflow"] == GRAPH


async def test_quality_counts() -> None:
    sizes = [(await one(file(picture()), format="webp", quality=quality))[0].size for quality in (20, 60, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] * 2 < sizes[2]


async def test_what_is_transparent_is_white_in_a_jpeg_and_stays_in_a_webp() -> None:
    clear = io.BytesIO()
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(clear, "PNG")
    jpeg, _ = await one(file(clear.getvalue()), format="jpeg")
    assert opened(jpeg).getpixel((5, 5)) == (255, 255, 255)
    webp, _ = await one(file(clear.getvalue()), format="webp")
    assert opened(webp).convert("RGBA").getpixel((5, 5))[3] == 0  # type: ignore[index]


FORMS = [("PNG", "a.png"), ("WEBP", "a.webp"), ("JPEG", "a.jpg")]


@pytest.mark.parametrize(("form", "name"), FORMS)
async def test_stripped_of_its_texts_a_picture_is_the_same_to_the_bit(form: str, name: str) -> None:
    before = picture(form)
    assert SECRET in before
    made, told = await one(file(before, name), strip=True)
    assert (SECRET in body(made), b"nodes" in body(made), told) == (False, False, "")
    assert opened(made).tobytes() == Image.open(io.BytesIO(before)).tobytes()
    assert not set(opened(made).info) & {"prompt", "workflow", "exif"}


@pytest.mark.parametrize("form", ["webp", "jpeg"])
async def test_converted_and_stripped_has_no_workflow(form: str) -> None:
    made, _ = await one(file(picture()), format=form, strip=True)
    assert SECRET not in body(made)


async def test_the_colour_profile_stays() -> None:
    from PIL.ImageCms import ImageCmsProfile, createProfile

    profile = ImageCmsProfile(createProfile("sRGB")).tobytes()
    for wish in ({"strip": True}, {"format": "webp"}, {"format": "jpeg", "strip": True}):
        made, _ = await one(file(picture(icc_profile=profile)), **wish)
        assert opened(made).info["icc_profile"] == profile


def moving() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    return out.getvalue()


def deep() -> bytes:
    out = io.BytesIO()
    Image.new("I;16", (8, 8)).save(out, "PNG")
    return out.getvalue()


LEFT = {
    "moves": (moving(), "a.webp", {"format": "jpeg"}, "it moves"),
    "deep": (deep(), "a.png", {"format": "jpeg"}, "its colours (I;16) do not fit into jpeg"),
    "broken": (picture()[:500], "a.png", {"format": "jpeg"}, "it could not be converted"),
    "cut": (picture()[:500], "a.png", {"strip": True}, "it is no sound image/png"),
    "film": (b"film", "a.mp4", {"strip": True}, "only PNG, WebP and JPEG lose their metadata"),
}


@pytest.mark.parametrize("name", LEFT)
async def test_what_cannot_be_done_leaves_the_file_as_it_is_and_is_said(name: str) -> None:
    content, called, wish, why = LEFT[name]
    made, told = await one(file(content, called), **wish)
    assert body(made) == content
    assert told == f"{called} of node 9 is left as it is: {why}"


async def test_what_is_as_wished_and_what_is_no_picture_stays_without_a_word() -> None:
    for given in (file(picture("JPEG"), "a.jpg"), file(b"text", "a.txt"), file(b"film", "a.mp4")):
        made, told = await one(given, format="jpeg")
        assert (made, told) == (given, "")


async def test_a_jobs_files_are_stored_as_it_asks_and_the_result_says_what_was_left() -> None:
    images = [{"filename": name, "subfolder": "", "type": "output"} for name in ("a.png", "b.mp4")]
    FakeComfy.content = picture()
    try:
        async with (
            FakeComfy(lambda fake, id: fake.finish(id, {"2": {"images": images}})) as fake,
            FakeHearth() as hearth,
        ):
            given = job(image_workflow(), output_format="webp", strip_metadata=True, _hearth=hearth.field)
            result = await handled(fake.url, given, **FAST)
    finally:
        FakeComfy.content = None
    asset = result["assets"][0]
    assert (asset["name"], asset["content_type"], asset["width"]) == ("a.webp", "image/webp", 90)
    assert hearth.puts[0][2][:4] == b"RIFF"
    assert any("b.mp4 of node 2 is left as it is" in line for line in result["warnings"])


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, ""),
        ({"output_format": "webp", "output_quality": 1, "strip_metadata": True}, ""),
        ({"output_format": "jpg", "output_quality": 100}, ""),
        ({"output_format": None, "strip_metadata": None}, ""),
        ({"output_format": "gif"}, "output_format"),
        ({"output_format": ["webp"]}, "output_format"),
        ({"output_format": "webp", "output_quality": 0}, "output_quality"),
        ({"output_quality": True}, "output_quality"),
        ({"output_quality": "90"}, "output_quality"),
        ({"strip_metadata": "yes"}, "strip_metadata"),
    ],
)
async def test_wishes_that_make_no_sense_are_refused(given: dict[str, Any], fault: str) -> None:
    assert (fault in output_fault(given)) if fault else output_fault(given) == ""
    async with FakeComfy(lambda fake, id: fake.finish(id)) as fake:
        result = await handled(fake.url, job(image_workflow(), **given), **FAST)
        assert result.get("code") == ("bad_input" if fault else None)
