"""What a site does with the weights that it is given: it measures them on its rows, and learns from its rows.

Weights are one vector: the tensors of a network one behind the other, such as of each linear layer the matrix (made,
given) row by row and then the biases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.training.network import Spread

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task

Floats = NDArray[np.float64]
_DIVERGED = 1e4  # beyond which a weight is cut, so that an update stays a number


class Net(Protocol):
    """A network that sites train. What it sees of rows is its own affair."""

    def layout(self) -> Sequence[tuple[str, tuple[int, ...]]]:
        """Names and shapes of its tensors in `module`, in the order of the vector of weights."""
        ...

    def module(self, private: bool) -> Any:
        """It in torch, with any weights; private: of layers that give the gradient of each row."""
        ...

    def losses(self, module: Any, seen: Any, y: NDArray[np.int64], at: NDArray[np.int64]) -> Any:
        """The loss of each of the rows `at` of what it sees, a tensor, shape (rows,); one 0 where there is none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Valid:
    """The coordinator's validation rows. x: as the model reads them.  losses: see `training.tabular.row_costs`."""

    x: Any
    y: NDArray[np.int64]
    losses: Floats
    task: Task | None = None
    frame: pd.DataFrame | None = None


@dataclass(frozen=True, kw_only=True)
class Local:
    """How a site trains in one round. decay: of the weights, as in AdamW.  proximal: mu of FedProx.

    momentum: of stochastic gradient descent, as Nesterov has it; None takes AdamW.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    decay: float
    clip: float
    proximal: float
    momentum: float | None = None

    def optimizer(self, parameters: Any) -> Any:
        """Of torch."""
        import torch

        from pipelines.training.loop import eager

        if self.momentum is None:
            return eager(torch.optim.AdamW)(parameters, lr=self.learning_rate, weight_decay=self.decay)
        told: dict[str, Any] = {"momentum": self.momentum, "nesterov": self.momentum > 0}
        return eager(torch.optim.SGD)(parameters, lr=self.learning_rate, weight_decay=self.decay, **told)


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
    """loss, accuracy and, where there are two classes, roc_auc: of log-odds `raw`, shape (rows,), or of scores of each
    class, shape (rows, classes)."""
    from pipelines.evaluation.measures import auc

    if raw.ndim == 2 and raw.shape[1] > 2:
        highest = raw.max(axis=1, keepdims=True)
        total = highest[:, 0] + np.log(np.exp(raw - highest).sum(axis=1))
        loss = float(np.mean(total - raw[np.arange(len(y)), y]))
        return {"loss": loss, "accuracy": float(np.mean(raw.argmax(axis=1) == y))}
    raw = raw[:, 1] - raw[:, 0] if raw.ndim == 2 else raw
    found = {
        "loss": float(np.mean(np.logaddexp(0.0, raw) - y * raw)),
        "accuracy": float(np.mean((raw > 0) == (y == 1))),
    }
    if 0 < y.sum() < len(y):
        found["roc_auc"] = float(auc(y == 1, raw))
    return found


def moments(values: Floats) -> Floats:
    """Of each column how many values there are, their sum, and that of their squares; shape (3 * columns,)."""
    given = ~np.isnan(values)
    filled = np.where(given, values, 0.0)
    return np.concatenate([given.sum(axis=0), filled.sum(axis=0), np.square(filled).sum(axis=0)]).astype(np.float64)


def spread_of(sums: Floats) -> Spread:
    """How values lie, by their `moments` or by those of several sites together."""
    count, total, squares = np.split(sums, 3)
    some = np.maximum(count, 1.0)
    mean = np.where(count >= 0.5, total / some, 0.0)
    # Rounding of a masked sum may leave less than nothing of a column with one value.
    variance = np.where(count >= 0.5, squares / some - mean**2, 0.0)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    return Spread(mean=mean, deviation=np.where(deviation > 1e-3, deviation, 1.0), counts={})


def loaded(net: Net, weights: Floats, private: bool = False) -> Any:
    """The network in torch with these weights."""
    import torch

    module, tensors, at = net.module(private), {}, 0
    for name, shape in net.layout():
        end = at + int(np.prod(shape))
        tensors[name] = torch.tensor(weights[at:end].reshape(shape), dtype=torch.float32)
        at = end
    for name, part in module.named_children():  # each by itself: a private LSTM knows its tensors by other names, too
        mark = f"{name}."
        part.load_state_dict({key[len(mark) :]: one for key, one in tensors.items() if key.startswith(mark)})
    return module


def weights_of(net: Net, module: Any) -> Floats:
    """Those of a network in torch, cut where they are no numbers that an update can be made of."""
    tensors = module.state_dict()
    parts = [tensors[name].detach().double().numpy().ravel() for name, _ in net.layout()]
    return np.asarray(np.clip(np.concatenate(parts), -_DIVERGED, _DIVERGED))


def learned_privately(
    net: Net, weights: Floats, seen: Any, y: NDArray[np.int64], how: Local, private: Mapping[str, Any]
) -> Floats:
    """As `learned`, by `steps` noisy steps, of which each row is in the share `drawn` by chance (Opacus)."""
    import torch

    from pipelines.training.privacy import PrivacyConfig, as_private, drawn

    torch.set_num_threads(1)
    module = loaded(net, weights, private=True)
    module.train()
    optimizer = how.optimizer(module.parameters())
    told, batch = {"noise_multiplier": private["noise"]}, max(1, round(private["drawn"] * len(y)))
    fix = "--recipe network"
    with as_private(module, optimizer, PrivacyConfig(clip=private["clip"]), told, batch, fix) as steps_by:
        for chosen in drawn(len(y), private["drawn"], private["steps"]):
            steps_by.zero_grad()
            net.losses(module, seen, y, np.asarray(chosen, np.int64)).sum().backward()
            steps_by.step()
    return weights_of(net, module) - weights


def learned(net: Net, weights: Floats, seen: Any, y: NDArray[np.int64], how: Local, seed: Sequence[int]) -> Floats:
    """What training on these rows adds to `weights`."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(list(seed))
    torch.manual_seed(int(np.random.default_rng([*seed, 1]).integers(2**31)))  # of dropout
    module = loaded(net, weights)
    module.train()
    current = list(module.parameters())
    given = [part.detach().clone() for part in current]
    optimizer = how.optimizer(current)
    for _ in range(how.epochs):
        for chosen in np.array_split(rng.permutation(len(y)), max(1, round(len(y) / how.batch_size))):
            loss = net.losses(module, seen, y, chosen).mean()
            if how.proximal:
                loss = loss + how.proximal / 2 * sum(
                    ((new - old) ** 2).sum() for new, old in zip(current, given, strict=True)
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(current, how.clip)
            optimizer.step()
    return weights_of(net, module) - weights
