"""A job's result, within the size that answers may have: what is too large for one goes where files go, and the answer
says so. No run is lost to a size."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.outputs import Datas

RUN_BYTES, RUNSYNC_BYTES = 10_000_000, 20_000_000
"""What RunPod's cloud takes of a job of /run, of /runsync: the "Payload Limit" of docs.runpod.io, Endpoint operations,
in the smaller reading of MB; that it holds for answers the reference says (api-interactions.md, Important notes)."""
MOST_WARNINGS, WARNING_CHARS = 100, 2000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one answer. base64_bytes: of all files in it, before they become text. datas_bytes: of `datas`, as JSON."""

    base64_bytes: int
    datas_bytes: int

    @classmethod
    def of(cls, job_id: str, told: int | None) -> "Limits":
        """told: by Hearth, which may have been given less."""
        whole = RUNSYNC_BYTES if job_id.startswith("sync-") else RUN_BYTES
        whole = min(whole, told or whole)
        return cls(
            base64_bytes=whole * 9 // 16, datas_bytes=whole // 8
        )  # as text three quarters, and room for the rest


def apart(datas: Datas, most_bytes: int) -> tuple[Datas, list[OutputFile]]:
    """Those that fit into the answer together, and a JSON file for each other node: the largest go first."""
    texts = {node: json.dumps(said) for node, said in datas.items()}
    whole, files = sum(map(len, texts.values())), []
    for node in sorted(texts, key=lambda node: -len(texts[node])):
        if whole <= most_bytes:
            break
        whole -= len(texts[node])
        file = OutputFile(node=node, name="datas.json")
        file.write(texts[node].encode())
        files.append(file)
    moved = {file.node for file in files}
    return {node: said for node, said in datas.items() if node not in moved}, files


def links(moved: Sequence[Stored]) -> Datas:
    """What stands in `datas` for those that were moved."""
    return {item.asset.node: {"asset": item.asset.id, "bytes": item.asset.bytes} for item in moved}


def result(kept: Sequence[Stored], datas: Datas, errors: Sequence[JobError], said: Sequence[str]) -> dict[str, Any]:
    """{files, datas, assets}, or what there is of them beside {error, code, …}, as the reference says."""
    answer: dict[str, Any] = {}
    if kept or datas or not errors:
        assets = [dataclasses.asdict(item.asset) for item in kept]
        answer = {"files": [item.entry for item in kept], "datas": datas, "assets": assets}
    if said:
        answer["warnings"] = [line[:WARNING_CHARS] for line in said[:MOST_WARNINGS]]
    if errors:
        text = " · ".join(dict.fromkeys(str(error) for error in errors))
        answer |= JobError(text, errors[0].code, errors[0].nodes).output()
    return answer


def summary(result: dict[str, Any]) -> str:
    """For the log."""
    failed = f"{result['code']}: {result['error']}" if "error" in result else "done"
    files = len(result.get("files", ()))
    return f"{failed}, {files} {'file' if files == 1 else 'files'}"
