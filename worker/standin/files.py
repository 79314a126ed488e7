"""The folders input, output and temp: where names lead, which are refused, uploads, and /view."""

import hashlib
import io
import mimetypes
import os
import re
import shutil
import time
from dataclasses import dataclass

from aiohttp import web
from aiohttp.web_request import FileField
from PIL import Image

KINDS = ("input", "output", "temp")
MARKUP = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}
ESCAPE = """**** ERROR: Saving image outside the output folder is not allowed.
 full_output_folder: {full}
         output_dir: {base}
         commonpath: {common}"""

for media_type, extension in (
    ("image/webp", ".webp"),
    ("audio/flac", ".flac"),
    ("audio/mpeg", ".mp3"),
    ("audio/ogg", ".opus"),
    ("video/webm", ".webm"),
    ("video/mp4", ".mp4"),
):
    mimetypes.add_type(media_type, extension)


@dataclass(frozen=True)
class Folders:
    """Absolute paths of ComfyUI's three folders."""

    input: str
    output: str
    temp: str

    @classmethod
    def prepare(cls, base: str) -> "Folders":
        """Make the folders under `base`; temp is emptied, as ComfyUI does at each start."""
        paths = {kind: os.path.join(os.path.realpath(base), kind) for kind in KINDS}
        shutil.rmtree(paths["temp"], ignore_errors=True)
        for path in paths.values():
            os.makedirs(path, exist_ok=True)
        return cls(**paths)

    def of(self, kind: str | None) -> str | None:
        return str(getattr(self, kind)) if kind in KINDS else None

    def annotated(self, name: str) -> tuple[str, str | None]:
        """Split "a.png [temp]" into "a.png" and temp's path; without annotation the path is None."""
        for kind in KINDS:
            if name.endswith(f"[{kind}]"):
                return name[: -len(kind) - 3], self.of(kind)
        return name, None

    def path_of(self, name: str) -> str:
        """Where a node's file name leads: input/ unless it is annotated. Not checked to be inside."""
        name, folder = self.annotated(name)
        return os.path.join(folder or self.input, name)


def is_inside(path: str, folder: str) -> bool:
    return os.path.commonpath((os.path.abspath(path), folder)) == folder


def next_name(prefix: str, folder: str, size: tuple[int, int] = (0, 0)) -> tuple[str, str, str, int]:
    """For filename_prefix "a/b": (path of folder/a, "a", "b", first free counter). Makes the folder.

    Exception, in ComfyUI's words, if the prefix leads out of `folder`.
    """
    prefix = os.path.normpath(_filled(prefix, size))
    subfolder, name = os.path.split(prefix)
    full = os.path.join(folder, subfolder)
    if not is_inside(full, folder):
        full = os.path.abspath(full)
        raise Exception(ESCAPE.format(full=full, base=folder, common=os.path.commonpath((folder, full))))
    os.makedirs(full, exist_ok=True)
    pattern = re.compile(re.escape(name) + r"_(\d*)")
    taken = [int(found[1] or 0) for found in map(pattern.match, os.listdir(full)) if found]
    return full, subfolder, name, max(taken, default=0) + 1


def _filled(prefix: str, size: tuple[int, int]) -> str:
    now = time.localtime()
    values = {"width": str(size[0]), "height": str(size[1]), "year": str(now.tm_year)}
    values |= {"month": f"{now.tm_mon:02}", "day": f"{now.tm_mday:02}"}
    values |= {"hour": f"{now.tm_hour:02}", "minute": f"{now.tm_min:02}", "second": f"{now.tm_sec:02}"}
    for key, value in values.items():
        prefix = prefix.replace(f"%{key}%", value)
    return prefix


