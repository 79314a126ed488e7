"""The node classes by name. node_info.json is a part of a real ComfyUI's /object_info, plus StandinSleep."""

import copy
import json
import uuid
from importlib.resources import files
from typing import Any

from worker.standin import image_nodes as make
from worker.standin import output_nodes as show
from worker.standin.files import Folders
from worker.standin.node import Function, Node

FUNCTIONS: dict[str, Function] = {
    "EmptyImage": make.empty_image,
    "EmptyLatentImage": make.empty_latent_image,
    "ImageBatch": make.image_batch,
    "ImageBlur": make.image_blur,
    "ImageCrop": make.image_crop,
    "ImageFromBatch": make.image_from_batch,
    "ImageInvert": make.image_invert,
    "ImageScale": make.image_scale,
    "ImageStitch": make.image_stitch,
    "LoadImage": make.load_image,
    "LoadImageMask": make.load_image_mask,
    "MaskToImage": make.mask_to_image,
    "PreviewAny": show.preview_any,
    "PreviewImage": show.preview_image,
    "SaveAnimatedPNG": show.save_animated_png,
    "SaveAnimatedWEBP": show.save_animated_webp,
    "SaveImage": show.save_image,
    "SaveImageWebsocket": show.save_image_websocket,
    "SaveLatent": show.save_latent,
    "StandinSleep": make.standin_sleep,
    "StringConcatenate": make.string_concatenate,
}
"""Classes of node_info.json that are not here can be asked about and validated, but fail when they run."""

LOADERS: dict[str, dict[str, Any]] = {
    "LoadImage": {"choices": show.image_files},
    "LoadImageMask": {"choices": show.all_files},
}


def _never_twice(folders: Folders, inputs: dict[str, Any]) -> str:
    return uuid.uuid4().hex


def _node(name: str, info: dict[str, Any]) -> Node:
    if name in LOADERS:
        check, content = make.file_is_there, make.content_of_file
        return Node(info, FUNCTIONS[name], ("image",), check, content, LOADERS[name]["choices"])
    return Node(info, FUNCTIONS.get(name), fingerprint=_never_twice if name == "SaveImageWebsocket" else None)


_INFO: dict[str, dict[str, Any]] = json.loads(files("worker.standin").joinpath("node_info.json").read_text())
NODES: dict[str, Node] = {name: _node(name, info) for name, info in _INFO.items()}


def object_info(name: str, folders: Folders) -> dict[str, Any]:
    """One class as GET /object_info/{name} tells it."""
    node = NODES[name]
    info = copy.deepcopy(node.info)
    if node.choices is not None:
        info["input"]["required"]["image"][0] = node.choices(folders)
    return info
