"""Test images as they may arrive otherwise: how well a model holds out is measured of each kind and strength.

A part of those of D. Hendrycks and T. Dietterich: Benchmarking neural network robustness to common corruptions
and perturbations, 2019.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from contracts.engine import MAX_PIXELS
from contracts.images import open_image, upright

if TYPE_CHECKING:
    import pandas as pd

ROWS = 200  # of the test images, evenly from all
STRENGTHS = (1, 2, 3)


def corrupted(frame: pd.DataFrame, column: str, rows: int = ROWS) -> Iterator[tuple[str, pd.DataFrame]]:
    """Name of a slice and its rows, at most so many, files of `column` changed, for each kind and strength."""
    some = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, min(len(frame), rows)).astype(int))]
    images = [upright(open_image(file, MAX_PIXELS)).convert("RGB") for file in some[column]]
    for kind, change in CORRUPTIONS.items():
        for strength in STRENGTHS:
            rng = np.random.default_rng([strength, len(images)])
            yield (
                f"corrupted:{kind} {strength}",
                some.assign(**{column: [_file(change(image, strength, rng)) for image in images]}),
            )


def _file(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "BMP")  # exact, and soon written
    return buffer.getvalue()


def _noise(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    values = np.asarray(image, np.float32)
    changed = values + rng.normal(0, (8, 18, 36)[strength - 1], values.shape)
    return Image.fromarray(np.clip(changed, 0, 255).astype(np.uint8))


def _blur(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(min(image.size) * (0.012, 0.025, 0.05)[strength - 1]))


def _dark(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance((0.7, 0.5, 0.3)[strength - 1])


def _bright(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance((1.3, 1.7, 2.2)[strength - 1])


def _contrast(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance((0.7, 0.4, 0.2)[strength - 1])


def _pixelate(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    share = (0.7, 0.5, 0.35)[strength - 1]
    small = image.resize([max(1, round(side * share)) for side in image.size], Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def _jpeg(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=(40, 20, 8)[strength - 1])
    return Image.open(buffer).convert("RGB")


CORRUPTIONS: Mapping[str, Callable[[Image.Image, int, Any], Image.Image]] = {
    "noise": _noise,
    "blur": _blur,
    "dark": _dark,
    "bright": _bright,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}
