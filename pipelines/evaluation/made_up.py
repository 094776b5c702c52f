"""Rows that nobody sent: what a model is replayed with where no row of its data may be shown."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Input

_ROWS = 64
_SIDE = 48  # pixels of a picture
_WORDS = (
    "time year people way day man thing woman life child world school state family group country problem hand part",
    "place case week company system program question work government number night point home water room money story",
    "good new first last long great little own other old right big high different small large 市场 今天 电影 学生 公司",
)


def made_up(inputs: Sequence[Input], seed: int) -> dict[str, NDArray[np.object_] | NDArray[np.float64]]:
    """The columns of some rows: by what is declared of the inputs, and by nothing else."""
    rng = np.random.default_rng(seed)
    return {item.name: _column(item, rng) for item in inputs}


def _column(item: Input, rng: np.random.Generator) -> NDArray[np.object_] | NDArray[np.float64]:
    if item.dtype == "bytes":
        return _objects([_picture(rng) for _ in range(_ROWS)])
    if item.dtype == "string" and item.categories:
        return _objects([str(name) for name in rng.choice(item.categories, _ROWS)])
    if item.dtype == "string":
        words = " ".join(_WORDS).split()
        return _objects([" ".join(rng.choice(words, rng.integers(1, 40))) for _ in range(_ROWS)])
    if item.dtype == "bool":
        return rng.integers(0, 2, _ROWS).astype(np.float64)
    low, high = item.minimum, item.maximum
    # Between known limits evenly, else over many orders of magnitude, as nothing is known of it.
    if low is not None and high is not None:
        found = rng.uniform(low, high, _ROWS)
    else:
        found = np.expm1(rng.uniform(0, 10, _ROWS)) * (rng.choice((-1, 1), _ROWS) if low is None else 1) + (low or 0)
    return np.round(found) if item.dtype == "int64" else np.round(found, 3)


def _objects(values: Sequence[object]) -> NDArray[np.object_]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _picture(rng: np.random.Generator) -> bytes:
    """A PNG of a few coarse colours."""
    from PIL import Image

    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((_SIDE, _SIDE)).save(file, "PNG")
    return file.getvalue()
