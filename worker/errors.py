"""What a job fails with. One shape, as everywhere in Hearth: error, code, and nodes where a node is at fault."""

from typing import Any

Nodes = dict[str, list[dict[str, str]]]


class JobError(Exception):
    """The job failed for this reason; `code` is one word for machines, the message tells a person what to do.

    Codes: bad_input · workflow_rejected · node_failed · interrupted · comfyui_unreachable · comfyui_crashed ·
    comfyui_hangs · comfyui_busy · prompt_gone · output_missing · upload_failed · worker_error
    """

    def __init__(self, message: str, code: str, nodes: Nodes | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.nodes = nodes

    def output(self) -> dict[str, Any]:
        """What the handler returns; the SDK lifts `error` to the top level and leaves the rest in `output`."""
        output: dict[str, Any] = {"error": str(self), "code": self.code}
        return output | {"nodes": self.nodes} if self.nodes else output
