"""StandinFault: a node that fails as nodes and whole ComfyUIs do, to see what Hearth does then."""

import os
import signal
import time
from typing import Any

from worker.standin.files import Folders
from worker.standin.images import Batch
from worker.standin.node import Node, Run

OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})
KINDS = ["out_of_memory", "disk_full", "error", "crash", "hang", "wedge", "wedge_early"]
INFO = {
    "input": {"required": {"image": ["IMAGE"], "kind": [KINDS], "message": ["STRING", {"default": ""}]}},
    "input_order": {"required": ["image", "kind", "message"]},
    "output": ["IMAGE"],
    "output_is_list": [False],
    "output_name": ["IMAGE"],
    "name": "StandinFault",
    "display_name": "Fault (stand-in only)",
    "description": "",
    "python_module": "worker.standin",
    "category": "standin",
    "output_node": False,
}


def fault(run: Run, image: Batch, kind: str, message: str) -> tuple[Batch]:
    """crash and hang strike the whole process. wedge ends the executor's thread, as a node that calls sys.exit()."""
    match kind:
        case "out_of_memory":
            raise OutOfMemoryError(message or "Allocation on device 0 would exceed allowed memory. (out of memory)")
        case "disk_full":
            raise OSError(28, "No space left on device", "/comfyui/output/x.png")
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.1)  # this thread may be the last to stop
        case "wedge":
            raise SystemExit(message)
        case "error":
            raise ValueError(message)
    return (image,)


def _before_the_run(folders: Folders, inputs: dict[str, Any]) -> None:
    """What ComfyUI evaluates after execution_start and before it says anything else."""
    if inputs["kind"] == "wedge_early":
        raise SystemExit(inputs["message"])


NODES = {"StandinFault": Node(INFO, fault, fingerprint=_before_the_run)}
