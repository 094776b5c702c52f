"""Models of images that can be federated: a residual network with group norm, of recipe ``resnet``, and a linear model
on the features of a pretrained network, of recipe ``linear_probe``.

Sites agree on mean and deviation of each channel, or of each feature, by sums over their images. Pixels are made of
files by the function that serves, with the coordinator's settings.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from contracts.bundle import Input
from contracts.images import ImageSpec
from pipelines.federation.learner import Valid, loaded, moments, spread_of
from pipelines.federation.state_dict import StateDict
from pipelines.training.network import Spread
from pipelines.training.pictures import AugmentConfig

if TYPE_CHECKING:
    import pandas as pd

KIND, PROBE = "resnet", "linear_probe"
_ROWS = 256
_LEAST = 0.02  # deviation of a channel
Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Sizes = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the network sees of images: pixels, shape (rows, height, width, channels), normalised as `spec` says."""

    pixels: Pixels
    spec: ImageSpec


@dataclass(frozen=True, kw_only=True)
class Residual(StateDict):
    """See `pipelines.federation.models.Model`; what is kept of a row are its pixels.

    column: of the files.  agreed: whether sites agree on mean and deviation.  The others are those of the recipe.
    """

    column: str
    spec: ImageSpec
    agreed: bool
    widths: Sizes
    blocks: Sizes
    norm: Any
    halve: Any
    augment: AugmentConfig
    smoothing: float
    classes: Sequence[str]

    imports = ("PIL.Image",)

    def told(self) -> dict[str, Any]:
        sizes = {name: getattr(self, name) for name in ("widths", "blocks", "norm", "halve", "smoothing")}
        return {
            "kind": KIND,
            **sizes,
            "agreed": self.agreed,
            "augment": asdict(self.augment),
            "spec": self.spec.model_dump(),
        }

    def read(self, frame: pd.DataFrame) -> Pixels:
        return _decoded(frame, self.column, self.spec)

    def sums(self, x: Pixels) -> Floats:
        """How many images there are, the sum of the means of their channels, and that of the means of squares."""
        if not self.agreed:
            return np.zeros(0)
        found = np.zeros((3, x.shape[-1]))
        for at in range(0, len(x), _ROWS):
            values = x[at : at + _ROWS].astype(np.float64) / 255
            found += [
                np.full(x.shape[-1], len(values)),
                values.mean(axis=(1, 2)).sum(axis=0),
                np.square(values).mean(axis=(1, 2)).sum(axis=0),
            ]
        return found.ravel()

    def agree(self, sums: Floats) -> Spread:
        if not self.agreed:
            return super().agree(sums)
        found = spread_of(sums)
        return Spread(mean=found.mean, deviation=np.maximum(found.deviation, _LEAST), counts={})

    def features(self, x: Pixels, spread: Spread) -> Seen:
        if not self.agreed:
            return Seen(pixels=x, spec=self.spec)
        given = {name: tuple(map(float, values)) for name, values in (("mean", spread.mean), ("std", spread.deviation))}
        return Seen(pixels=x, spec=self.spec.model_copy(update=given))

    def module(self, private: bool) -> Any:
        from pipelines.training.image_network import residual_network

        channels = len(self.spec.mode)
        return residual_network(len(self.classes), channels, self.widths, self.blocks, self.norm, halve=self.halve)

    def losses(self, module: Any, seen: Seen, y: NDArray[np.int64], at: NDArray[np.int64]) -> Any:
        import torch
        from torch.nn.functional import cross_entropy

        from pipelines.training.pictures import augmented, mixed

        rows = at if len(at) else np.zeros(1, np.int64)  # none: a row that does not count
        rng = np.random.default_rng(int(torch.randint(2**31, (1,))))
        targets = np.eye(len(self.classes), dtype=np.float32)[y[rows]]
        pixels, targets = mixed(augmented(seen.pixels[rows], self.augment, rng), targets, self.augment, rng)
        given = module(torch.from_numpy(seen.spec.normalised(pixels)))
        found = cross_entropy(given, torch.from_numpy(targets), reduction="none", label_smoothing=self.smoothing)
        return found * float(len(at) > 0)

    def answers(self, module: Any, seen: Seen) -> Floats:
        import torch

        module.eval()
        found = []
        with torch.no_grad():
            for at in range(0, len(seen.pixels), _ROWS):
                given = torch.from_numpy(seen.spec.normalised(seen.pixels[at : at + _ROWS]))
                found.append(module(given).double().numpy())
        return np.concatenate(found)

    def finish(
        self, weights: Floats, spread: Spread, recipe: Any, valid: Valid, private: bool, out: Path
    ) -> dict[str, Any]:
        seen = self.features(valid.x, spread)
        found: dict[str, Any] = recipe.finish(
            loaded(self, weights), valid.task, seen.spec, seen.pixels, valid.y, list(self.classes), self.column, out
        )
        return {**found, "decision": None}


