"""Pixels of a data set for training: decoded once by the function that serves, kept on disk, read in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic.dataclasses import dataclass as settings

from contracts.engine import MAX_PIXELS
from contracts.images import ImageSpec, read_pixels
from pipelines.task import STRICT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS = 1_024


@settings(frozen=True, kw_only=True, config=STRICT)
class AugmentConfig:
    """How training images are changed at random, each time they are seen.

    flip: mirror half of them; not where left and right are different classes.  crop: by which share of their sides they
    are moved at most, what is then missing mirrored.  turn: largest angle in degrees.  color: by which share brightness
    and contrast change at most.  erase: share of images of which a rectangle is covered (Z. Zhong et al.: Random
    erasing, 2020).  mixup, cutmix: share of batches whose images are laid over one another (H. Zhang et al.: mixup,
    2018), or have a rectangle of another (S. Yun et al.: CutMix, 2019).
    """

    flip: bool = True
    crop: float = 0.125
    turn: float = 0.0
    color: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


@dataclass(frozen=True)
class Pictures:
    """The images of one part: uint8, shape (rows, height, width, channels), and their class numbers."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def fingerprint(self) -> str:
        """Names the images and their classes."""
        digest = hashlib.sha256(self.labels.tobytes())
        for at in range(0, len(self.pixels), _ROWS):
            digest.update(self.pixels[at : at + _ROWS].tobytes())
        return digest.hexdigest()


def decode_part(
    file: Path, column: str, spec: ImageSpec, classes: Sequence[str], scratch: Path, most: int = 0
) -> Pictures:
    """The images of a part of a data set, through a file in `scratch`, so that memory stays bounded.

    most: so many of them, evenly from all; 0: all.
    """
    import numpy as np

    from pipelines.data.file_rows import row_count, some_rows

    numbers = {name: at for at, name in enumerate(classes)}
    there = row_count(file)
    chosen = np.arange(0, there, max(1, there // most) if most else 1)
    shape = (len(chosen), spec.height, spec.width, len(spec.mode))
    pixels = np.memmap(scratch / f"{file.stem}.pixels", np.uint8, "w+", shape=shape)
    labels, at = np.empty(len(chosen), np.int64), 0
    for table in some_rows(file, chosen, [column, "label"]):
        for content, label in zip(table.column(column), table.column("label"), strict=True):
            pixels[at] = read_pixels(content.as_py(), spec, MAX_PIXELS)[0]
            labels[at] = numbers[label.as_py()]
            at += 1
    return Pictures(pixels, labels)


def channel_scale(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, of values from 0 to 1, over up to 2,000 images."""
    import numpy as np

    step = max(1, len(pixels) // 2_000)
    some = pixels[::step].reshape(-1, pixels.shape[-1]).astype(np.float64) / 255
    mean, deviation = some.mean(axis=0), np.maximum(some.std(axis=0), 0.02)
    return tuple(round(float(one), 4) for one in mean), tuple(round(float(one), 4) for one in deviation)


def augmented(pixels: NDArray[np.uint8], config: AugmentConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A batch of images, each changed at random."""
    import numpy as np

    made = _moved(np.asarray(pixels), config, rng)
    if config.turn:
        made = _turned(made, config.turn, rng)
    if config.color:
        made = _colored(made, config.color, rng)
    if config.erase:
        for at in np.flatnonzero(rng.random(len(made)) < config.erase):
            rows, columns = _rectangle(made.shape[1:3], rng.uniform(0.02, 0.25), rng)
            made[at, rows, columns] = rng.integers(0, 256, made.shape[-1])
    return made


def _places(most: int, count: int, side: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Places along a side, moved by up to `most`, shape (count, side)."""
    import numpy as np

    moved = rng.integers(-most, most + 1, (count, 1)) + np.arange(side)[None]
    return _mirrored(moved, side)


def _moved(pixels: NDArray[np.uint8], config: AugmentConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mirrored and moved: one gather for the batch."""
    import numpy as np

    count, high, wide = pixels.shape[:3]
    rows = _places(int(high * config.crop), count, high, rng)
    columns = _places(int(wide * config.crop), count, wide, rng)
    if config.flip:
        flip = rng.random((count, 1)) < 0.5
        columns = np.where(flip, columns[:, ::-1], columns)
    moved: NDArray[np.uint8] = pixels[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def _mirrored(places: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Places outside of an axis, mirrored at its ends."""
    import numpy as np

    inside = np.abs(places)
    return np.clip(np.where(inside >= side, 2 * side - 2 - inside, inside), 0, side - 1)


def _turned(pixels: NDArray[np.uint8], most: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    import numpy as np

    count, high, wide = pixels.shape[:3]
    angle = np.deg2rad(rng.uniform(-most, most, count))[:, None, None]
    y, x = np.mgrid[:high, :wide].astype(np.float64)
    y, x = y[None] - (high - 1) / 2, x[None] - (wide - 1) / 2
    rows = np.rint(y * np.cos(angle) - x * np.sin(angle) + (high - 1) / 2).astype(np.int64)
    columns = np.rint(y * np.sin(angle) + x * np.cos(angle) + (wide - 1) / 2).astype(np.int64)
    turned: NDArray[np.uint8] = pixels[np.arange(count)[:, None, None], _mirrored(rows, high), _mirrored(columns, wide)]
    return turned


def _colored(pixels: NDArray[np.uint8], most: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    import numpy as np

    light, contrast = (rng.uniform(1 - most, 1 + most, len(pixels)).astype(np.float32) for _ in range(2))
    values = pixels.astype(np.float32)
    mean = values.mean(axis=(1, 2, 3), keepdims=True)
    values = ((values - mean) * contrast[:, None, None, None] + mean) * light[:, None, None, None]
    colored: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return colored


def _rectangle(sides: Sequence[int], share: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """A place for a rectangle of about `share` of an image."""
    found = []
    for side in sides:
        length = max(1, round(side * share**0.5))
        start = int(rng.integers(0, side - length + 1))
        found.append(slice(start, start + length))
    return found[0], found[1]


def mixed(
    pixels: NDArray[np.uint8], targets: NDArray[np.float32], config: AugmentConfig, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A batch of which, as `mixup` and `cutmix` say, each image has a part of another, and `targets` its share."""
    import numpy as np

    drawn = rng.random()
    if drawn >= config.mixup + config.cutmix:
        return pixels, targets
    order, share = rng.permutation(len(pixels)), float(rng.beta(0.8, 0.8))
    kind: Literal["mixup", "cutmix"] = "mixup" if drawn < config.mixup else "cutmix"
    if kind == "mixup":
        values = pixels.astype(np.float32) * (1 - share) + pixels[order].astype(np.float32) * share
        made = np.rint(values).astype(np.uint8)
    else:
        rows, columns = _rectangle(pixels.shape[1:3], share, rng)
        made = pixels.copy()
        made[:, rows, columns] = pixels[order][:, rows, columns]
        share = (rows.stop - rows.start) * (columns.stop - columns.start) / (pixels.shape[1] * pixels.shape[2])
    return made, (targets * np.float32(1 - share) + targets[order] * np.float32(share)).astype(np.float32)


def shuffled(rows: int, size: int, rng: np.random.Generator) -> Iterator[Any]:
    """Batches of all row numbers in random order; a last one of a single row joins the one before."""
    order = rng.permutation(rows)
    for start in range(0, rows, size):
        if rows - start > 1 or start == 0:
            end = rows if rows - start - size == 1 else start + size
            yield order[start:end]
