"""The nodes for audio and video."""

import os
import random
from fractions import Fraction
from typing import Any

from worker.standin.files import next_name
from worker.standin.images import Batch
from worker.standin.media import Audio, Video, read_audio, read_video, silence, write_audio, write_mp4, write_webm
from worker.standin.node import Run, Ui
from worker.standin.output_nodes import LETTERS, copies, file_shown, texts


def empty_audio(run: Run, duration: float, sample_rate: int, channels: int) -> tuple[Audio]:
    return (silence(duration, sample_rate, channels),)


def load_audio(run: Run, audio: str) -> tuple[Audio]:
    return (read_audio(run.folders.path_of(audio)),)


def save_audio(run: Run, audio: Audio, filename_prefix: str = "ComfyUI", **hidden: Any) -> Ui:
    return _saved(audio, filename_prefix, run.folders.output, "output", "flac", "", hidden)


def save_audio_mp3(run: Run, audio: Audio, filename_prefix: str, quality: str = "128k", **hidden: Any) -> Ui:
    return _saved(audio, filename_prefix, run.folders.output, "output", "mp3", quality, hidden)


def save_audio_opus(run: Run, audio: Audio, filename_prefix: str, quality: str = "128k", **hidden: Any) -> Ui:
    return _saved(audio, filename_prefix, run.folders.output, "output", "opus", quality, hidden)


def preview_audio(run: Run, audio: Audio, **hidden: Any) -> Ui:
    prefix = "ComfyUI_temp_" + "".join(random.choices(LETTERS, k=5))
    return _saved(audio, prefix, run.folders.temp, "temp", "flac", "", hidden)


def _saved(audio: Audio, prefix: str, folder: str, kind: str, form: str, quality: str, hidden: dict[str, Any]) -> Ui:
    full, subfolder, name, counter = next_name(prefix, folder)
    file = f"{name.replace('%batch_num%', '0')}_{counter:05}_.{form}"
    write_audio(audio, os.path.join(full, file), form, quality, texts(**hidden))
    return Ui({"audio": [file_shown(file, subfolder, kind)]})


def create_video(run: Run, images: Batch, fps: float, audio: Audio | None = None) -> tuple[Video]:
    return (Video(images.frames, Fraction(fps), audio),)


def load_video(run: Run, file: str) -> tuple[Video]:
    return (read_video(run.folders.path_of(file)),)


def video_components(run: Run, video: Video) -> tuple[Batch, Audio | None, float]:
    return (Batch(video.frames), video.audio, float(video.fps))


def save_video(run: Run, video: Video, filename_prefix: str, format: str, codec: str, **hidden: Any) -> Ui:
    if format not in ("auto", "mp4"):
        raise ValueError(f"'{format}' is not a valid VideoContainer")
    if codec not in ("auto", "h264"):
        raise ValueError("Only H264 codec is supported for now")
    full, subfolder, name, counter = next_name(filename_prefix, run.folders.output, video.frames[0].size)
    file = f"{name}_{counter:05}_.mp4"
    write_mp4(video, os.path.join(full, file), texts(**hidden))
    return shown_as_video(file, subfolder)


def save_webm(run: Run, images: Batch, filename_prefix: str, codec: str, fps: float, crf: float, **hidden: Any) -> Ui:
    full, subfolder, name, counter = next_name(filename_prefix, run.folders.output, images.size)
    file = f"{name}_{counter:05}_.webm"
    write_webm(tuple(copies(images)), os.path.join(full, file), codec, fps, crf, texts(**hidden))
    return shown_as_video(file, subfolder)


def shown_as_video(file: str, subfolder: str) -> Ui:
    return Ui({"images": [file_shown(file, subfolder, "output")], "animated": [True]})
