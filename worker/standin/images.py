"""What travels along IMAGE, MASK and LATENT links, and what a real ComfyUI would print for it.

An IMAGE is a batch of RGB pictures, a MASK a batch of L pictures, 8 bits a channel; a LATENT is all zeros.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageMath

EDGE, SUMMARIZED_ABOVE, LINE_WIDTH = 3, 1000, 80
RESAMPLING = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Batch:
    """Pictures of one size and one mode: RGB for an IMAGE, L for a MASK."""

    frames: tuple[Image.Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.frames[0].size

    def map(self, change: Callable[[Image.Image], Image.Image]) -> "Batch":
        return Batch(tuple(change(frame) for frame in self.frames))

    def __str__(self) -> str:
        """As torch prints the tensor: [batch, height, width, 3], or [batch, height, width] for a MASK."""
        (width, height), bands = self.size, self.frames[0].getbands()
        shape = (len(self.frames), height, width, *([len(bands)] if len(bands) > 1 else []))
        pixels = [frame.load() for frame in self.frames]

        def value(place: tuple[int, ...]) -> float:
            access = pixels[place[0]]
            assert access is not None
            found = access[place[2], place[1]]
            return (found[place[3]] if isinstance(found, tuple) else found) / 255

        return tensor_text(shape, value)


@dataclass(frozen=True)
class Latent:
    """Zeros of shape [batch, 4, height / 8, width / 8]."""

    shape: tuple[int, int, int, int]

    def __str__(self) -> str:
        return f"{{'samples': {tensor_text(self.shape, lambda place: 0.0)}}}"


def tensor_text(shape: tuple[int, ...], value: Callable[[tuple[int, ...]], float]) -> str:
    """torch's str() of a float tensor whose values lie between 0 and 1 in steps of 1/255."""
    total = 1
    for length in shape:
        total *= length
    short = total > SUMMARIZED_ABOVE
    shown = [_shown(length, short) for length in shape]
    values = [value(place) for place in _places(shown)]
    whole = all(found == int(found) for found in values)
    width = 2 if whole else 6
    texts = iter([f"{found:.0f}." if whole else f"{found:.4f}" for found in values])
    return f"tensor({_nested(shown, texts.__next__, 8, width)})"


def _shown(length: int, short: bool) -> list[int | None]:
    """The indices printed of one dimension; None stands for the dots."""
    if short and length > 2 * EDGE:
        return [*range(EDGE), None, *range(length - EDGE, length)]
    return list(range(length))


def _places(shown: list[list[int | None]]) -> list[tuple[int, ...]]:
    places: list[tuple[int, ...]] = [()]
    for indices in shown:
        places = [(*place, index) for place in places for index in indices if index is not None]
    return places


def _nested(shown: list[list[int | None]], following: Callable[[], str], indent: int, width: int) -> str:
    indices, *inner = shown
    if inner:
        parts = ["..." if i is None else _nested(inner, following, indent + 1, width) for i in indices]
        return "[" + ("," + "\n" * len(inner) + " " * indent).join(parts) + "]"
    parts = [" ..." if i is None else following().rjust(width) for i in indices]
    a_line = max(1, (LINE_WIDTH - indent) // (width + 2))
    lines = [", ".join(parts[start : start + a_line]) for start in range(0, len(parts), a_line)]
    return "[" + (",\n" + " " * indent).join(lines) + "]"


def scaled(image: Image.Image, width: int, height: int, method: str, crop: str = "disabled") -> Image.Image:
    """Resize; crop "center" first cuts the picture to the new aspect."""
    if crop == "center":
        old, new = image.width / image.height, width / height
        x = round((image.width - image.width * new / old) / 2) if old > new else 0
        y = round((image.height - image.height * old / new) / 2) if old < new else 0
        image = image.crop((x, y, image.width - x, image.height - y))
    return image.resize((width, height), RESAMPLING[method])


def blurred(image: Image.Image, radius: int, sigma: float) -> Image.Image:
    """ComfyUI's blur: a Gaussian over [-1, 1] sampled at 2 * radius + 1 points, edges mirrored.

    It is computed in floats, so a big picture with a big radius takes its time, as with a real ComfyUI.
    RuntimeError, as torch's, if there are not enough pixels to mirror.
    """
    if radius >= min(image.size):
        raise RuntimeError(f"Padding size should be less than the corresponding input dimension, but got: {radius}")
    weights = [math.exp(-((step / radius) ** 2) / (2 * sigma * sigma)) for step in range(-radius, radius + 1)]
    weights = [weight / sum(weights) for weight in weights]
    return Image.merge("RGB", [_blurred_band(band, weights) for band in image.split()])


def _blurred_band(band: Image.Image, weights: list[float]) -> Image.Image:
    """The kernel is separable: along the rows, then along the columns; rounded to 8 bits at the end."""
    total = band.convert("F")
    for _ in range(2):
        total = _blurred_rows(total, weights).transpose(Image.Transpose.TRANSPOSE)
    return total.point(lambda value: value * 1 + 0.5).convert("L")


def _blurred_rows(band: Image.Image, weights: list[float]) -> Image.Image:
    radius = len(weights) // 2
    wide = _mirrored(band, radius)
    total = Image.new("F", band.size, 0)
    for shift, weight in enumerate(weights):
        part = wide.crop((shift, 0, shift + band.width, band.height))
        values = {"total": total, "part": part, "weight": weight}
        total = ImageMath.lambda_eval(lambda args: args["total"] + args["part"] * args["weight"], **values)
    return total


def _mirrored(band: Image.Image, radius: int) -> Image.Image:
    """The band with `radius` columns more on each side, mirrored without repeating the edge."""
    wide = Image.new(band.mode, (band.width + 2 * radius, band.height))
    wide.paste(band, (radius, 0))
    flipped = band.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    wide.paste(flipped.crop((band.width - 1 - radius, 0, band.width - 1, band.height)), (0, 0))
    wide.paste(flipped.crop((1, 0, 1 + radius, band.height)), (radius + band.width, 0))
    return wide


def joined(first: Batch, second: Batch) -> Batch:
    """Two batches as one; the second takes the first's size."""
    if second.size != first.size:
        second = second.map(lambda frame: scaled(frame, *first.size, "bilinear", "center"))
    return Batch(first.frames + second.frames)


def inverted(image: Image.Image) -> Image.Image:
    return ImageChops.invert(image)
