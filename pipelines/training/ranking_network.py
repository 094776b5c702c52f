"""A small network in the manner of DLRM: items, a history, features, and how they go together.

M. Naumov et al.: Deep learning recommendation model for personalization and recommendation systems, 2019. A click is a
look and a liking: the chance of the place's look is a factor, so that the network learns the liking alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.ranker import HISTORY, NETWORK, network_scores, padded
from pipelines.training.onnx_export import graph

if TYPE_CHECKING:
    from pipelines.training.shown import Shown

_ROWS, _DECAY = 512, 1e-4


def _network(items: int, given: int, width: int, mean: Any, scale: Any) -> Any:
    import torch
    from torch import nn

    class Network(nn.Module):
        """Log odds of a liking from ``features`` (rows, given), ``items`` (rows) and ``history`` (latest items)."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
            self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
            self.item = nn.Embedding(items + 1, width, padding_idx=0)  # 0: no item
            nn.init.normal_(self.item.weight, 0, 0.05)
            self.bottom = nn.Sequential(nn.Linear(given, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU())
            self.top = nn.Sequential(nn.Linear(width + 3 + given, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1))

        def forward(self, features: Any, places: Any, history: Any) -> Any:
            dense = (features - self.mean) / self.scale
            below, item = self.bottom(dense), self.item(places + 1)
            known = (history >= 0).float().unsqueeze(-1)
            had = (self.item(history + 1) * known).sum(-2) / known.sum(-2).clamp(min=1)
            had = had.expand_as(item)
            pairs = [(item * had).sum(-1), (item * below).sum(-1), (had * below).sum(-1)]
            return self.top(torch.cat([below, torch.stack(pairs, -1), dense], -1)).squeeze(-1)

    return Network()


def train_network(
    rows: Shown, later: Shown, look: NDArray[np.float64], settings: Any, seed: int, items: int
) -> tuple[Callable[..., NDArray[np.float64]], dict[str, bytes]]:
    """The scores of a network, and its file in ONNX; the epoch is that which fits `later` best."""
    import torch

    torch.manual_seed(seed)
    mean, scale = rows.found.mean(axis=0), np.maximum(rows.found.std(axis=0), 1e-6)
    network = _network(items, rows.found.shape[1], settings.width, mean, scale)
    wanted, held = (_tensors(part, look) for part in (rows, later))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=_DECAY)
    best, state = float("inf"), network.state_dict()
    for _ in range(settings.epochs):
        network.train()
        for some in torch.split(torch.randperm(len(wanted[0])), _ROWS):
            optimiser.zero_grad()
            _loss(network, [one[some] for one in wanted]).backward()
            optimiser.step()
        network.eval()
        with torch.no_grad():
            loss = float(_loss(network, held if len(held[0]) else wanted))
        if loss < best:
            best, state = loss, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    content = _exported(network.eval(), rows.found.shape[1])
    return network_scores(content), {NETWORK: content}


def _tensors(rows: Shown, look: NDArray[np.float64]) -> list[Any]:
    """Features, items, histories, looks and clicks of impressions."""
    import torch

    histories = np.array([padded(one) for one in rows.histories], dtype=np.int64).reshape(-1, HISTORY)
    at = look[np.minimum(rows.places, len(look) - 1)]
    found = (rows.found, rows.items, histories[rows.lists], at.astype(np.float32), rows.clicked.astype(np.float32))
    return [torch.from_numpy(np.ascontiguousarray(one)) for one in found]


def _loss(network: Any, given: list[Any]) -> Any:
    import torch

    features, items, histories, look, clicked = given
    chance = (look * torch.sigmoid(network(features, items, histories))).clamp(1e-6, 1 - 1e-6)
    return torch.nn.functional.binary_cross_entropy(chance, clicked)


def _exported(network: Any, given: int) -> bytes:
    """A graph of ``features``, ``items`` and ``history``, one for all rows, to ``scores``."""
    import torch

    example = (torch.zeros(2, given), torch.zeros(2, dtype=torch.int64), torch.zeros(HISTORY, dtype=torch.int64))
    axes = {key: {0: "rows"} for key in ("features", "items", "scores")}
    return graph(network, example, ["features", "items", "history"], ["scores"], axes)
