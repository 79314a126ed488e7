"""The examples of each way to wait, run as they are against an instance as a person runs it."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hearth.local.instance import ROOT
from tests.e2e.cutter import Cutter
from tests.e2e.instance import Instance, TenantClient, download, example, slow
from tests.js import node
from tests.local.running import OURS, manage

EXAMPLES = ROOT / "examples" / "waiting"
PROGRAMS = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/*.*") if path.stem != "hearth")
RUNNING_A_WORKFLOW = [program for program in PROGRAMS if "/stream." not in program]
RUNSYNC, EVENTS, STREAM, SDK = (
    [program for program in PROGRAMS if f"/{way}." in program] for way in ("runsync", "events", "stream", "sdk")
)
RUN_BY = {".py": sys.executable, ".mjs": str(node.NODE / "bin" / "node"), ".sh": "bash"}
CHUNKS = [{"n": 1}, "two", ["é", None]]
MOVES = ["created", "handed", "started", "completed"]
MOVE = re.compile(rf'^(?:state \{{"event":")?({"|".join(MOVES)})\b', re.MULTILINE)


@pytest.fixture(scope="module")
def acme(up: Instance) -> TenantClient:
    return up.tenant("acme")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples where a person may have them, with RunPod's JS SDK installed."""
    node.install()
    made = tmp_path_factory.mktemp("examples") / "waiting"
    shutil.copytree(EXAMPLES, made)
    (made / "js" / "node_modules").symlink_to(node.HERE / "node_modules")
    return made


class Program:
    """One that runs. `given`: the JSON in the file that it is told."""

    def __init__(self, folder: Path, program: str, tenant: TenantClient, given: Any, url: str = "") -> None:
        file = folder / f"{program.replace('/', '-')}.json"
        file.write_text(json.dumps(given))
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        env |= {"HEARTH_URL": url or tenant.url, "HEARTH_ENDPOINT": tenant.endpoint, "HEARTH_API_KEY": tenant.api_key}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        argv = [RUN_BY[Path(program).suffix], str(folder / program), str(file)]
        self._process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ended(self) -> tuple[int, str, str]:
        """Its exit code, and what it said on both ways."""
        try:
            said, errors = self._process.communicate(timeout=90)
        finally:
            self._process.kill()
        return self._process.returncode, said, errors


def started(folder: Path, programs: list[str], tenant: TenantClient, given: Any) -> dict[str, Program]:
    """All at once: they wait more than they do."""
    return {program: Program(folder, program, tenant, given) for program in programs}


def files(program: Program) -> list[Image.Image]:
    code, said, errors = program.ended()
    assert code == 0, errors
    return [Image.open(io.BytesIO(download(url))) for url in said.splitlines()]


def test_there_is_each_way_in_each_language() -> None:
    ways = {"runsync", "polling", "events", "stream"}
    for language, more in {"python": {"sdk"}, "js": {"sdk"}, "curl": set()}.items():
        assert {Path(program).stem for program in PROGRAMS if program.startswith(language)} == ways | more


@pytest.fixture(scope="module")
def succeeding(folder: Path, acme: TenantClient) -> dict[str, Program]:
    return started(folder, RUNNING_A_WORKFLOW, acme, example("img_chain"))


@pytest.mark.parametrize("program", RUNNING_A_WORKFLOW)
def test_a_job_is_waited_for_and_its_picture_is_there(succeeding: dict[str, Program], program: str) -> None:
    assert [picture.size for picture in files(succeeding[program])] == [(128, 96)]


@pytest.fixture(scope="module")
def failing(folder: Path, acme: TenantClient) -> dict[str, Program]:
    """Nobody sends the picture that the workflow loads."""
    return started(folder, EVENTS + SDK, acme, example("load_image"))


@pytest.mark.parametrize("program", EVENTS + SDK)
def test_a_job_that_fails_fails_the_program_which_says_why(failing: dict[str, Program], program: str) -> None:
    code, said, errors = failing[program].ended()
    assert (code, said) == (1, "")
    assert "FAILED" in errors
    assert "LoadImage" in errors


@pytest.mark.parametrize("program", EVENTS)
def test_what_hearth_refuses_is_said_and_ends_the_program(folder: Path, acme: TenantClient, program: str) -> None:
    code, said, errors = Program(folder, program, acme, {"1": {"class_type": "NoSuch", "inputs": {}}}).ended()
    assert (code, said) == (1, "")
    assert "NoSuch" in errors


ENDED = {"id": "sync-x-e1", "status": "COMPLETED", "output": {"files": ["https://s3.example.com/x.png"]}}


