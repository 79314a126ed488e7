"""Files to upload: good pictures, and those that ComfyUI stumbles over."""

import io

from PIL import Image


def png(color: tuple[int, ...] = (200, 30, 40), size: tuple[int, int] = (8, 6)) -> bytes:
    content = io.BytesIO()
    Image.new("RGBA" if len(color) == 4 else "RGB", size, color).save(content, "PNG")
    return content.getvalue()


CORRUPT = b"this is not a picture"
TRUNCATED = png()[:40]
WAV = b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0data\0\0\0\0"
