"""Pixels of a data set for training: decoded once by the function that serves, kept on disk, read in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    return drawn_changes(pixels.shape, config, rng).made(pixels)


@dataclass(frozen=True)
class Changes:
    """What was drawn for each image of a batch, so that a process which has some of them makes the same of these.

    down, right: pixels that it is moved by, shape (rows, 1).  mirrored: shape (rows, 1).  angle: in degrees, light,
    contrast: factors, shape (rows,); None: of none.  covered: row, rectangle and its color.
    """

    down: NDArray[np.int64]
    right: NDArray[np.int64]
    mirrored: NDArray[np.bool_] | None
    angle: NDArray[np.float64] | None
    light: NDArray[np.float32] | None
    contrast: NDArray[np.float32] | None
    covered: Sequence[tuple[int, tuple[slice, slice], NDArray[np.int64]]]

    def made(self, pixels: NDArray[np.uint8], rows: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """The images of a batch, or those in these of its rows, which rise, as they are then."""
        import numpy as np

        chosen = np.arange(len(self.down)) if rows is None else rows
        made = self._moved(np.asarray(pixels), chosen)
        if self.angle is not None:
            made = _turned(made, self.angle[chosen])
        if self.light is not None and self.contrast is not None:
            made = _colored(made, self.light[chosen], self.contrast[chosen])
        places = {row: at for at, row in enumerate(chosen.tolist())}
        for row, (down, right), color in self.covered:
            if row in places:
                made[places[row], down, right] = color
        return made

    def _moved(self, pixels: NDArray[np.uint8], chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Mirrored and moved: one gather for the batch."""
        import numpy as np

        high, wide = pixels.shape[1:3]
        rows, columns = (
            _mirrored(moved[chosen] + np.arange(side)[None], side)
            for moved, side in ((self.down, high), (self.right, wide))
        )
        if self.mirrored is not None:
            columns = np.where(self.mirrored[chosen], columns[:, ::-1], columns)
        places = np.arange(len(pixels))[:, None, None], rows[:, :, None], columns[:, None, :]
        moved: NDArray[np.uint8] = pixels[places]
        return moved


def drawn_changes(shape: Sequence[int], config: AugmentConfig, rng: np.random.Generator) -> Changes:
    """Changes of a batch of this shape: rows, height, width, channels."""
    import numpy as np

    count, high, wide, channels = shape
    down, right = (
        rng.integers(-most, most + 1, (count, 1)) for most in (int(high * config.crop), int(wide * config.crop))
    )
    mirrored = rng.random((count, 1)) < 0.5 if config.flip else None
    angle = rng.uniform(-config.turn, config.turn, count) if config.turn else None
    light = contrast = None
    if config.color:
        light, contrast = (rng.uniform(1 - config.color, 1 + config.color, count).astype(np.float32) for _ in range(2))
    covered = []
    if config.erase:
        for at in np.flatnonzero(rng.random(count) < config.erase):
            place = _rectangle((high, wide), rng.uniform(0.02, 0.25), rng)
            covered.append((int(at), place, rng.integers(0, 256, channels)))
    return Changes(down, right, mirrored, angle, light, contrast, covered)


def _mirrored(places: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Places outside of an axis, mirrored at its ends."""
    import numpy as np

    inside = np.abs(places)
    return np.clip(np.where(inside >= side, 2 * side - 2 - inside, inside), 0, side - 1)


def _turned(pixels: NDArray[np.uint8], angle: NDArray[np.float64]) -> NDArray[np.uint8]:
    import numpy as np

    count, high, wide = pixels.shape[:3]
    angle = np.deg2rad(angle)[:, None, None]
    y, x = np.mgrid[:high, :wide].astype(np.float64)
    y, x = y[None] - (high - 1) / 2, x[None] - (wide - 1) / 2
    rows = np.rint(y * np.cos(angle) - x * np.sin(angle) + (high - 1) / 2).astype(np.int64)
    columns = np.rint(y * np.sin(angle) + x * np.cos(angle) + (wide - 1) / 2).astype(np.int64)
    turned: NDArray[np.uint8] = pixels[np.arange(count)[:, None, None], _mirrored(rows, high), _mirrored(columns, wide)]
    return turned


def _colored(pixels: NDArray[np.uint8], light: NDArray[np.float32], contrast: NDArray[np.float32]) -> NDArray[np.uint8]:
    import numpy as np

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


@dataclass(frozen=True)
class Mix:
    """How each image of a batch gets a part of another one.

    order: of each image, whose part it gets.  share: of the other one.  cut: the rectangle that is taken from it; None:
    it is laid over.
    """

    order: NDArray[np.int64]
    share: float
    cut: tuple[slice, slice] | None

    def made(self, pixels: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images with their parts of `others`, which are in the order of the images."""
        import numpy as np

        if self.cut is None:
            values = pixels.astype(np.float32) * (1 - self.share) + others.astype(np.float32) * self.share
            return np.rint(values).astype(np.uint8)
        made = pixels.copy()
        made[:, *self.cut] = others[:, *self.cut]
        return made

    def targets(self, targets: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same of the classes of a whole batch, shape (rows, classes)."""
        import numpy as np

        own, other = np.float32(1 - self.share), np.float32(self.share)
        return (targets * own + targets[self.order] * other).astype(np.float32)


def drawn_mix(shape: Sequence[int], config: AugmentConfig, rng: np.random.Generator) -> Mix | None:
    """What `mixup` and `cutmix` make of a batch of this shape: rows, height, width; None: nothing."""
    drawn = rng.random()
    if drawn >= config.mixup + config.cutmix:
        return None
    count, high, wide = shape
    order, share = rng.permutation(count), float(rng.beta(0.8, 0.8))
    if drawn < config.mixup:
        return Mix(order, share, None)
    rows, columns = _rectangle((high, wide), share, rng)
    return Mix(order, (rows.stop - rows.start) * (columns.stop - columns.start) / (high * wide), (rows, columns))


def mixed(
    pixels: NDArray[np.uint8], targets: NDArray[np.float32], config: AugmentConfig, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A batch of which, as `mixup` and `cutmix` say, each image has a part of another, and `targets` its share."""
    mix = drawn_mix(pixels.shape[:3], config, rng)
    return (pixels, targets) if mix is None else (mix.made(pixels, pixels[mix.order]), mix.targets(targets))


def shuffled(rows: int, size: int, rng: np.random.Generator) -> Iterator[Any]:
    """Batches of all row numbers in random order; a last one of a single row joins the one before."""
    order = rng.permutation(rows)
    for start in range(0, rows, size):
        if rows - start > 1 or start == 0:
            end = rows if rows - start - size == 1 else start + size
            yield order[start:end]