@contextmanager
def answering(*answers: tuple[int, dict[str, str], Any]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers, and the Idempotency-Keys that it was sent."""
    left, keys = list(answers), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            keys.append(self.headers["Idempotency-Key"])
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, said = left.pop(0)
            body = json.dumps(said).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", keys
        server.shutdown()


@pytest.mark.parametrize("program", RUNSYNC)
def test_a_moment_without_hearth_is_waited_for_and_makes_no_second_job(folder: Path, program: str) -> None:
    away = [(503, {"Retry-After": "0"}, {"error": "The database is away."}), (502, {}, "a proxy's")]
    with answering(*away, (200, {}, ENDED)) as (url, keys):
        code, said, errors = Program(folder, program, TenantClient(url, "comfyui", "k", ""), {}).ended()
    assert (code, said.strip()) == (0, "https://s3.example.com/x.png"), errors
    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize("program", RUNSYNC)
def test_a_limit_of_a_month_is_said_and_not_waited_for(folder: Path, program: str) -> None:
    used_up = {"error": "Tenant 'acme' has used 5 GPU-seconds this month.", "code": "monthly_limit"}
    with answering((429, {"Retry-After": "600000"}, used_up)) as (url, keys):
        code, said, errors = Program(folder, program, TenantClient(url, "comfyui", "k", ""), {}).ended()
    assert (code, said, len(keys)) == (1, "", 1)
    assert "this month" in errors


@pytest.fixture
def cutter(up: Instance) -> Iterator[Cutter]:
    made = Cutter(up.url, 2, 1)
    yield made
    made.close()


def last_id(passed: bytes) -> str:
    """Of the last event that came through whole."""
    return re.findall(rb"^id: (\S+)\n", passed[: passed.rindex(b"\n\n") + 1], re.MULTILINE)[-1].decode()


@pytest.mark.parametrize("program", EVENTS)
def test_a_stream_that_is_cut_twice_loses_nothing_and_tells_nothing_twice(
    folder: Path, acme: TenantClient, cutter: Cutter, program: str
) -> None:
    early = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "early"}}
    running = Program(folder, program, acme, slow(3) | {"early": early}, cutter.url)
    code, said, errors = running.ended()
    assert code == 0, errors
    assert len(said.splitlines()) == 2
    assert cutter.asked == ["", *(last_id(passed) for passed in cutter.passed)]
    assert len(cutter.passed) == 2
    assert MOVE.findall(errors) == MOVES, errors
    assert len(re.findall("^ready: early|^output .*early", errors, re.MULTILINE)) == 1


@pytest.fixture(scope="module")
def streamer(up: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantClient]:
    """A tenant at an endpoint whose worker is a customer's own generator, on RunPod's SDK."""
    endpoint, home = "generators", tmp_path_factory.mktemp("generator")
    make = f"from jobs.models import Endpoint; Endpoint.objects.create(name={endpoint!r}, dialect='raw'); print('{{}}')"
    up.manage("shell", "-c", make)
    made = up.manage("create_tenant", "streamer", "--endpoint", endpoint, "--json")
    lines = manage(up.home.path, "worker_env", endpoint, "--name", "gen-1").stdout.splitlines()
    env = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    bare = {name: value for name, value in os.environ.items() if not name.startswith((*OURS, "RUNPOD_"))}
    argv = [sys.executable, str(ROOT / "tests" / "fleet" / "stock_handler.py"), "yields", "1", str(home)]
    worker = subprocess.Popen(argv, env=bare | env | {"HOME": str(home)}, cwd=home, start_new_session=True)
    yield TenantClient(up.url, endpoint, made["api_key"], made["worker_key"])
    os.killpg(worker.pid, 9)
    worker.wait()


@pytest.mark.parametrize("program", STREAM)
def test_what_a_generator_yields_is_said_in_order(folder: Path, streamer: TenantClient, program: str) -> None:
    code, said, errors = Program(folder, program, streamer, {"chunks": CHUNKS, "seconds": 0.5}).ended()
    assert code == 0, errors
    assert [json.loads(line) for line in said.splitlines()] == CHUNKS


@pytest.mark.parametrize("program", STREAM)
def test_a_generator_that_fails_fails_the_program(folder: Path, streamer: TenantClient, program: str) -> None:
    given = {"chunks": CHUNKS, "do": "raise", "value": "out of tokens"}
    code, said, errors = Program(folder, program, streamer, given).ended()
    assert (code, [json.loads(line) for line in said.splitlines()]) == (1, CHUNKS)
    assert "out of tokens" in errors
