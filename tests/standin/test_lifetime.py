"""The server as a process: how it starts, ends, starts again, and what stops it. Always the stand-in."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .client import Client
from .recordings import recording
from .replay import play
from .servers import ROOT, Standin, running_standin

SLEEP = {"class_type": "StandinSleep", "inputs": {"seconds": 30}}
PREVIEW = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
SAYS_SO = "stand-in ComfyUI (not for production): "


def test_extra_data_of_null_without_a_client_stops_the_executor_for_good(standin: Standin) -> None:
    first, *others = recording("54_extra_data_null_no_client")
    asyncio.run(play(standin.url, [{**first, "note": "blocker"}, *others], ends_idle=False))
    assert "the executor died" in (standin.folder / "stderr.txt").read_text()


def test_a_restart_forgets_history_queue_numbers_and_temporary_files(tmp_path: Path) -> None:
    async def before(url: str) -> str:
        async with Client.to(url) as client:
            entry = await client.run({"1": _empty_image(), "2": PREVIEW}, prompt_id="before-restart")
            shown = entry["outputs"]["2"]["images"][0]
            assert await client.file(shown)
            return f"/view?filename={shown['filename']}&type=temp&subfolder="

    async def after(url: str, path: str) -> None:
        async with Client.to(url) as client:
            assert await client.json("GET", "/history/before-restart") == {}
            assert (await client.request("GET", path))[0] == 404
            assert await client.json("GET", "/queue") == {"queue_running": [], "queue_pending": []}
            answer = await client.json("POST", "/prompt", {"prompt": {"1": _empty_image(), "2": PREVIEW}})
            assert answer["number"] == 0

    with running_standin(tmp_path) as standin:
        path = asyncio.run(before(standin.url))
    with running_standin(tmp_path) as standin:
        asyncio.run(after(standin.url, path))


def _empty_image() -> dict[str, object]:
    return {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 78}}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_a_job_running_and_a_socket_open(standin: Standin, number: int) -> None:
    async def busy() -> float:
        async with Client.to(standin.url) as client:
            socket = await client.listen("me")
            await client.submit({"1": SLEEP, "2": PREVIEW}, client_id="me")
            await socket.until("progress")
            started = time.monotonic()
            standin.process.send_signal(number)
            await asyncio.to_thread(standin.process.wait, 10)
            await socket.close()
            return time.monotonic() - started

    assert asyncio.run(busy()) < 2
    assert standin.process.returncode == 0


def test_every_line_it_logs_says_that_it_is_not_for_production(standin: Standin) -> None:
    async def make_it_log() -> None:
        async with Client.to(standin.url) as client:
            assert (await client.request("POST", "/queue", data="{bad"))[0] == 500
            assert (await client.request("POST", "/prompt", json={"prompt": {}}))[0] == 400

    asyncio.run(make_it_log())
    lines = (standin.folder / "stderr.txt").read_text().splitlines()
    assert len(lines) > 10
    assert [line for line in lines if not line.startswith(SAYS_SO)] == []


def test_a_port_that_is_taken_is_said_and_ends_it(standin: Standin, tmp_path: Path) -> None:
    port = str(urlsplit(standin.url).port)
    command = [sys.executable, "-m", "worker.standin", "--port", port, "--dir", str(tmp_path / "second")]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (second.returncode, second.stdout) == (1, "")
    assert f"{SAYS_SO}ERROR cannot serve on 127.0.0.1:{port}" in second.stderr


def test_it_listens_on_loopback_only(standin: Standin) -> None:
    assert urlsplit(standin.url).hostname == "127.0.0.1"
    listening = Path(f"/proc/{standin.process.pid}/net/tcp").read_text()
    assert f"0100007F:{urlsplit(standin.url).port:04X}" in listening
    assert f"00000000:{urlsplit(standin.url).port:04X}" not in listening


def test_a_delay_makes_each_node_tick(tmp_path: Path) -> None:
    async def ticks(url: str) -> list[tuple[str, int, int]]:
        async with Client.to(url) as client:
            socket = await client.listen("me")
            await client.submit({"1": _empty_image(), "2": PREVIEW}, client_id="me")
            heard = await socket.until("execution_success")
            await socket.close()
            told = [message["data"] for message in heard if message["type"] == "progress"]
            return [(data["node"], data["value"], data["max"]) for data in told]

    with running_standin(tmp_path, "--delay-ms", "150") as standin:
        assert asyncio.run(ticks(standin.url)) == [("1", 0, 2), ("1", 1, 2), ("2", 0, 2), ("2", 1, 2)]


def test_a_sleep_ticks_and_an_interrupt_takes_effect_at_the_next_tick(standin: Standin) -> None:
    async def interrupt() -> dict[str, object]:
        async with Client.to(standin.url) as client:
            socket = await client.listen("me")
            prompt_id = await client.submit({"1": SLEEP, "2": PREVIEW}, client_id="me")
            await socket.until("progress")
            await client.json("POST", "/interrupt", {"prompt_id": prompt_id})
            async with asyncio.timeout(2):
                told = (await socket.until("execution_interrupted"))[-1]["data"]
            await socket.close()
            return {key: told[key] for key in ("node_id", "node_type", "executed")}

    assert asyncio.run(interrupt()) == {"node_id": "1", "node_type": "StandinSleep", "executed": []}
