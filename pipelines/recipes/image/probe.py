"""Recipe `linear_probe`: a linear model on the features of a pretrained network, which stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.federation.settings import FederationConfig
from pipelines.recipes.image.base import EVEN, WIDTH, ImageRecipe, Images, write_spec
from pipelines.task import STRICT, Progress
from pipelines.training.pictures import Pictures

if TYPE_CHECKING:
    from contracts.images import ImageSpec
    from pipelines.federation.pictures import Probe
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ProbeModel:
    """Where the network is, and how strongly the linear model is held back.

    backbone: folder with ``model.onnx``, or with config.json and model.safetensors as transformers saves them; or
    s3://, ``package:NAME``, or ``hub:ORG/NAME@revision`` where the platform has a hub.  features: a value of the graph;
    "" is its first output.  strengths: candidates for C of the logistic regression; the validation images choose.
    mirror: learn from, and answer with, the mean of the features of an image and of its mirror image, which takes twice
    as long; not where left and right are different classes.
    """

    backbone: str = ""
    features: str = ""
    strengths: Annotated[tuple[float, ...], Field(min_length=1)] = (0.01, 0.1, 1.0)
    mirror: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearProbe(ImageRecipe):
    """A linear model on frozen features; needs no torch where they come from ``model.onnx``."""

    model: ProbeModel = field(default_factory=ProbeModel)
    federation: FederationConfig = field(default_factory=FederationConfig)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """As any recipe of images, or by a federation."""
        if self.federation.is_on:
            return self.by_sites(task, dataset, out, checkpoints, progress)
        return super().train(task, dataset, out, checkpoints, progress)

    def federated(self, task: Task, classes: Sequence[str]) -> Probe:
        """What sites train together: the linear model; the network goes to them as it is.

        Raises:
            PlatformError: ``code="bad_config"`` or ``"bad_weights"``: there is no network, or one that does not fit.
        """
        from pipelines.federation.pictures import probe_of
        from pipelines.training.image_backbone import backbone_here, mirrored_too

        image = self.image
        # Of images that nobody may look at together, colours count alike.
        spec = image.spec(softmax=True, mean=image.mean or EVEN[image.mode], std=image.std or WIDTH[image.mode])
        with backbone_here(self.model.backbone) as place:
            graph = _graph(place, self, spec)
        graph = mirrored_too(graph) if self.model.mirror else graph
        return probe_of(graph, spec, next(one.name for one in task.inputs(self) if one.dtype == "bytes"), classes)

    def finish(
        self, linear: tuple[Any, Any, Any], valid: tuple[Task, ImageSpec, Any, Any, list[str], str], out: Path
    ) -> dict[str, Any]:
        """Write what a federation has trained.

        Args:
            linear: graph of the features, weights and bias.  valid: the coordinator's validation images: their task,
                spec, pixels, labels, classes and column.
        """
        task, spec, pixels, labels, classes, column = valid
        _write(linear, spec, out)
        part = Pictures(pixels, labels)
        images = Images(
            task=task, train=part, valid=part, classes=classes, spec=spec, dataset=out, column=column, scratch=out
        )
        return self.served(images, {"parameters": {}}, out)

    def learn(self, images: Images, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Fit on the features of the training images, and write one graph of both."""
        from pipelines.training.image_backbone import backbone_here, features_of, mirrored_too

        with backbone_here(self.model.backbone) as place:
            graph = _graph(place, self, images.spec)
            graph = mirrored_too(graph) if self.model.mirror else graph
            given, held = (features_of(graph, images.spec, part, progress) for part in (images.train, images.valid))
        found = _fit(given, held, images, self)
        _write((graph, found["weights"], found["bias"]), images.spec, out)
        parameters = {"strength": found["strength"], "features": given.shape[1], "temperature": 1 / found["factor"]}
        return {"history": found["history"], "parameters": parameters, "device": "cpu"}


def _write(linear: tuple[Any, Any, Any], spec: ImageSpec, out: Path) -> None:
    """Write the graph of the features followed by the linear model, and ``image.json``."""
    from pipelines.training.image_backbone import with_linear

    content, name = with_linear(*linear)
    (out / "model.onnx").write_bytes(content)
    write_spec(out, spec.model_copy(update={"input": name, "output": "probabilities"}))


def _graph(place: Path, config: LinearProbe, spec: ImageSpec) -> Any:
    """The graph of features of a file, or of a folder that transformers saved."""
    from pipelines.training.image_backbone import pretrained_network, read_graph

    if place.is_file():
        return read_graph(place, config.model.features, spec)
    import onnx
    from torch import nn

    from pipelines.training.image_network import export

    network = pretrained_network(place, spec, 1)
    network.head = nn.Identity()
    shape = (len(spec.mode), spec.height, spec.width)
    graph = onnx.load_from_string(export(network, shape, 1.0))
    for item in (*graph.graph.output, *graph.graph.node):  # the linear layer's output gets this name
        if hasattr(item, "output"):
            item.output[:] = ["features" if one == "probabilities" else one for one in item.output]
        else:
            item.name = "features"
    return graph


def _fit(given: Any, held: Any, images: Images, config: LinearProbe) -> dict[str, Any]:
    """The logistic regression with the least loss on ``valid``, as weights of the features themselves."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    from pipelines.training.calibration import fit_temperature

    mean, deviation = given.mean(axis=0), np.maximum(given.std(axis=0), 1e-6)
    scaled, unseen = (given - mean) / deviation, (held - mean) / deviation
    classes = list(range(len(images.classes)))
    history: list[dict[str, float]] = []
    models = []
    for strength in config.model.strengths:
        model = LogisticRegression(C=strength, max_iter=500, class_weight="balanced").fit(scaled, images.train.labels)
        models.append(model)
        found = model.predict_proba(unseen)
        accuracy = float((found.argmax(axis=1) == images.valid.labels).mean())
        loss = float(log_loss(images.valid.labels, found, labels=classes))
        history.append({"strength": strength, "valid_loss": loss, "valid_accuracy": accuracy})
    at = min(range(len(models)), key=lambda one: history[one]["valid_loss"])
    weights, bias = models[at].coef_.T, models[at].intercept_
    if len(classes) == 2:  # one row of weights, for the second class
        weights, bias = np.hstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    factor = fit_temperature(unseen @ weights + bias, images.valid.labels)
    weights, bias = weights * factor / deviation[:, None], (bias - (mean / deviation) @ weights) * factor
    return {
        "weights": weights,
        "bias": bias,
        "strength": config.model.strengths[at],
        "factor": factor,
        "history": history,
    }
