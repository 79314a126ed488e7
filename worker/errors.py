"""What a job fails with. One shape, as everywhere in Hearth: error, code, and nodes where a node is at fault."""

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker import s3
from worker.wire import NOT_RUN

log = logging.getLogger("hearth.worker")

Nodes = dict[str, list[dict[str, str]]]
MOST_CHARS, MOST_NODES, MOST_ENTRIES = 4000, 100, 10  # of what one error tells: nodes may speak in megabytes


@dataclass(frozen=True, kw_only=True)
class Code:
    """elsewhere: the job is well, the worker or its ComfyUI is not; another worker shall try.
    replace: alone on RunPod, the machine is of no more use."""

    elsewhere: bool = False
    replace: bool = False


CODES: Mapping[str, Code] = {
    "bad_input": Code(),
    "input_unavailable": Code(),
    "workflow_rejected": Code(),
    "node_failed": Code(),
    "interrupted": Code(),
    "out_of_memory": Code(),
    "output_missing": Code(),
    "answer_too_large": Code(),
    **dict.fromkeys(s3.KINDS, Code()),
    "worker_error": Code(),
    "comfyui_unreachable": Code(elsewhere=True, replace=True),
    "comfyui_crashed": Code(elsewhere=True, replace=True),
    "comfyui_hangs": Code(elsewhere=True, replace=True),
    "comfyui_wedged": Code(elsewhere=True, replace=True),
    "disk_full": Code(elsewhere=True, replace=True),
    "comfyui_busy": Code(elsewhere=True),
    "prompt_gone": Code(elsewhere=True),
}
"""docs/worker.md says what each means."""


class JobError(Exception):
    """The job failed for this reason; `code` is one of CODES, the message tells a person what to do."""

    def __init__(self, message: str, code: str, nodes: Nodes | None = None) -> None:
        super().__init__(cut(message, MOST_CHARS))
        self.code = code
        self.nodes = nodes

    @property
    def elsewhere(self) -> bool:
        return CODES[self.code].elsewhere

    @property
    def replace(self) -> bool:
        return CODES[self.code].replace

    def output(self) -> dict[str, Any]:
        """What the handler returns; the SDK lifts `error` to the top level and leaves the rest in `output`."""
        output: dict[str, Any] = {"error": str(self), "code": self.code}
        if self.nodes:
            told = list(self.nodes.items())[:MOST_NODES]
            output["nodes"] = {node: [_cut(entry) for entry in entries[:MOST_ENTRIES]] for node, entries in told}
        return output


def _cut(entry: Mapping[str, str]) -> dict[str, str]:
    return {name: cut(text, MOST_CHARS) for name, text in entry.items()}


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def disk_full(where: str) -> JobError:
    text = f"the disk is full: {where.rstrip('. ')}; make room on the worker's machine"
    return JobError(text, "disk_full")


def defect(error: Exception, job_id: str) -> JobError:
    """What the job fails with when the worker's own code raised this."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return disk_full(f"the worker could not keep a file of the job ({error})")
    log.error("%s: a defect of the worker", job_id, exc_info=error)
    return JobError(f"the worker failed on this job: {type(error).__name__}: {error}; its log has more", "worker_error")


GIVEN_BACK = "the job went back to Hearth"


def not_run(why: str) -> dict[str, Any]:
    """What RunPod is told of a job that it must not wait for any more, and Hearth has its own mind about."""
    return {"error": f"{NOT_RUN}{why}", "code": "not_run"}
