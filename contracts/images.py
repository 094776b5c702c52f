"""How an image file becomes the pixels that a model is trained on and served with: one function for both."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Literal, SupportsBytes

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from contracts.document import Document

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The commonest, each read by code that is made for hostile files; Pillow would also start other programs for some.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# What Pillow's readers raise for files that are cut off or made up.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError)
SPEC = "image.json"
_GRAY = 114
_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class ImageSpec(Document):
    """The content of ``image.json``: what happens to a file before the graph sees it.

    Attributes:
        mode: channels, RGB or gray.  fit: ``stretch`` changes the shape of an image, ``crop`` takes its middle, and
            ``pad`` keeps all of it, from the upper left corner on, with gray beside or below it.
        crop_share: of the shorter side, what ``crop`` keeps; 0.875 is the custom of ImageNet (224 of 256).
        mean, std: per channel, of values from 0 to 1.  layout: whether channels come before rows and columns.
        input, output: names in the graph; no output: those of `graph_outputs`.
        softmax: the graph gives scores that are not probabilities yet.
    """

    format: Literal[1] = 1
    width: int = Field(ge=1, le=4096)
    height: int = Field(ge=1, le=4096)
    mode: Literal["RGB", "L"] = "RGB"
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    crop_share: float = Field(1.0, gt=0, le=1)
    resample: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["channels_first", "channels_last"] = "channels_first"
    input: str = "pixels"
    output: str = ""
    softmax: bool = False

    def normalised(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the graph takes, of pixels with the channels last."""
        mean, std = (np.asarray(values, np.float32) for values in (self.mean, self.std))
        if self.layout == "channels_first":
            pixels = pixels.transpose(0, 3, 1, 2)
            mean, std = mean[:, None, None], std[:, None, None]
        values = pixels.astype(np.float32, order="C")
        values /= np.float32(255)
        values -= mean
        values /= std
        return values

    def factors(self, width: int, height: int) -> tuple[float, float]:
        """Of an image of this size, by what a place in it is multiplied to be that in the pixels; not of ``crop``."""
        across, down = self.width / width, self.height / height
        return (min(across, down),) * 2 if self.fit == "pad" else (across, down)


class TooLargeError(Exception):
    """Its text is a number of pixels."""


def open_image(file: SupportsBytes, most: int) -> Image.Image:
    """An image by its header alone: nothing is decoded yet. A file may be what ``bytes`` reads.

    Raises:
        TooLargeError: more than `most` pixels.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(bytes(file)), formats=FORMATS)
    except Image.DecompressionBombError:
        raise TooLargeError(f"more than {2 * int(Image.MAX_IMAGE_PIXELS or 0)}") from None
    if image.width * image.height > most:
        raise TooLargeError(image.width * image.height)
    return image


def upright(image: Image.Image) -> Image.Image:
    """The first frame, decoded, turned as its camera noted, with 8 bits a channel."""
    ImageOps.exif_transpose(image, in_place=True)  # which would else copy what is upright already
    if image.mode.startswith("I"):  # gray of 16 bits, which a conversion would cut at 255
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    return image


def read_pixels(file: SupportsBytes, spec: ImageSpec, most: int) -> tuple[NDArray[np.uint8], int]:
    """The pixels of a file as `spec` wants them, shape (height, width, channels), and how many the file had.

    Raises:
        TooLargeError: more than `most` pixels.
        BROKEN: one of these, where it is no image or is cut off.
    """
    pixels, (width, height) = read_sized(file, spec, most)
    return pixels, width * height


def read_sized(file: SupportsBytes, spec: ImageSpec, most: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """As `read_pixels`, with the width and the height that the file shows, turned as its camera noted."""
    image = upright(open_image(file, most))
    image = image if image.mode == spec.mode else image.convert(spec.mode)
    shown, box = image.size, None
    if spec.fit == "crop":
        # Cut before it is resized: a line of a million pixels must not become a million lines.
        scale = min(image.width / spec.width, image.height / spec.height) * spec.crop_share
        wide, high = spec.width * scale, spec.height * scale
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        box = (left, top, left + wide, top + high)
    if spec.fit == "pad":
        image = _padded(image, spec)
    elif box is not None or image.size != (spec.width, spec.height):
        image = image.resize((spec.width, spec.height), _RESAMPLE[spec.resample], box)
    return np.asarray(image, np.uint8).reshape(spec.height, spec.width, len(spec.mode)), shown


def sharpness(gray: NDArray[np.float64]) -> float:
    """How far neighbours in a line differ, in deviations of the pixels; `gray` has the shape (height, width)."""
    steps = float(np.abs(np.diff(gray, axis=1)).mean()) if gray.shape[1] > 1 else 0.0
    return steps / max(float(gray.std()), 1e-9)


def _padded(image: Image.Image, spec: ImageSpec) -> Image.Image:
    factor = spec.factors(*image.size)[0]
    sides = (
        max(1, min(spec.width, round(image.width * factor))),
        max(1, min(spec.height, round(image.height * factor))),
    )
    if image.size != sides:
        image = image.resize(sides, _RESAMPLE[spec.resample])
    if sides == (spec.width, spec.height):
        return image
    whole = Image.new(spec.mode, (spec.width, spec.height), _GRAY if spec.mode == "L" else (_GRAY,) * 3)
    whole.paste(image, (0, 0))
    return whole
