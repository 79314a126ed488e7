"""What assets tell of a picture, a film, a sound: its size in pixels and its length."""

import asyncio
import io
from typing import Any

import av
import pytest

from tests.standin.pictures import tone
from tests.worker.fakes import png
from worker import media
from worker.files import OutputFile
from worker.media import Facts


def output(name: str, content: bytes) -> OutputFile:
    file = OutputFile(node="1", name=name)
    file.write(content)
    return file


def facts(name: str, content: bytes) -> Facts:
    return asyncio.run(media.facts_of([output(name, content)]))[0]


def film(frames: int = 10, rate: int = 20) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode())
    return out.getvalue()


def test_a_picture_tells_its_size() -> None:
    assert facts("a.png", png(size=24)) == Facts(width=24, height=24)


def test_a_film_tells_its_size_and_length() -> None:
    assert facts("a.mp4", film(frames=10, rate=20)) == Facts(width=64, height=48, duration_ms=500)


def test_a_sound_tells_its_length() -> None:
    found = facts("a.wav", tone())
    assert (found.width, found.height) == (None, None)
    assert found.duration_ms


@pytest.mark.parametrize("name", ["a.png", "a.mp4", "a.flac", "a.txt", "a.glb"])
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"bytes of nothing"], ids=len)
def test_what_cannot_be_read_tells_nothing_and_fails_nothing(name: str, content: bytes) -> None:
    assert facts(name, content) == Facts()


def test_a_file_that_takes_too_long_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    stuck = threading.Event()
    monkeypatch.setattr("worker.media.LONGEST_S", 0.05)
    monkeypatch.setattr("worker.media._facts", lambda file: stuck.wait(20))
    try:
        assert facts("a.png", png()) == Facts()
    finally:
        stuck.set()


def test_a_file_on_disk_is_read_by_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.spool.IN_MEMORY_BYTES", 100)
    content = film()
    files: list[Any] = [output("a.mp4", content) for _ in range(3)]
    found = asyncio.run(media.facts_of([*files, *files]))
    assert {(one.width, one.duration_ms) for one in found} == {(64, 500)}
    assert files[0].body.read_at(0, len(content)) == content == files[0].body.reader().read()
