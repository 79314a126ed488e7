"""A workflow that fails on its way to a picture, by a node of the stand-in's own."""

import secrets
from typing import Any

from tests.worker.fakes import image_workflow


def fault_workflow(kind: str, message: str = "") -> dict[str, Any]:
    """kind: one of StandinFault's (worker/standin/fault_nodes.py)."""
    workflow = image_workflow(secrets.randbelow(2**24))
    workflow["fault"] = {"class_type": "StandinFault", "inputs": {"image": ["1", 0], "kind": kind, "message": message}}
    workflow["2"]["inputs"]["images"] = ["fault", 0]
    return workflow
