"""Batches of token ids: rows of similar length together, in an order that depends on seed and epoch only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from pipelines.task import STRICT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POOL = 40  # batches that are sorted by length together: larger means less padding and less shuffling


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentConfig:
    """Chance of each token to be hidden (made unknown), deleted, or swapped with the next one, while training."""

    hide: float = field(default=0.05)
    delete: float = field(default=0.05)
    swap: float = field(default=0.02)


def bucket(lengths: NDArray[np.int64], size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Shuffle all rows into batches of at most `size`, each of rows with similar `lengths`; every row once."""
    import numpy as np

    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), size * POOL):
        pool = order[start : start + size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[at : at + size] for at in range(0, len(pool), size)]
    return [batches[at] for at in rng.permutation(len(batches))]


def augment(ids: NDArray[np.int64], config: AugmentConfig, unknown: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A noisy copy of one text's token ids; never empty unless `ids` is."""
    import numpy as np

    noisy = ids.copy()
    chance = rng.random((3, len(ids)))
    noisy[chance[0] < config.hide] = unknown
    for at in np.flatnonzero(chance[1][:-1] < config.swap):
        noisy[at], noisy[at + 1] = noisy[at + 1], noisy[at]
    kept = noisy[chance[2] >= config.delete]
    return kept if len(kept) else noisy


def pad(rows: Sequence[NDArray[np.int64]], filler: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """An array, shape (rows, longest row or 1), padded on the right by `filler`; and the lengths (at least 1)."""
    import numpy as np

    lengths = np.array([max(len(row), 1) for row in rows], np.int64)
    padded = np.full((len(rows), int(lengths.max())), filler, np.int64)
    for at, row in enumerate(rows):
        padded[at, : len(row)] = row
    return padded, lengths


def scores(model: Any, rows: list[Any], pad_id: int, device: str, size: int = 256) -> Any:
    """Logits, float64, shape (rows, classes), without dropout."""
    import numpy as np
    import torch

    model.eval()
    order = np.argsort([len(row) for row in rows], kind="stable")
    result = [np.zeros(0)] * len(rows)
    with torch.no_grad():
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            padded, lengths = pad([rows[at] for at in chosen], pad_id)
            inputs = torch.from_numpy(padded).to(device), torch.from_numpy(lengths).to(device)
            found = model(*inputs).double().cpu().numpy()
            for at, row in zip(chosen, found, strict=True):
                result[at] = row
    return np.stack(result)
