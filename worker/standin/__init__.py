"""A stand-in for ComfyUI, for the quickstart and CI only: never for production.

It answers ComfyUI 0.3.64's HTTP and WebSocket protocol as recorded in tests/golden/comfyui/ and executes a handful of
image and text nodes with Pillow on 8-bit pixels (a real ComfyUI computes with 32-bit floats, so pixels may differ by
a level or two). There are no models. `python -m worker.standin --port 8188 --dir DIR`
"""

import logging

PRODUCT = "stand-in ComfyUI (not for production)"
log = logging.getLogger("worker.standin")
