"""The node classes by name. node_info.json is a part of a real ComfyUI's /object_info, plus nodes of others."""

import json
import uuid
from importlib.resources import files
from typing import Any

from worker.standin import fault_nodes
from worker.standin import image_nodes as make
from worker.standin import loading as offer
from worker.standin import media_nodes as media
from worker.standin import other_nodes as other
from worker.standin import output_nodes as show
from worker.standin.files import Folders
from worker.standin.node import Function, Node

FUNCTIONS: dict[str, Function] = {
    "CreateVideo": media.create_video,
    "EmptyAudio": media.empty_audio,
    "EmptyImage": make.empty_image,
    "EmptyLatentImage": make.empty_latent_image,
    "GetVideoComponents": media.video_components,
    "ImageBatch": make.image_batch,
    "ImageBlur": make.image_blur,
    "ImageCrop": make.image_crop,
    "ImageFromBatch": make.image_from_batch,
    "ImageInvert": make.image_invert,
    "ImageScale": make.image_scale,
    "ImageStitch": make.image_stitch,
    "LoadAudio": media.load_audio,
    "LoadImage": make.load_image,
    "LoadImageMask": make.load_image_mask,
    "LoadImageOutput": make.load_image,
    "LoadLatent": make.load_latent,
    "LoadVideo": media.load_video,
    "MaskToImage": make.mask_to_image,
    "PreviewAny": show.preview_any,
    "PreviewAudio": media.preview_audio,
    "PreviewImage": show.preview_image,
    "PrimitiveString": other.string,
    "SaveAnimatedPNG": show.save_animated_png,
    "SaveAnimatedWEBP": show.save_animated_webp,
    "SaveAudio": media.save_audio,
    "SaveAudioMP3": media.save_audio_mp3,
    "SaveAudioOpus": media.save_audio_opus,
    "SaveGLB": other.save_glb,
    "SaveImage": show.save_image,
    "SaveImageWebsocket": show.save_image_websocket,
    "SaveLatent": show.save_latent,
    "SaveSVGNode": other.save_svg,
    "SaveVideo": media.save_video,
    "SaveWEBM": media.save_webm,
    "StandinMesh": other.mesh,
    "StandinOddities": other.oddities,
    "StandinSVG": other.svg,
    "StandinSleep": make.standin_sleep,
    "StringConcatenate": make.string_concatenate,
    "VAELoader": other.load_vae,
    "VAESave": other.save_vae,
    "VHS_VideoCombine": other.video_combine,
}
"""Classes of node_info.json that are not here can be asked about and validated, but fail when they run."""

LOADERS = {
    "LoadAudio": ("audio", "audio", offer.media),
    "LoadImage": ("image", "image", offer.images),
    "LoadImageMask": ("image", "image", offer.everything),
    "LoadImageOutput": ("image", "image", None),
    "LoadLatent": ("latent", "latent", offer.latents),
    "LoadVideo": ("file", "video", offer.videos),
}
"""The input that names the file, ComfyUI's word for it, and what /object_info offers."""


def _never_twice(folders: Folders, inputs: dict[str, Any]) -> str:
    return uuid.uuid4().hex


def _node(name: str, info: dict[str, Any]) -> Node:
    if name in LOADERS:
        given, word, choices = LOADERS[name]
        check, content = offer.file_is_there(word), offer.content_of(given)
        return Node(info, FUNCTIONS[name], (given,), check, content, choices)
    return Node(info, FUNCTIONS.get(name), fingerprint=_never_twice if name == "SaveImageWebsocket" else None)


_INFO: dict[str, dict[str, Any]] = json.loads(files("worker.standin").joinpath("node_info.json").read_text("utf-8"))
NODES: dict[str, Node] = {name: _node(name, info) for name, info in _INFO.items()} | fault_nodes.NODES


def object_info(name: str, folders: Folders) -> dict[str, Any]:
    """One class as GET /object_info/{name} tells it."""
    return NODES[name].offered(folders)
