"""What the recipes of every classifier of images share: their settings, and how a training begins and ends."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass as plain
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from contracts.images import SPEC, ImageSpec
from pipelines.recipes.image.served import choose_form
from pipelines.recipes.text.settings import SplitConfig
from pipelines.task import STRICT, Progress, Task, TaskConfig, class_output
from pipelines.training.distributed import group
from pipelines.training.image_network import show_vector

if TYPE_CHECKING:
    from pipelines.training.pictures import Pictures


# How colours are scaled where no image may be looked at.
EVEN = {"RGB": (0.5, 0.5, 0.5), "L": (0.5,)}
WIDTH = {"RGB": (0.25, 0.25, 0.25), "L": (0.25,)}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageConfig:
    """The pixels that a file becomes, in training as in serving, see `contracts.images.ImageSpec`.

    mean, std: of each channel, from 0 to 1; () is what the training images have.
    """

    width: Annotated[int, Field(ge=8, le=1024)] = 32
    height: Annotated[int, Field(ge=8, le=1024)] = 32
    mode: Literal["RGB", "L"] = "RGB"
    fit: Literal["stretch", "crop", "pad"] = "crop"
    crop_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    resample: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def spec(self, **more: Any) -> ImageSpec:
        """What training and serving do with a file; `more`: fields of it that are known later."""
        names = ("width", "height", "mode", "fit", "crop_share", "resample")
        return ImageSpec(**{name: getattr(self, name) for name in names}, **more)

    def in_steps_of(self, stride: int) -> None:
        """Check the sides.

        Raises:
            ValueError: one of them is no multiple of `stride`.
        """
        for name in ("width", "height"):
            side = getattr(self, name)
            if side % stride:
                near = max(stride, round(side / stride) * stride)
                raise ValueError(f"image.{name} is {side}, expected a multiple of {stride}, such as {near}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AbstainConfig:
    """Whether the model says of an image that it is unlike those that it has learned from.

    false_refusals: share of the validation images that it may say so of; 0: it never does, and has no score.
    other: a source of images of something else, by which the score is measured beside those that are made for it.
    """

    false_refusals: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    other: str = ""


@plain(frozen=True, kw_only=True)
class Images:
    """What a recipe learns from.

    spec: how files became these pixels.  scratch: a folder that goes when training ends.
    """

    task: Task
    train: Pictures
    valid: Pictures
    classes: list[str]
    spec: ImageSpec
    dataset: Path
    column: str
    scratch: Path


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageRecipe(TaskConfig):
    """Base of the recipes of a classifier; a subclass has `learn`.

    labels: name in the source -> name of the class, where they differ.  order: the classes as a scale, from the lowest
    to the highest; () where they have no order.  int8: serve weights of 8 bits, where they cost at most
    `gate.int8_tolerance` of `gate.primary` on the validation images.
    """

    image: ImageConfig = field(default_factory=ImageConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    labels: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    int8: bool = False
    abstain: AbstainConfig = field(default_factory=AbstainConfig)

    def training_part(self) -> Self:
        """Keeps what weights of 8 bits are measured by, where training chooses them."""
        if not self.int8:
            return super().training_part()
        part = super().training_part()
        kept = replace(part.gate, primary=self.gate.primary, int8_tolerance=self.gate.int8_tolerance)
        return replace(part, gate=kept)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Learn from the images; writes the files that `contracts.engines.onnx_image` serves."""
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pixels-", dir=out.parent) as scratch:
            images = read_images(task, self, dataset, Path(scratch))
            found = self.learn(images, out, checkpoints, progress)
            found = self.served(images, found, out) if group().leads else found
        return {"engine": "onnx", "output": class_output(task, self, images.classes), "decision": None, **found}

    def by_sites(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Train by those of the section ``federation``, see `pipelines.federation.train.train_federated`."""
        from pipelines.federation.train import train_federated

        classes = class_names(self, dataset)
        found = train_federated(self, task, classes, dataset, out, checkpoints, progress)
        return {**found, "output": class_output(task, self, classes)}

    def served(self, images: Images, found: dict[str, Any], out: Path) -> dict[str, Any]:
        """Give a model that was written the form and the outputs that it is served with; what `found` is with these."""
        if self.int8:
            chosen = choose_form(out, images, self)
            found = {**found, **chosen, "parameters": {**found["parameters"], **chosen["parameters"]}}
        if not self.is_private:
            show_vector(out / "model.onnx")
            if self.abstain.false_refusals:
                found["parameters"] |= _with_score(out, images, self.abstain.false_refusals)
        return found

    def decoded(self) -> int:
        """How many of the training images `learn` gets as pixels, evenly from all; 0: all of them."""
        return 0

    def learn(self, images: Images, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Write the model to `out`; returns at least ``history``, ``parameters`` and ``device`` of `train`'s result."""
        raise PlatformError(
            f"recipe {self.recipe} cannot train",
            detail=f"its class {type(self).__name__} has no method learn",
            fix="give it one, as the recipes in pipelines/recipes/image/ have",
            code="bad_task",
        )


def _with_score(out: Path, images: Images, refused: float) -> dict[str, Any]:
    from pipelines.training.ood_score import add_ood_score

    spec = ImageSpec.model_validate_json((out / SPEC).read_bytes())
    train = images.train
    return add_ood_score(out / "model.onnx", spec, train.pixels, train.labels, images.valid.pixels, refused)


def class_names(config: ImageRecipe, dataset: Path) -> list[str]:
    """The classes of a data set, in their order where they have one."""
    import pandas as pd

    parts = [pd.read_parquet(dataset / f"{name}.parquet", columns=["label"]) for name in ("train", "valid")]
    return list(config.order) or sorted(set().union(*(part["label"] for part in parts)))


def read_images(task: Task, config: ImageRecipe, dataset: Path, scratch: Path) -> Images:
    """The parts ``train`` and ``valid`` of `dataset`, decoded."""
    from pipelines.training.pictures import channel_scale, decode_part

    column = next(item.name for item in task.inputs(config) if item.dtype == "bytes")
    classes, image = class_names(config, dataset), config.image
    spec = image.spec(softmax=True)
    train = decode_part(dataset / "train.parquet", column, spec, classes, scratch, config.decoded())
    valid = decode_part(dataset / "valid.parquet", column, spec, classes, scratch)
    # Of a private training they are as of no image, but of all colours alike.
    mean, deviation = channel_scale(train.pixels) if not config.is_private else (EVEN[image.mode], WIDTH[image.mode])
    spec = spec.model_copy(update={"mean": image.mean or mean, "std": image.std or deviation})
    return Images(
        task=task, train=train, valid=valid, classes=classes, spec=spec, dataset=dataset, column=column, scratch=scratch
    )


def write_spec(out: Path, spec: ImageSpec) -> None:
    """Write ``image.json``."""
    (out / SPEC).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
