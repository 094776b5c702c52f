"""Test images as they may arrive otherwise: how well a model holds out is measured of each kind and strength.

Fifteen kinds, after D. Hendrycks and T. Dietterich: Benchmarking neural network robustness to common corruptions and
perturbations, 2019; in the place of frost, which needs photographs of it, stands less light.
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
    from numpy.typing import NDArray

ROWS = 200  # of the test images, evenly from all
STRENGTHS = (1, 2, 3)


def corrupted(
    frame: pd.DataFrame, column: str, rows: int = ROWS, *, still: bool = False
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Name of a slice and its rows, at most so many, files of `column` changed, for each kind and strength.

    still: without the kinds that move what is seen, as boxes would not fit any more.
    """
    some = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, min(len(frame), rows)).astype(int))]
    images = [upright(open_image(file, MAX_PIXELS)).convert("RGB") for file in some[column]]
    for kind, change in CORRUPTIONS.items():
        if still and kind in MOVING:
            continue
        for strength in STRENGTHS:
            rng = np.random.default_rng([strength, len(images)])
            yield (
                f"corrupted:{kind} {strength}",
                some.assign(**{column: [as_file(change(image, strength, rng)) for image in images]}),
            )


def as_file(image: Image.Image) -> bytes:
    """An image as a file that keeps every pixel."""
    buffer = io.BytesIO()
    image.save(buffer, "BMP")  # exact, and soon written
    return buffer.getvalue()


def _noise(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    values = np.asarray(image, np.float32)
    changed = values + rng.normal(0, (8, 18, 36)[strength - 1], values.shape)
    return Image.fromarray(np.clip(changed, 0, 255).astype(np.uint8))


def _blur(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(min(image.size) * (0.012, 0.025, 0.05)[strength - 1]))


def _shot(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    light = (60, 25, 12)[strength - 1]
    counted = rng.poisson(np.asarray(image, np.float32) / 255 * light) / light
    return Image.fromarray(np.clip(counted * 255, 0, 255).astype(np.uint8))


def _impulse(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    values = np.array(image)
    hit = rng.random(values.shape[:2]) < (0.02, 0.06, 0.15)[strength - 1]
    values[hit] = rng.choice(np.array([0, 255], np.uint8), (int(hit.sum()), 1))
    return Image.fromarray(values)


def _mean(copies: list[NDArray[np.uint8]]) -> Image.Image:
    return Image.fromarray(np.mean(copies, axis=0, dtype=np.float32).astype(np.uint8))


def _motion(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    values, length = np.asarray(image), max(2, round(min(image.size) * (0.06, 0.12, 0.2)[strength - 1]))
    rows, columns = (np.arange(side) for side in values.shape[:2])
    angle = rng.uniform(0, np.pi)
    moved = []
    for step in np.linspace(-length / 2, length / 2, 9):
        down = np.clip(np.rint(rows + step * np.sin(angle)).astype(int), 0, rows[-1])
        across = np.clip(np.rint(columns + step * np.cos(angle)).astype(int), 0, columns[-1])
        moved.append(values[down[:, None], across[None]])
    return _mean(moved)


def _zoom(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    wide, high = image.size
    copies = []
    for share in np.linspace(0, (0.08, 0.16, 0.28)[strength - 1], 6):
        cut = (wide * share / 2, high * share / 2, wide * (1 - share / 2), high * (1 - share / 2))
        copies.append(np.asarray(image.resize(image.size, Image.Resampling.BILINEAR, cut)))
    return _mean(copies)


def _glass(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    """Each pixel from a place beside it, as through frosted glass, so many times over."""
    values, most = np.asarray(image), max(1, round(min(image.size) * 0.015))
    for _ in range(strength):
        values = _taken(values, *rng.integers(-most, most + 1, (2, *values.shape[:2])))
    return Image.fromarray(values)


def _elastic(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    values, most = np.asarray(image), min(image.size) * (0.04, 0.07, 0.11)[strength - 1]
    coarse = rng.uniform(-1, 1, (2, 4, 4)).astype(np.float32)
    fields = [np.asarray(Image.fromarray(one).resize(image.size, Image.Resampling.BICUBIC)) * most for one in coarse]
    return Image.fromarray(_taken(values, *(np.rint(one).astype(int) for one in fields)))


def _taken(values: NDArray[np.uint8], down: NDArray[Any], across: NDArray[Any]) -> NDArray[np.uint8]:
    """Each pixel from so many rows below and columns beside, at most at the edge."""
    rows, columns = np.indices(values.shape[:2])
    last = (values.shape[0] - 1, values.shape[1] - 1)
    found: NDArray[np.uint8] = values[np.clip(rows + down, 0, last[0]), np.clip(columns + across, 0, last[1])]
    return found


def _fog(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    share = (0.25, 0.45, 0.65)[strength - 1]
    return Image.fromarray(_over(image, _clouds(image.size, rng) * 0.4 + 0.6, share))


def _snow(image: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
    """White flakes, blurred as they fall."""
    flakes = (rng.random((image.height, image.width)) < (0.02, 0.05, 0.1)[strength - 1]).astype(np.float32)
    shown = np.asarray(Image.fromarray(flakes * 255).convert("L").filter(ImageFilter.BoxBlur(0.6)), np.float32) / 255
    mixed = np.asarray(image, np.float32) * (1 - shown[..., None]) + 255 * np.minimum(1, 3 * shown[..., None])
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _clouds(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth light and dark, shape (height, width), from 0 to 1."""
    coarse = Image.fromarray(rng.random((5, 5)).astype(np.float32))
    found: NDArray[np.float32] = np.clip(np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)), 0, 1)
    return found


def _over(image: Image.Image, light: NDArray[np.float32], share: float) -> NDArray[np.uint8]:
    values = np.asarray(image, np.float32) * (1 - share) + 255 * light[..., None] * share
    return np.clip(values, 0, 255).astype(np.uint8)


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


MOVING = ("zoom", "elastic")
CORRUPTIONS: Mapping[str, Callable[[Image.Image, int, Any], Image.Image]] = {
    "noise": _noise,
    "shot": _shot,
    "impulse": _impulse,
    "blur": _blur,
    "glass": _glass,
    "motion": _motion,
    "zoom": _zoom,
    "snow": _snow,
    "fog": _fog,
    "elastic": _elastic,
    "dark": _dark,
    "bright": _bright,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}
