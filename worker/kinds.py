"""What a file is, by its name: its content type, and its kind as the Comfy API v2 names outputs."""

import re
from pathlib import PurePosixPath
from typing import Any

# Written out, because the mimetypes module knows as much as the machine it runs on.
CONTENT_TYPES = {
    extension: line.split()[0]
    for line in """
        image/png png          image/jpeg jpg jpeg    image/webp webp        image/gif gif       image/avif avif
        image/apng apng        image/bmp bmp          image/tiff tif tiff    image/x-exr exr     image/svg+xml svg
        image/jxl jxl          image/heic heic        image/jp2 jp2          image/x-tga tga     image/x-icon ico
        image/vnd.radiance hdr                        image/vnd.adobe.photoshop psd
        video/mp4 mp4 m4v      video/webm webm        video/quicktime mov    video/x-matroska mkv
        video/x-msvideo avi    video/mpeg mpg mpeg    video/ogg ogv          video/mp2t ts
        audio/flac flac        audio/mpeg mp3         audio/wav wav          audio/ogg ogg opus  audio/mp4 m4a
        audio/aac aac          audio/aiff aif aiff    audio/webm weba        audio/midi mid midi
        text/plain txt log     text/csv csv           text/markdown md       text/html html htm
        text/vtt vtt           text/x-subrip srt      text/yaml yaml yml     application/json json
        application/xml xml    application/pdf pdf    application/zip zip    application/x-npy npy
        model/gltf-binary glb  model/gltf+json gltf   model/obj obj          model/stl stl       model/x-ply ply
        model/mtl mtl          model/x-fbx fbx        model/vnd.usdz+zip usdz
    """.replace("  ", "\n").splitlines()
    for extension in line.split()[1:]
}
"""Others (latent, safetensors, splat, spz, ckpt …) have no type of their own."""
KINDS = ("image", "video", "audio", "text")


def content_type_of(name: str) -> str:
    return CONTENT_TYPES.get(PurePosixPath(name).suffix[1:].lower(), "application/octet-stream")


def kind_of(name: str, content_type: str) -> str:
    """image, video, audio, text, latent or file (3D too)."""
    if name.lower().endswith(".latent"):
        return "latent"
    family = content_type.split("/")[0]
    return family if family in KINDS else "file"


MODEL_FILE = re.compile(r".\.(safetensors|sft|ckpt|pt|pt2|pth|bin|gguf|onnx|pkl)$", re.IGNORECASE)


def is_model(value: Any) -> bool:
    """Whether a value is the name of a model file."""
    return isinstance(value, str) and MODEL_FILE.search(value) is not None
