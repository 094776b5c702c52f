"""What a site does with the weights that it is given: it measures them on its rows, and learns from its rows.

Weights are one vector, layer by layer, of each the matrix (made, given) row by row and then the biases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_DIVERGED = 1e4  # beyond which a weight is cut, so that an update stays a number


@dataclass(frozen=True, kw_only=True)
class Local:
    """How a site trains in one round. decay: of the weights, as in AdamW.  proximal: mu of FedProx."""

    epochs: int
    batch_size: int
    learning_rate: float
    decay: float
    clip: float
    proximal: float


def shapes_of(width: int, hidden: Sequence[int]) -> list[tuple[int, int]]:
    """(made, given) of each layer; the last makes one number."""
    sizes = (width, *hidden, 1)
    return [(made, given) for given, made in pairwise(sizes)]


def count_of(shapes: Sequence[tuple[int, int]]) -> int:
    """How many weights there are."""
    return sum(made * given + made for made, given in shapes)


def first_weights(shapes: Sequence[tuple[int, int]], seed: int) -> Floats:
    """As PyTorch begins: uniform, within one over the root of what a layer is given; nothing, without hidden layers."""
    rng = np.random.default_rng([seed, count_of(shapes)])
    if len(shapes) == 1:
        return np.zeros(count_of(shapes))
    parts = [rng.uniform(-1, 1, made * given + made) / np.sqrt(given) for made, given in shapes]
    return np.concatenate(parts)


def layers_of(weights: Floats, shapes: Sequence[tuple[int, int]]) -> list[tuple[Floats, Floats]]:
    """Matrix and biases of each layer."""
    found, at = [], 0
    for made, given in shapes:
        end = at + made * given
        found.append((weights[at:end].reshape(made, given), weights[end : end + made]))
        at = end + made
    return found


def log_odds(weights: Floats, shapes: Sequence[tuple[int, int]], seen: NDArray[np.float32]) -> Floats:
    """Of rows that the first layer sees as `seen`, shape (rows,)."""
    value: Floats = np.asarray(seen, dtype=np.float64)
    layers = layers_of(weights, shapes)
    for at, (matrix, bias) in enumerate(layers):
        value = value @ matrix.T + bias
        if at < len(layers) - 1:
            value = np.maximum(value, 0.0)
    return value[:, 0]


def measured(raw: Floats, y: NDArray[np.int64]) -> dict[str, float]:
    """loss, accuracy and, where both classes are there, roc_auc of log-odds `raw`, shape (rows,)."""
    from pipelines.evaluation.measures import auc

    found = {
        "loss": float(np.mean(np.logaddexp(0.0, raw) - y * raw)),
        "accuracy": float(np.mean((raw > 0) == (y == 1))),
    }
    if 0 < y.sum() < len(y):
        found["roc_auc"] = float(auc(y == 1, raw))
    return found


def learned_privately(
    weights: Floats,
    shapes: Sequence[tuple[int, int]],
    seen: NDArray[np.float32],
    y: NDArray[np.int64],
    how: Local,
    private: Mapping[str, Any],
) -> Floats:
    """As `learned`, by `steps` noisy steps, of which each row is in the share `drawn` by chance (Opacus)."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as entropy

    from pipelines.training.loop import eager
    from pipelines.training.privacy import PrivacyConfig, as_private, drawn

    torch.set_num_threads(1)
    parts: list[Any] = []
    for matrix, bias in layers_of(weights, shapes):
        layer = torch.nn.Linear(matrix.shape[1], matrix.shape[0])
        layer.weight.data, layer.bias.data = (torch.tensor(one, dtype=torch.float32) for one in (matrix, bias))
        parts += [layer, torch.nn.ReLU()]
    model = torch.nn.Sequential(*parts[:-1])
    rows, labels = torch.from_numpy(seen), torch.from_numpy(y.astype(np.float32))
    optimizer = eager(torch.optim.AdamW)(model.parameters(), lr=how.learning_rate, weight_decay=how.decay)
    told, batch = {"noise_multiplier": private["noise"]}, max(1, round(private["drawn"] * len(y)))
    with as_private(model, optimizer, PrivacyConfig(clip=private["clip"]), told, batch, "--recipe network") as steps_by:
        for chosen in drawn(len(y), private["drawn"], private["steps"]):
            at = torch.from_numpy(np.asarray(chosen, np.int64))
            steps_by.zero_grad()
            entropy(model(rows[at])[:, 0], labels[at], reduction="sum").backward()  # type: ignore[no-untyped-call]
            steps_by.step()
    after = np.concatenate([one.detach().double().numpy().ravel() for one in model.parameters()])
    return np.asarray(np.clip(after, -_DIVERGED, _DIVERGED) - weights)


def learned(
    weights: Floats,
    shapes: Sequence[tuple[int, int]],
    seen: NDArray[np.float32],
    y: NDArray[np.int64],
    how: Local,
    seed: Sequence[int],
) -> Floats:
    """What training on these rows adds to `weights`."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as entropy

    from pipelines.training.loop import eager

    torch.set_num_threads(1)
    given = [torch.tensor(part, dtype=torch.float32) for layer in layers_of(weights, shapes) for part in layer]
    current = [part.clone().requires_grad_() for part in given]
    rows, labels = torch.from_numpy(seen), torch.from_numpy(y.astype(np.float32))
    optimizer: Any = eager(torch.optim.AdamW)(current, lr=how.learning_rate, weight_decay=how.decay)
    rng = np.random.default_rng(list(seed))
    for _ in range(how.epochs):
        for chosen in np.array_split(rng.permutation(len(y)), max(1, round(len(y) / how.batch_size))):
            at = torch.from_numpy(chosen)
            value = rows[at]
            for place in range(0, len(current), 2):
                value = torch.nn.functional.linear(value, current[place], current[place + 1])
                value = torch.relu(value) if place + 2 < len(current) else value
            loss = entropy(value[:, 0], labels[at])
            if how.proximal:
                loss = loss + how.proximal / 2 * sum(
                    ((new - old) ** 2).sum() for new, old in zip(current, given, strict=True)
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(current, how.clip)
            optimizer.step()
    after = np.concatenate([part.detach().double().numpy().ravel() for part in current])
    return np.asarray(np.clip(after, -_DIVERGED, _DIVERGED) - weights)
