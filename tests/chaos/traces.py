"""What a run has left outside of the database: objects in S3, jobs in ComfyUI, tracebacks in the logs."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import boto3
from botocore.config import Config

from hearth.local.home import Home
from tests.chaos.history import Story
from tests.local.running import get
from worker.traces import KINDS

S3_BUCKET = "hearth"
TRACEBACK = "Traceback (most recent call last):"
AWAY = re.compile(  # the last line of a traceback that only says that another part was away
    r"OperationalError|InterfaceError|AdminShutdown|CrashShutdown|CannotConnectNow|ConnectionTimeout"
    r"|Connection\w*Error|ClientConnector|ServerDisconnected|ClientOSError|EndpointConnectionError|TimeoutError"
)


def objects(home: Home) -> dict[str, int]:
    """Size in bytes of everything in S3, by key."""
    s3 = boto3.client(
        "s3",
        endpoint_url=home.s3()["endpoint_url"],
        aws_access_key_id=home.s3()["access_key_id"],
        aws_secret_access_key=home.s3()["secret_access_key"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=S3_BUCKET)
    return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", ())}


def files_are_as_recorded(stories: list[Story], there: dict[str, int]) -> Iterator[str]:
    """S3 holds the kept files, in their size, and nothing else."""
    blobs = [blob for story in stories for blob in story.blobs]
    kept = {blob.key: blob.bytes for blob in blobs if blob.state == "kept"}
    for key in sorted(kept.keys() | there.keys()):
        if kept.get(key) != there.get(key):
            yield f"{key} has {there.get(key)} bytes, and {kept.get(key)} by its record"
    for blob in blobs:
        if blob.state != "kept":
            yield f"{blob.key} of attempt {blob.attempt}, which did not win, is still {blob.state}"


def in_comfyui(home: Home) -> list[str]:
    """What each ComfyUI still has of any job: files, entries of its history, prompts in its queue."""
    found = []
    for name, part in sorted(home.run()["parts"].items()):
        if name.startswith("comfyui-"):
            url = f"http://127.0.0.1:{part['port']}"
            found += [f"history of {name}: {prompt}" for prompt in get(f"{url}/history")]
            found += [f"{queue} of {name}: {prompt[1]}" for queue, has in get(f"{url}/queue").items() for prompt in has]
            folders = (home.path / name / kind for kind in KINDS)
            found += [str(path.relative_to(home.path)) for folder in folders for path in sorted(folder.rglob("*"))]
    return found


def tracebacks(logs: Path) -> Counter[str]:
    """The last lines of the tracebacks in all logs, with the log's name, and how often each is there."""
    found: Counter[str] = Counter()
    for log in sorted(logs.glob("*.log*")):
        lines = iter(log.read_text(errors="replace").splitlines())
        for line in lines:
            if TRACEBACK in line:
                found[f"{log.name}: {_last_line(lines)}"] += 1
    return found


def _last_line(lines: Iterator[str]) -> str:
    """The first line after a traceback's that is not indented: what was raised."""
    for line in lines:
        text = line.split("stand-in for ComfyUI: ")[-1]
        if text and not text.startswith((" ", "|", "+")):
            return text[:200]
    return "it is cut off"


def is_expected(raised: str) -> bool:
    """Where a part is killed others say so, aloud."""
    return AWAY.search(raised) is not None
