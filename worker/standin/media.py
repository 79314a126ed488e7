"""What travels along AUDIO and VIDEO links, and how it gets into files and out of them, by PyAV as in ComfyUI."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from PIL import Image

LAYOUTS = {1: "mono", 2: "stereo"}
SAMPLE_BYTES = 4
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


@dataclass(frozen=True)
class Audio:
    """samples: 32-bit floats between -1 and 1, one of each channel after the other."""

    samples: bytes
    channels: int
    rate: int

    @property
    def length(self) -> int:
        """Samples of one channel."""
        return len(self.samples) // (SAMPLE_BYTES * self.channels)

    def first(self, length: int) -> "Audio":
        return Audio(self.samples[: length * SAMPLE_BYTES * self.channels], self.channels, self.rate)

    def frame(self) -> Any:
        """All of it as one frame: PyAV cuts it as the encoder wants it."""
        frame = av.AudioFrame(format="flt", layout=LAYOUTS[self.channels], samples=self.length)
        frame.planes[0].update(self.samples)
        frame.sample_rate = self.rate
        frame.pts = 0
        return frame


@dataclass(frozen=True)
class Video:
    frames: tuple[Image.Image, ...]
    fps: Fraction
    audio: Audio | None = None


def silence(seconds: float, rate: int, channels: int) -> Audio:
    return Audio(bytes(SAMPLE_BYTES * channels * round(seconds * rate)), channels, rate)


def read_audio(path: str) -> Audio:
    """The first audio stream of a file; ValueError in ComfyUI's words, or PyAV's error, if there is none."""
    with av.open(path) as container:
        if not container.streams.audio:
            raise ValueError("No audio stream found in the file.")
        found = _samples(container)
    if not found.samples:
        raise ValueError("No audio frames decoded.")
    return found


def _samples(container: Any) -> Audio:
    stream = container.streams.audio[0]
    channels, rate = min(stream.channels, 2), stream.codec_context.sample_rate
    plain = av.AudioResampler(format="flt", layout=LAYOUTS[channels], rate=rate)
    samples = bytearray()
    for frame in [*container.decode(stream), None]:
        for part in plain.resample(frame):
            samples += bytes(part.planes[0])[: part.samples * channels * SAMPLE_BYTES]
    return Audio(bytes(samples), channels, rate)


def write_audio(audio: Audio, path: str, kind: str, quality: str, metadata: Mapping[str, str]) -> None:
    """kind: flac, mp3 or opus, which knows only a few sample rates."""
    rate = audio.rate
    if kind == "opus" and rate not in OPUS_RATES:
        rate = next((known for known in OPUS_RATES if known > rate), OPUS_RATES[-1])
    codec = {"flac": "flac", "mp3": "libmp3lame", "opus": "libopus"}[kind]
    with av.open(path, mode="w", format=kind) as container:
        container.metadata.update(metadata)
        stream: Any = container.add_stream(codec, rate=rate, layout=LAYOUTS[audio.channels])
        if quality == "V0":
            stream.codec_context.qscale = 1
        elif quality:
            stream.bit_rate = int(quality.removesuffix("k")) * 1000
        container.mux(stream.encode(audio.frame()))
        container.mux(stream.encode(None))


def read_video(path: str) -> Video:
    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError(f"No video stream found in file '{path}'")
        fps = container.streams.video[0].average_rate or Fraction(1)
        decoded: Any = container.decode(video=0)
        frames = tuple(frame.to_image() for frame in decoded)
        container.seek(0)
        audio = _samples(container) if container.streams.audio else None
    return Video(frames, Fraction(fps), audio)


def write_mp4(video: Video, path: str, metadata: Mapping[str, str]) -> None:
    """H.264, and AAC for as long as there are pictures."""
    with av.open(path, mode="w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(metadata)
        rate = Fraction(round(video.fps * 1000), 1000)
        pictures: Any = container.add_stream("h264", rate=rate)
        sound: Any = container.add_stream("aac", rate=video.audio.rate) if video.audio else None
        _encode(container, pictures, video.frames, "yuv420p")
        if video.audio:
            audio = video.audio.first(math.ceil(video.audio.rate / rate * len(video.frames)))
            container.mux(sound.encode(audio.frame()))
            container.mux(sound.encode(None))


def write_webm(
    frames: tuple[Image.Image, ...], path: str, codec: str, fps: float, crf: float, metadata: Mapping[str, str]
) -> None:
    with av.open(path, mode="w") as container:
        container.metadata.update(metadata)
        name = {"vp9": "libvpx-vp9", "av1": "libsvtav1"}[codec]
        stream: Any = container.add_stream(name, rate=Fraction(round(fps * 1000), 1000))
        stream.bit_rate = 0
        stream.options = {"crf": str(crf)} | ({"preset": "6"} if codec == "av1" else {})
        _encode(container, stream, frames, "yuv420p10le" if codec == "av1" else "yuv420p")


def _encode(container: Any, stream: Any, frames: Iterable[Image.Image], pixels: str) -> None:
    frame_of: Any = av.VideoFrame.from_image
    for place, picture in enumerate(frames):
        if not place:
            (stream.width, stream.height), stream.pix_fmt = picture.size, pixels
        container.mux(stream.encode(frame_of(picture).reformat(format=pixels)))
    container.mux(stream.encode(None))
