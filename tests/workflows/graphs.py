"""Graphs as people have them, with parameters."""

from typing import Any

from accounts.models import Tenant
from jobs.models import Workflow
from jobs.workflows import stored
from tests.cast import WORKFLOW

SMALL = WORKFLOW  # which the stand-in runs
SIZES = [
    {"name": "size", "type": "integer", "paths": ["1.inputs.width", "1.inputs.height"], "min": 8, "max": 64},
    {"name": "prefix", "type": "string", "paths": ["2.inputs.filename_prefix"], "max_length": 20},
]
TEXT_TO_IMAGE: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 156680208700286,
            "steps": 20,
            "cfg": 8,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}, "_meta": {"title": "Prompt"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "text, watermark", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
    "10": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
}
PARAMETERS: list[dict[str, Any]] = [
    {"name": "prompt", "type": "string", "paths": ["6.inputs.text"], "required": True, "max_length": 100},
    {"name": "negative", "type": "string", "paths": ["7.inputs.text"], "default": ""},
    {"name": "steps", "type": "integer", "paths": ["3.inputs.steps"], "min": 1, "max": 50},
    {"name": "cfg", "type": "number", "paths": ["3.inputs.cfg"], "min": 0, "max": 30, "step": 0.5},
    {"name": "sampler", "type": "choice", "paths": ["3.inputs.sampler_name"], "choices": ["euler", "dpmpp_2m", "ddim"]},
    {"name": "size", "type": "integer", "paths": ["5.inputs.width", "5.inputs.height"], "min": 64, "multiple": 8},
    {"name": "photo", "type": "file", "paths": ["10.inputs.image"]},
    {"name": "seed", "type": "seed", "paths": ["3.inputs.seed"]},
]


def store(tenant: Tenant, name: str = "portrait", graph: Any = None, parameters: Any = None) -> Workflow:
    graph, parameters = TEXT_TO_IMAGE if graph is None else graph, PARAMETERS if parameters is None else parameters
    return stored.create(tenant.pk, name, graph, parameters, "a test")
