"""The nodes that load a file: which names they offer, what they say of one that is not there, when it has changed."""

import mimetypes
import os
from collections.abc import Callable
from typing import Any

from PIL import Image

from worker.standin.files import Folders, sha256_of


def file_is_there(word: str) -> Callable[..., str | None]:
    """A check of the one input that names a file."""

    def check(folders: Folders, **given: Any) -> str | None:
        [name] = given.values()
        return None if os.path.exists(folders.path_of(name)) else f"Invalid {word} file: {name}"

    return check


def content_of(name: str) -> Callable[[Folders, dict[str, Any]], str]:
    return lambda folders, inputs: sha256_of(folders.path_of(inputs[name]))


def images(folders: Folders) -> list[str]:
    """What /object_info offers for LoadImage: the pictures in input/."""
    return [name for name in everything(folders) if Image.registered_extensions().get(_extension(name))]


def media(folders: Folders) -> list[str]:
    return _of_type(folders, "audio", "video")


def videos(folders: Folders) -> list[str]:
    return _of_type(folders, "video")


def latents(folders: Folders) -> list[str]:
    return [name for name in everything(folders) if _extension(name) == ".latent"]


def everything(folders: Folders) -> list[str]:
    names = sorted(os.listdir(folders.input))
    return [name for name in names if os.path.isfile(os.path.join(folders.input, name))]


def _of_type(folders: Folders, *types: str) -> list[str]:
    return [name for name in everything(folders) if (mimetypes.guess_type(name)[0] or "").startswith(types)]


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()