@dataclass(frozen=True, kw_only=True)
class Probe(StateDict):
    """See `pipelines.federation.models.Model`; what is kept of a row are the features that a frozen network has for it.

    graph: of the features, in ONNX, which sites get from the coordinator.  width: how many features.
    """

    column: str
    spec: ImageSpec
    graph: bytes
    width: int
    classes: Sequence[str]

    imports = ("PIL.Image", "onnxruntime")

    def told(self) -> dict[str, Any]:
        graph = base64.b64encode(self.graph).decode("ascii")
        return {"kind": PROBE, "spec": self.spec.model_dump(), "width": self.width, "graph": graph}

    def read(self, frame: pd.DataFrame) -> NDArray[np.float32]:
        from pipelines.training.image_backbone import features_of
        from pipelines.training.pictures import Pictures

        if frame.empty:
            return np.zeros((0, self.width), np.float32)
        pixels = _decoded(frame, self.column, self.spec)
        found = features_of(_graph(self.graph), self.spec, Pictures(pixels, np.zeros(len(pixels), np.int64)), _silent)
        return found.astype(np.float32)

    def sums(self, x: NDArray[np.float32]) -> Floats:
        return moments(x.astype(np.float64))

    def agree(self, sums: Floats) -> Spread:
        return spread_of(sums)

    def features(self, x: NDArray[np.float32], spread: Spread) -> NDArray[np.float32]:
        return ((x - spread.mean) / spread.deviation).astype(np.float32)

    def module(self, private: bool) -> Any:
        import torch

        return torch.nn.Sequential(OrderedDict(head=torch.nn.Linear(self.width, len(self.classes))))

    def losses(self, module: Any, seen: NDArray[np.float32], y: NDArray[np.int64], at: NDArray[np.int64]) -> Any:
        import torch
        from torch.nn.functional import cross_entropy

        return cross_entropy(module(torch.from_numpy(seen[at])), torch.from_numpy(y[at]), reduction="none")

    def answers(self, module: Any, seen: NDArray[np.float32]) -> Floats:
        import torch

        with torch.no_grad():
            found: Floats = module(torch.from_numpy(seen)).double().numpy()
        return found

    def finish(
        self, weights: Floats, spread: Spread, recipe: Any, valid: Valid, private: bool, out: Path
    ) -> dict[str, Any]:
        from pipelines.training.calibration import fit_temperature

        factor = fit_temperature(self.scores(weights, self.features(valid.x, spread)), valid.y)
        width = self.width * len(self.classes)
        linear = weights[:width].reshape(len(self.classes), self.width).T / spread.deviation[:, None]
        bias = weights[width:] - spread.mean @ linear
        assert valid.frame is not None
        pixels = _decoded(valid.frame, self.column, self.spec)
        found: dict[str, Any] = recipe.finish(
            (_graph(self.graph), linear * factor, bias * factor),
            (valid.task, self.spec, pixels, valid.y, list(self.classes), self.column),
            out,
        )
        told = {"temperature": 1 / factor, "features": self.width}
        return {**found, "decision": None, "parameters": {**found["parameters"], **told}}


def _silent(*_: Any, **__: Any) -> None:
    """Progress that nobody sees."""


def _graph(content: bytes) -> Any:
    import onnx

    return onnx.load_from_string(content)


def _decoded(frame: pd.DataFrame, column: str, spec: ImageSpec) -> Pixels:
    from contracts.engine import MAX_PIXELS
    from contracts.images import read_pixels

    found = np.empty((len(frame), spec.height, spec.width, len(spec.mode)), np.uint8)
    for at, content in enumerate(frame[column]):
        found[at] = read_pixels(content, spec, MAX_PIXELS)[0]
    return found


def probe_of(graph: Any, spec: ImageSpec, column: str, classes: Sequence[str]) -> Probe:
    """The model of a recipe `LinearProbe`, on the features of `graph`, see `training.image_backbone.read_graph`."""
    from pipelines.training.image_backbone import features_of
    from pipelines.training.pictures import Pictures

    black = Pictures(np.zeros((1, spec.height, spec.width, len(spec.mode)), np.uint8), np.zeros(1, np.int64))
    width = features_of(graph, spec, black, _silent).shape[1]
    return Probe(column=column, spec=spec, graph=graph.SerializeToString(), width=width, classes=classes)


def probe_told(told: Mapping[str, Any], inputs: Sequence[Input], classes: Sequence[str]) -> Probe:
    """The model that `Probe.told` describes.

    Raises:
        ValueError, KeyError: it describes none.
    """
    column = next(item.name for item in inputs if item.dtype == "bytes")
    try:
        graph = _graph(base64.b64decode(told["graph"], validate=True))
        made = probe_of(graph, ImageSpec.model_validate(told["spec"]), column, classes)
    except (KeyError, ValueError):
        raise
    except Exception as err:  # of the libraries that read and run it
        raise ValueError(f"a graph that cannot be read: {str(err)[:200]}") from err
    if made.width != told["width"]:
        raise ValueError(f"a graph of {made.width} features, expected {told['width']}")
    return made


def residual_of(recipe: Any, column: str, classes: Sequence[str]) -> Residual:
    """The model of a recipe `ResnetImage`."""
    image, model = recipe.image, recipe.model
    given = {"mean": image.mean, "std": image.std} if image.mean and image.std else {}
    return Residual(
        column=column,
        spec=image.spec(softmax=True, **given),
        agreed=not given,
        widths=model.widths,
        blocks=model.blocks,
        norm=model.norm,
        halve=model.halve,
        augment=recipe.augment,
        smoothing=recipe.training.smoothing,
        classes=classes,
    )


def residual_told(told: Mapping[str, Any], inputs: Sequence[Input], classes: Sequence[str]) -> Residual:
    """The model that `Residual.told` describes.

    Raises:
        ValueError, KeyError: it describes none.
    """
    sizes = {name: TypeAdapter(Sizes).validate_python(told[name]) for name in ("widths", "blocks")}
    made = Residual(
        column=next(item.name for item in inputs if item.dtype == "bytes"),
        spec=ImageSpec.model_validate(told["spec"]),
        agreed=bool(told["agreed"]),
        norm=str(told["norm"]),
        halve=str(told["halve"]),
        augment=TypeAdapter(AugmentConfig).validate_python(told["augment"]),
        smoothing=float(told["smoothing"]),
        classes=classes,
        **sizes,
    )
    made.layout()  # sizes that are none say so here
    return made
