"""Follow a job as it goes: `python events.py workflow.json` tells moves, place, progress and files as they come.

A connection that breaks is made anew with the id of the last event, and goes on there: nothing is lost or told twice.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from hearth import HEADERS, LATER, URL, call, read_input, show

SILENCE_S = 45  # something comes every 15 s at least


def events(job: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each event's name and data; the last is `end`."""
    last_id, pause_s = "", 2.0
    while True:
        headers = HEADERS | ({"Last-Event-ID": last_id} if last_id else {})
        try:
            with urlopen(Request(f"{URL}/api/v1/jobs/{job}/events", headers=headers), timeout=SILENCE_S) as stream:
                for fields in parse(stream):
                    pause_s = int(fields["retry"]) / 1000 if "retry" in fields else pause_s
                    if "data" in fields:
                        last_id = fields["id"]
                        yield fields["event"], json.loads(fields["data"])
                        if fields["event"] == "end":
                            return
        except HTTPError as error:
            if error.code not in LATER:
                sys.exit(f"HTTP {error.code}: {error.read().decode()}")
        except (OSError, HTTPException) as error:
            print(f"connection lost ({error}), going on after event {last_id}", file=sys.stderr)
        time.sleep(pause_s)


def parse(stream: Iterable[bytes]) -> Iterator[dict[str, str]]:
    """Server-Sent Events: lines `name: value` up to an empty one. What was cut off before that does not count."""
    fields: dict[str, str] = {}
    for line in stream:
        name, colon, value = line.decode().rstrip("\n").partition(":")
        value = value.removeprefix(" ")
        if not name and not colon:
            yield fields
            fields = {}
        elif name == "data" and "data" in fields:
            fields["data"] += f"\n{value}"
        else:
            fields[name] = value


def tell(kind: str, data: dict[str, Any]) -> None:
    if kind == "state":
        print(data["event"], file=sys.stderr)
    elif kind == "queue":
        print(f"place {data['position']}, begins in {data['estimate_s']} s: {data['text']}", file=sys.stderr)
    elif kind == "progress" and "fraction" in data:
        node = data.get("title") or data.get("class_type")
        print(f"{data['fraction']:.0%} {node}: {data['value']} of {data['max']}", file=sys.stderr)
    elif kind == "output":
        print(*(f"ready: {asset['name']}" for asset in data["assets"]), sep="\n", file=sys.stderr)


job = call("POST", "run", read_input())["id"]
for kind, data in events(job):
    tell(kind, data)
    if kind == "end":
        show(data)
