"""Files to upload: good pictures and sounds, and those that ComfyUI stumbles over."""

import io
import math
import struct
import wave

from PIL import Image


def png(color: tuple[int, ...] = (200, 30, 40), size: tuple[int, int] = (8, 6)) -> bytes:
    content = io.BytesIO()
    Image.new("RGBA" if len(color) == 4 else "RGB", size, color).save(content, "PNG")
    return content.getvalue()


def tone(seconds: float = 0.5, rate: int = 16000, hertz: float = 440) -> bytes:
    """A WAV file of one channel."""
    content, steps = io.BytesIO(), range(round(seconds * rate))
    with wave.open(content, "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", ""))
        sound.writeframes(
            b"".join(struct.pack("<h", round(16000 * math.sin(2 * math.pi * hertz * step / rate))) for step in steps)
        )
    return content.getvalue()


CORRUPT = b"this is not a picture"
TRUNCATED = png()[:40]
WAV = b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0data\0\0\0\0"
