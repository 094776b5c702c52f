"""Networks of torch whose weights are one state dict: any of them can be federated.

A state dict is averaged tensor by tensor, so it must hold nothing but what gradients move. The means and variances that
batch norm keeps are moved by the rows of a site: their mean over sites fits no site where sites differ (K. Hsieh et
al.: The non-IID data quagmire, 2020), leaves out how far apart the means are, and would fill the norm of an update.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError
from pipelines.federation.learner import loaded, weights_of
from pipelines.settings import setting
from pipelines.training.network import Spread

Floats = NDArray[np.float64]


class StateDict(ABC):
    """Part of a `pipelines.federation.models.Model`: there is nothing to agree on before the first round.

    A subclass has ``module``, and what it reads and sees of rows.
    """

    @abstractmethod
    def module(self, private: bool) -> Any:
        """See `pipelines.federation.learner.Net`."""

    @abstractmethod
    def answers(self, module: Any, seen: Any) -> Floats:
        """Scores of each class by a network in torch, shape (rows, classes)."""

    @cached_property
    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes.

        Raises:
            PlatformError: ``code="bad_config"``: it keeps numbers that no gradient moves, as batch norm does.
        """
        return tensors_of(self.module(private=False))

    def layout(self) -> Sequence[tuple[str, tuple[int, ...]]]:
        return self.tensors

    @property
    def count(self) -> int:
        return sum(int(np.prod(shape)) for _, shape in self.tensors)

    def sums(self, x: Any) -> Floats:
        return np.zeros(0)

    def agree(self, sums: Floats) -> Spread:
        return Spread(mean=np.zeros(0), deviation=np.zeros(0), counts={})

    def features(self, x: Any, spread: Spread) -> Any:
        return x

    def first(self, seed: int) -> Floats:
        import torch

        torch.manual_seed(seed)
        return weights_of(self, self.module(private=False))  # type: ignore[arg-type]

    def scores(self, weights: Floats, seen: Any) -> Floats:
        return self.answers(loaded(self, weights), seen)  # type: ignore[arg-type]


def tensors_of(module: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors of a network.

    Raises:
        PlatformError: ``code="bad_config"``: it keeps numbers that no gradient moves, as batch norm does.
    """
    learned = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    state = module.state_dict()
    if kept := [name for name in state if name not in learned]:
        raise PlatformError(
            "a network with batch norm cannot be federated",
            detail=f"{kept[0]} is of each site's own rows, and no gradient moves it: its mean over sites fits none",
            fix="normalise each row by itself: " + setting("model.norm", "group"),
            code="bad_config",
        )
    return [(name, tuple(value.shape)) for name, value in state.items()]
