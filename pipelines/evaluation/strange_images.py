"""Images that no model of images can know, by which is measured whether it says so.

They are made of nothing, or of parts of test images in another order: what colors and edges there are stays, what they
show goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from contracts.engine import MAX_PIXELS
from contracts.images import open_image, upright
from pipelines.evaluation.image_corruptions import as_file

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

ROWS = 200
_PARTS = 4  # of a side, in another order


def strange(frame: pd.DataFrame, column: str) -> Iterator[tuple[str, list[bytes]]]:
    """The name of a kind and its files, as many as there are test images, at most `ROWS`, and of their sizes."""
    some = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, min(len(frame), ROWS)).astype(int))]
    images = [upright(open_image(file, MAX_PIXELS)).convert("RGB") for file in some[column]]
    for name, make in KINDS.items():
        rng = np.random.default_rng(len(images))
        yield name, [as_file(Image.fromarray(make(np.asarray(image), rng))) for image in images]


def _noise(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, image.shape, dtype=np.uint8)


def _plain(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    return np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), image.shape).copy()


def _stripes(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    rows, columns = np.indices(image.shape[:2])
    angle, width = rng.uniform(0, np.pi), rng.uniform(2, 8)
    wave = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * np.pi / width) > 0
    first, second = rng.integers(0, 256, (2, 3), dtype=np.uint8)
    made: NDArray[np.uint8] = np.where(wave[..., None], first, second)
    return made


def _shuffled(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    high, wide = (max(1, side // _PARTS) for side in image.shape[:2])
    made = image.copy()
    places = [(row * high, column * wide) for row in range(_PARTS) for column in range(_PARTS)]
    for (down, across), at in zip(places, rng.permutation(len(places)), strict=True):
        from_row, from_column = places[at]
        part = image[from_row : from_row + high, from_column : from_column + wide]
        made[down : down + part.shape[0], across : across + part.shape[1]] = part
    return made


KINDS: Mapping[str, Callable[[NDArray[np.uint8], np.random.Generator], Any]] = {
    "noise": _noise,
    "plain": _plain,
    "stripes": _stripes,
    "shuffled": _shuffled,
}