async def upload(request: web.Request, folders: Folders) -> web.Response:
    """POST /upload/image: {"name", "subfolder", "type"}; the name may differ from the one sent.

    400 without file or outside the folder; KeyError (a 500 on the wire, as ComfyUI's) for an unknown type.
    """
    post = await request.post()
    kind = str(post.get("type", "input"))
    folder = {kind: getattr(folders, kind) for kind in KINDS}[kind]
    file = post.get("image")
    if not isinstance(file, FileField) or not file.filename:
        return web.Response(status=400)
    subfolder = str(post.get("subfolder", ""))
    full = os.path.join(folder, os.path.normpath(subfolder))
    if not is_inside(os.path.join(full, file.filename), folder):
        return web.Response(status=400)
    os.makedirs(full, exist_ok=True)
    content = file.file.read()
    overwrite = post.get("overwrite") in ("true", "1")
    name = file.filename if overwrite else _free_or_same(full, file.filename, content)
    if overwrite or not os.path.exists(os.path.join(full, name)):
        with open(os.path.join(full, name), "wb") as target:
            target.write(content)
    return web.json_response({"name": name, "subfolder": subfolder, "type": kind})


def _free_or_same(folder: str, wanted: str, content: bytes) -> str:
    """`wanted`, or "wanted (1)" and so on: the first that does not exist or holds exactly `content`."""
    stem, extension = os.path.splitext(wanted)
    name, count = wanted, 0
    while os.path.exists(path := os.path.join(folder, name)) and sha256_of(path) != hashlib.sha256(content).hexdigest():
        count += 1
        name = f"{stem} ({count}){extension}"
    return name


def sha256_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


async def view(request: web.Request, folders: Folders) -> web.StreamResponse:
    """GET /view?filename&subfolder&type&preview&channel: the file, or a picture made from it."""
    query = request.rel_url.query
    if "filename" not in query:
        return web.Response(status=404)
    name, folder = folders.annotated(query["filename"])
    folder = folder or folders.of(query.get("type", "output"))
    if not name or name[0] == "/" or ".." in name or folder is None:
        return web.Response(status=400)
    full = os.path.join(folder, query.get("subfolder", ""))
    if not is_inside(full, folder):
        return web.Response(status=403)
    path = os.path.join(full, os.path.basename(name))
    if not os.path.isfile(path):
        return web.Response(status=404)
    channel = query.get("channel", "")
    if "preview" in query:
        return _picture(path, *_preview(path, query["preview"], channel))
    if channel in ("rgb", "a"):
        return _picture(path, _channel(path, channel), "png")
    return web.FileResponse(path, headers={**_disposition(path), "Content-Type": _content_type(path)})


def _disposition(path: str) -> dict[str, str]:
    return {"Content-Disposition": f'filename="{os.path.basename(path)}"'}


def _content_type(path: str) -> str:
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return "application/octet-stream" if kind in MARKUP else kind


def _picture(path: str, content: bytes, kind: str) -> web.Response:
    return web.Response(body=content, content_type=f"image/{kind}", headers=_disposition(path))


def _preview(path: str, wanted: str, channel: str) -> tuple[bytes, str]:
    """`wanted` is "jpeg;50" or "webp;90"; anything else, or a wish for alpha, is webp."""
    kind, *rest = wanted.split(";")
    if kind not in ("webp", "jpeg") or "a" in channel:
        kind = "webp"
    quality = int(rest[-1]) if rest and rest[-1].isdigit() else 90
    with Image.open(path) as image:
        shown = image.convert("RGB") if kind == "jpeg" or channel == "rgb" else image
        return _encoded(shown, kind, quality), kind


def _channel(path: str, channel: str) -> bytes:
    with Image.open(path) as image:
        if channel == "rgb":
            return _encoded(image.convert("RGB"), "png")
        alpha = image.getchannel("A") if image.mode == "RGBA" else Image.new("L", image.size, 255)
        shown = Image.new("RGBA", image.size)
        shown.putalpha(alpha)
        return _encoded(shown, "png")


def _encoded(image: Image.Image, kind: str, quality: int = 90) -> bytes:
    target = io.BytesIO()
    image.save(target, format=kind, quality=quality)
    return target.getvalue()
