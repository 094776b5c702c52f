"""The tower of people of a two-tower recommender, by numpy: a history becomes the vector that asks for other items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

ASKS = "tower.asks"  # what an item of a history says of who took it, shape (items, dimensions)
LAYERS = ("tower.first", "tower.first_bias", "tower.second", "tower.second_bias")


def person(
    arrays: Mapping[str, NDArray[Any]], recent: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The vector of a history, of length one; zero of an empty one.

    The weighted mean of what its items say, and a layer beside it: ``x + relu(x A + a) B + b`` (P. Covington, J. Adams,
    E. Sargin: Deep neural networks for YouTube recommendations, 2016).

    Args:
        arrays: `ASKS` and `LAYERS`.
    """
    asks = arrays[ASKS]
    if not len(recent):
        return np.zeros(asks.shape[1])
    mean = weights @ np.asarray(asks[recent], dtype=np.float64) / weights.sum()
    first, first_bias, second, second_bias = (arrays[name] for name in LAYERS)
    found = mean + np.maximum(mean @ first + first_bias, 0) @ second + second_bias
    return np.asarray(found / max(float(np.linalg.norm(found)), 1e-12))


def check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse layers that do not fit one another.

    Raises:
        ValueError: naming the array; KeyError: one is missing.
    """
    width = arrays["factors"].shape[1]
    hidden = arrays[LAYERS[0]].shape[-1]
    wanted = (width, hidden), (hidden,), (hidden, width), (width,)
    shapes = dict(zip(LAYERS, wanted, strict=True)) | {ASKS: arrays["factors"].shape}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, not {shape}: it is of another model")
