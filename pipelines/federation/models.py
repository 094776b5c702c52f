"""Models that can be federated: those of tables, over a vector of each row, and what sites must agree on for them.

What sites agree on are sums over rows, which they add up as they do updates: no row is shared, and neither are
quantiles, which are no sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.tabular_engine import Calibration, matrix
from pipelines.federation.learner import (
    Net,
    Valid,
    count_of,
    first_weights,
    layers_of,
    log_odds,
    moments,
    shapes_of,
    spread_of,
)
from pipelines.training.network import NetworkConfig, Spread, bent, categories_of, form_of_layers, numbers_of, vectors
from pipelines.training.onnx_tabular import LinearForm, save_linear, save_network
from pipelines.training.tabular import LogisticConfig

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task

Floats = NDArray[np.float64]


class Model(Net, Protocol):
    """A network that sites train, and what they must agree on for it.

    imports: modules that take long to import, which simulated sites do once for all.
    """

    @property
    def imports(self) -> tuple[str, ...]: ...

    @property
    def count(self) -> int:
        """How many weights there are."""
        ...

    def told(self) -> dict[str, Any]:
        """What a site needs to make the same, as JSON, with its ``kind``."""
        ...

    def read(self, frame: pd.DataFrame) -> Any:
        """What is kept of rows."""
        ...

    def sums(self, x: Any) -> Floats:
        """What a site's rows, as `read` gives them, add to what all agree on."""
        ...

    def agree(self, sums: Floats) -> Spread:
        """How all rows lie, by the sums of all sites."""
        ...

    def features(self, x: Any, spread: Spread) -> Any:
        """What the network sees of rows."""
        ...

    def first(self, seed: int) -> Floats:
        """The weights that a training begins with."""
        ...

    def scores(self, weights: Floats, seen: Any) -> Floats:
        """Log-odds of rows, shape (rows,), or scores of each class, shape (rows, classes)."""
        ...

    def finish(
        self, weights: Floats, spread: Spread, recipe: Any, valid: Valid, private: bool, out: Path
    ) -> dict[str, Any]:
        """Calibrate by the coordinator's rows and write the files of a bundle's ``model/``, ``model.onnx`` among them.

        Returns:
            decision, parameters for the card, and what else `TaskConfig.train` may tell.
        """
        ...


