"""Models that can be federated, as a vector of weights over a vector of each row, and what sites must agree on for it.

What sites agree on are sums over rows, which they add up as they do updates: no row is shared, and neither are
quantiles, which are no sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.training.network import NetworkConfig, Spread, bent, categories_of, form_of_layers, numbers_of, vectors
from pipelines.training.onnx_tabular import LinearForm, save_linear, save_network
from pipelines.training.tabular import LogisticConfig

Floats = NDArray[np.float64]


class Model(Protocol):
    """A model whose parts are linear layers with ReLU between them."""

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of the layers before the last."""
        ...

    def sums(self, x: Floats) -> Floats:
        """What a site's rows, shape (rows, inputs), add to what all agree on."""
        ...

    def agree(self, sums: Floats) -> Spread:
        """How all rows lie, by the sums of all sites."""
        ...

    def features(self, x: Floats, spread: Spread) -> NDArray[np.float32]:
        """What the first layer sees of rows, shape (rows, width)."""
        ...

    def save(self, layers: Sequence[tuple[Floats, Floats]], spread: Spread, calibration: Any, file: Path) -> None:
        """Write the ONNX graph."""
        ...


@dataclass(frozen=True)
class Network:
    """`pipelines.training.network`."""

    inputs: Sequence[Input]
    hidden: tuple[int, ...]

    def sums(self, x: Floats) -> Floats:
        return _moments(bent(x[:, numbers_of(self.inputs)]))

    def agree(self, sums: Floats) -> Spread:
        return _spread(sums)

    def features(self, x: Floats, spread: Spread) -> NDArray[np.float32]:
        return vectors(self.inputs, x, spread)

    def save(self, layers: Sequence[tuple[Floats, Floats]], spread: Spread, calibration: Any, file: Path) -> None:
        save_network(form_of_layers(self.inputs, layers, spread), calibration, file)


@dataclass(frozen=True)
class Linear:
    """Logistic regression over numbers and which are missing; strings are numbers as in `LogisticConfig`.

    A missing value is the mean of the others, where the central training takes the median.
    """

    inputs: Sequence[Input]
    log_scale: bool
    hidden: tuple[int, ...] = ()

    def sums(self, x: Floats) -> Floats:
        return _moments(self._bent(x))

    def agree(self, sums: Floats) -> Spread:
        return _spread(sums)

    def features(self, x: Floats, spread: Spread) -> NDArray[np.float32]:
        given = self._bent(x)
        missing = np.isnan(given)
        scaled = np.where(missing, 0.0, (given - spread.mean) / spread.deviation)
        return np.concatenate([scaled, missing], axis=1).astype(np.float32)

    def save(self, layers: Sequence[tuple[Floats, Floats]], spread: Spread, calibration: Any, file: Path) -> None:
        ((weights, bias),) = layers
        width, mean = len(self.inputs), spread.mean
        form = LinearForm(
            median=np.sign(mean) * np.expm1(np.abs(mean)) if self.log_scale else mean,
            mean=mean,
            deviation=spread.deviation,
            weights=weights[0, :width],
            absent=weights[0, width:],
            bias=float(bias[0]),
            log_scale=self.log_scale,
        )
        save_linear(form, calibration, file)

    def _bent(self, x: Floats) -> Floats:
        return bent(x) if self.log_scale else x


def model_of(config: Any, inputs: Sequence[Input]) -> Model:
    """The model of a recipe's section ``model``.

    Raises:
        PlatformError: ``code="bad_config"``: one that is no sum of updates; strings without a list of categories.
    """
    open_ended = [item.name for item in inputs if item.dtype == "string" and not item.categories]
    if open_ended:
        raise PlatformError(
            f"sites cannot agree on the categories of {open_ended[0]!r}, which the task does not list",
            detail="each site would number its own",
            fix="give the column its categories in the task's columns",
            code="bad_data",
            column=open_ended[0],
        )
    if isinstance(config, NetworkConfig):
        return Network(inputs, config.hidden)
    if isinstance(config, LogisticConfig):
        return Linear(inputs, config.log_scale)
    raise PlatformError(
        f"a {config.kind} cannot be federated: its training is no sum of what sites have learned",
        detail="network and logistic can",
        fix="--recipe network, or --recipe logistic",
        code="bad_config",
    )


def width_of(model: Model, inputs: Sequence[Input]) -> int:
    """How many numbers the first layer sees."""
    if isinstance(model, Linear):
        return 2 * len(inputs)
    return 2 * len(numbers_of(inputs)) + sum(count for _, count in categories_of(inputs))


def _moments(values: Floats) -> Floats:
    """Of each column how many values there are, their sum, and that of their squares; shape (3 * columns,)."""
    given = ~np.isnan(values)
    filled = np.where(given, values, 0.0)
    return np.concatenate([given.sum(axis=0), filled.sum(axis=0), np.square(filled).sum(axis=0)]).astype(np.float64)


def _spread(sums: Floats) -> Spread:
    count, total, squares = np.split(sums, 3)
    some = np.maximum(count, 1.0)
    mean = np.where(count >= 0.5, total / some, 0.0)
    # Rounding of a masked sum may leave less than nothing of a column with one value.
    variance = np.where(count >= 0.5, squares / some - mean**2, 0.0)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    return Spread(mean=mean, deviation=np.where(deviation > 1e-3, deviation, 1.0), counts={})