class _Layers(ABC):
    """Linear layers with ReLU between them over a vector of each row, to the log-odds of the second class."""

    inputs: Sequence[Input]
    config: Any
    classes: Sequence[str]

    imports = ()

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of the layers before the last."""
        return ()

    @abstractmethod
    def width(self) -> int:
        """How many numbers the first layer sees."""

    @abstractmethod
    def features(self, x: Floats, spread: Spread) -> NDArray[np.float32]:
        """Shape (rows, width)."""

    @abstractmethod
    def write(self, layers: Sequence[tuple[Floats, Floats]], spread: Spread, calibration: Any, file: Path) -> None:
        """Write the ONNX graph."""

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return shapes_of(self.width(), self.hidden)

    @property
    def count(self) -> int:
        return count_of(self.shapes)

    def told(self) -> dict[str, Any]:
        return asdict(self.config)

    def read(self, frame: pd.DataFrame) -> Floats:
        from pipelines.evaluation.scoring import columns_of

        return matrix(self.inputs, columns_of(frame, self.inputs))

    def agree(self, sums: Floats) -> Spread:
        return spread_of(sums)

    def first(self, seed: int) -> Floats:
        return first_weights(self.shapes, seed)

    def layout(self) -> list[tuple[str, tuple[int, ...]]]:
        parts = [((f"{2 * at}.weight", shape), (f"{2 * at}.bias", shape[:1])) for at, shape in enumerate(self.shapes)]
        return [one for pair in parts for one in pair]

    def module(self, private: bool) -> Any:
        import torch

        parts: list[Any] = []
        for made, given in self.shapes:
            parts += [torch.nn.Linear(given, made), torch.nn.ReLU()]
        return torch.nn.Sequential(*parts[:-1])

    def losses(self, module: Any, seen: NDArray[np.float32], y: NDArray[np.int64], at: NDArray[np.int64]) -> Any:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits as entropy

        labels = torch.from_numpy(y[at].astype(np.float32))
        return entropy(module(torch.from_numpy(seen[at]))[:, 0], labels, reduction="none")

    def scores(self, weights: Floats, seen: NDArray[np.float32]) -> Floats:
        return log_odds(weights, self.shapes, seen)

    def finish(
        self, weights: Floats, spread: Spread, recipe: Any, valid: Valid, private: bool, out: Path
    ) -> dict[str, Any]:
        from pipelines.training.tabular import decide, fit_calibration

        raw = self.scores(weights, self.features(valid.x, spread))
        calibration = fit_calibration("none" if private else self.config.calibration, raw, valid.y)
        self.write(layers_of(weights, self.shapes), spread, calibration, out / "model.onnx")
        answers = Calibration(calibration)(raw)
        return {"decision": decide(self.classes, answers, valid.y, recipe.cost, valid.losses, None), "parameters": {}}


@dataclass(frozen=True)
class Network(_Layers):
    """`pipelines.training.network`."""

    inputs: Sequence[Input]
    config: NetworkConfig
    classes: Sequence[str] = ()

    @property
    def hidden(self) -> tuple[int, ...]:
        return self.config.hidden

    def width(self) -> int:
        return 2 * len(numbers_of(self.inputs)) + sum(count for _, count in categories_of(self.inputs))

    def sums(self, x: Floats) -> Floats:
        return moments(bent(x[:, numbers_of(self.inputs)]))

    def features(self, x: Floats, spread: Spread) -> NDArray[np.float32]:
        return vectors(self.inputs, x, spread)

    def write(self, layers: Sequence[tuple[Floats, Floats]], spread: Spread, calibration: Any, file: Path) -> None:
        save_network(form_of_layers(self.inputs, layers, spread), calibration, file)


@dataclass(frozen=True)
class Linear(_Layers):
    """Logistic regression over numbers and which are missing; strings are numbers as in `LogisticConfig`.

    A missing value is the mean of the others, where the central training takes the median.
    """

    inputs: Sequence[Input]
    config: LogisticConfig
    classes: Sequence[str] = ()

    def width(self) -> int:
        return 2 * len(self.inputs)

    def sums(self, x: Floats) -> Floats:
        return moments(self._bent(x))

    def features(self, x: Floats, spread: Spread) -> NDArray[np.float32]:
        given = self._bent(x)
        missing = np.isnan(given)
        scaled = np.where(missing, 0.0, (given - spread.mean) / spread.deviation)
        return np.concatenate([scaled, missing], axis=1).astype(np.float32)

    def write(self, layers: Sequence[tuple[Floats, Floats]], spread: Spread, calibration: Any, file: Path) -> None:
        ((weights, bias),) = layers
        width, mean, log_scale = len(self.inputs), spread.mean, self.config.log_scale
        form = LinearForm(
            median=np.sign(mean) * np.expm1(np.abs(mean)) if log_scale else mean,
            mean=mean,
            deviation=spread.deviation,
            weights=weights[0, :width],
            absent=weights[0, width:],
            bias=float(bias[0]),
            log_scale=log_scale,
        )
        save_linear(form, calibration, file)

    def _bent(self, x: Floats) -> Floats:
        return bent(x) if self.config.log_scale else x


def model_of(config: Any, inputs: Sequence[Input], classes: Sequence[str] = ()) -> Model:
    """The model of a table's recipe, of its section ``model``.

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
        return Network(inputs, config, classes)
    if isinstance(config, LogisticConfig):
        return Linear(inputs, config, classes)
    raise PlatformError(
        f"a {config.kind} cannot be federated: its training is no sum of what sites have learned",
        detail="network and logistic can, embedding_lstm and transformer of texts, resnet and linear_probe of images",
        fix="--recipe network, or --recipe logistic",
        code="bad_config",
    )


def table_model(recipe: Any, task: Task, classes: Sequence[str]) -> Model:
    """The model of a table's recipe.

    Raises:
        PlatformError: ``code="bad_config"``: more than two classes, or see `model_of`.
    """
    if len(classes) != 2:
        raise PlatformError(
            "a federated training of tables needs two classes",
            detail=f"got {len(classes)}",
            fix="train it in one place: fairlead run " + task.name,
            code="bad_config",
        )
    return model_of(recipe.model, task.inputs(recipe), classes)


def model_told(told: Mapping[str, Any], inputs: Sequence[Input], classes: Sequence[str]) -> Model:
    """The model that `Model.told` describes, of a site's own inputs.

    Raises:
        ValueError, KeyError: it describes none.
        PlatformError: see `model_of`.
    """
    from pipelines.federation import pictures, words

    if told["kind"] in (words.LSTM, words.TRANSFORMER):
        return words.words_told(told, inputs, classes)
    if told["kind"] == pictures.KIND:
        return pictures.residual_told(told, inputs, classes)
    if told["kind"] == pictures.PROBE:
        return pictures.probe_told(told, inputs, classes)
    kinds: Mapping[str, Any] = {"network": NetworkConfig, "logistic": LogisticConfig}
    return model_of(TypeAdapter(kinds[told["kind"]]).validate_python(told), inputs, classes)
