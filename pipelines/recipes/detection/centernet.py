"""Recipe `centernet`: a small detector without anchors, from scratch; and what trains any such detector.

Torch, then ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.detection.base import DetectionRecipe, Labelled
from pipelines.search_space import Dimension
from pipelines.task import STRICT, Progress
from pipelines.training.loop import LoopConfig
from pipelines.training.scenes import SceneAugment, SceneReader
from pipelines.training.shards import LoaderConfig, ShardLoader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.images import ImageSpec
    from pipelines.training.scenes import Scenes

_HELD = 2_000  # of the images that are streamed, those that are decoded beforehand
_Width = Annotated[int, Field(ge=4, le=1024)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DetectorModel:
    """What answers on the maps of a network.

    head: channels before each answer.  mirror: answer with the mean over an image and its mirror image, which takes
    twice as long, or over all four of them, left to right and top to bottom, which takes four times as long.
    """

    head: _Width = 48
    mirror: Literal["no", "across", "both"] = "no"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CenternetModel(DetectorModel):
    """The network, see `pipelines.training.detector.residual_body`."""

    widths: Annotated[tuple[_Width, ...], Field(min_length=2, max_length=7)] = (16, 24, 48, 96)
    blocks: Annotated[int, Field(ge=0, le=16)] = 1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DetectorLoop(LoopConfig):
    """How long and how to train; the weights of the epoch with the highest average precision of ``valid`` are kept.

    precision: bf16 rounds within the network, and is faster where the processor has it.
    """

    epochs: int = 40
    patience: int = 40
    batch_size: int = 8
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    warmup: int = 60
    schedule: Literal["constant", "linear"] = "linear"
    clip: float = 10.0
    average: float = 0.995
    class_weights: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "learning_rate": Dimension(low=0.001, high=0.01, log=True),
        "weight_decay": Dimension(low=0.005, high=0.1, log=True),
    }

    @model_validator(mode="after")
    def _unweighted(self) -> Self:
        if self.class_weights:
            raise ValueError("a detector has no class weights: its loss counts each object alike")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NeuralDetector(DetectionRecipe):
    """Base of the recipes that train a detector without anchors; a subclass has `body` and `stride`."""

    model: DetectorModel = field(default_factory=DetectorModel)
    training: DetectorLoop = field(default_factory=DetectorLoop)
    augment: SceneAugment = field(default_factory=SceneAugment)
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def decoded(self) -> int:
        """Of images that are streamed some are held, for what is learned of colors."""
        return _HELD if self.loader.workers else 0

    reports: ClassVar[str] = "valid_loss"

    @property
    def stride(self) -> int:
        """The sides of images are multiples of it."""
        return 32

    def body(self, spec: ImageSpec) -> tuple[Any, Sequence[int]]:
        """A network of pixels to maps at strides 4, 8 and so on, and their channels."""
        raise PlatformError(
            f"recipe {self.recipe} has no network",
            fix=f"give its class {type(self).__name__} a method body, as CenternetRecipe has",
            code="bad_task",
        )

    @model_validator(mode="after")
    def _even(self) -> Self:
        self.image.in_steps_of(self.stride)
        return self

    def learn(self, images: Labelled, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Train and write the graph."""
        from pipelines.training.detector import detector, export, mirrored_too
        from pipelines.training.device import import_torch, resolve_device
        from pipelines.training.distributed import group

        device, torch = resolve_device(self.training.device), import_torch()
        torch.set_num_threads(self.training.threads)
        torch.manual_seed(self.seed)
        body, widths = self.body(images.spec)
        network = detector(len(images.classes), body, widths, self.model.head).to(device)
        history = fit(network, images, self, device, checkpoints, progress)
        if group().leads:
            sides, mirror = (len(images.spec.mode), images.spec.height, images.spec.width), self.model.mirror
            served = network if mirror == "no" else mirrored_too(network, True, mirror == "both")
            (out / "model.onnx").write_bytes(export(served, sides, self.thresholds.overlap))
        weights = sum(one.numel() for one in network.parameters())
        return {
            "history": history,
            "parameters": {"epochs_run": len(history), "weights": weights},
            "device": device,
        }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CenternetRecipe(NeuralDetector):
    """A detector from scratch."""

    model: CenternetModel = field(default_factory=CenternetModel)

    @property
    def stride(self) -> int:
        """Of the coarsest map."""
        return int(2 ** len(self.model.widths))

    def body(self, spec: ImageSpec) -> tuple[Any, Sequence[int]]:
        """A small residual network."""
        from pipelines.training.detector import residual_body

        return residual_body(len(spec.mode), self.model.widths, self.model.blocks), self.model.widths[1:]


def fit(
    model: Any, images: Labelled, config: NeuralDetector, device: str, checkpoints: Path, progress: Progress
) -> list[dict[str, float]]:
    """Train `model`, ending with the weights of the epoch with the least ``valid_error``, see `quality`."""
    import numpy as np
    import torch

    from pipelines.data.file_rows import digest_of, row_count
    from pipelines.recipes.image.neural import autocast
    from pipelines.task import dump_config
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.detector import STRIDE
    from pipelines.training.detector_loss import detector_loss
    from pipelines.training.distributed import group
    from pipelines.training.loop import eager, run_epochs
    from pipelines.training.pictures import shuffled
    from pipelines.training.scenes import drawn_change

    here, train, training = group(), images.train, config.training
    learned = images.dataset / "train.parquet"
    known = row_count(learned) if config.decoded() else len(train.pixels)
    size = min(training.batch_size, max(1, known // 4))
    reader, part = SceneReader(images.spec, images.classes, config.augment), images.dataset / "train.parquet"
    loader: ShardLoader | None = None
    if config.decoded():
        loader = ShardLoader.of_part(part, images.column, reader, size=size, seed=config.seed, config=config.loader)

    def mine_of(rows: int) -> NDArray[np.int64]:
        return here.share(np.arange(rows)) if rows >= 2 * here.size else np.arange(rows)

    def batches(epoch: int) -> Any:
        rng = np.random.default_rng([config.seed, epoch])
        for found in shuffled(len(train.pixels), size, rng):
            # Every process draws the same changes for all images, and makes those of its share.
            rows, mine = np.sort(found), mine_of(len(found))
            changes = [drawn_change(train.pixels.shape[1:], config.augment, rng) for _ in rows]
            pixels = np.stack([changes[at].made(train.pixels[rows[at]]) for at in mine])
            yield batch(pixels, [change.scene(train.scenes[at]) for change, at in zip(changes, rows, strict=True)])

    def batch(pixels: Any, scenes: Sequence[Any]) -> Any:
        """Pixels of this process's rows, what they ask for, and the sums that their loss is divided by."""
        wanted, total = asked(scenes, images)
        mine = mine_of(len(scenes))
        copies = here.size if len(scenes) >= 2 * here.size else 1
        values = tensor(images.spec.normalised(pixels), device)
        return values, [tensor(one[mine], device) for one in wanted], [one / copies for one in total]

    class Streamed:
        """Batches of `loader`, which begins where it is told to."""

        def __call__(self, epoch: int) -> Any:
            return self.from_step(epoch, 0)

        def from_step(self, epoch: int, step: int) -> Any:
            assert loader is not None
            share = (lambda epoch, at, rows: mine_of(rows)) if here.size > 1 else None
            for pixels, scenes in loader.epoch(epoch, step, share):
                yield batch(pixels, list(scenes))

    def loss(current: Any, batch: Any) -> Any:
        with autocast(training.precision, device):
            logits, sides = current(batch[0])
        return detector_loss(logits.float(), sides.float(), *batch[1], stride=STRIDE, total=batch[2])

    optimizer = eager(torch.optim.AdamW)(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    prints = (digest_of(learned) if loader else train.fingerprint(), images.valid.fingerprint())
    named = (dump_config(config), device, *prints, images.spec.model_dump_json(), *images.classes)
    with loader.running() if loader else nullcontext():
        return run_epochs(
            model.to(memory_format=torch.channels_last),
            optimizer,
            batches=Streamed() if loader else batches,
            steps_per_epoch=sum(1 for _ in shuffled(known, size, np.random.default_rng(0))),
            loss=loss,
            evaluate=lambda current: quality(current, images, config, device),
            monitor="valid_error",
            config=training,
            seed=config.seed,
            checkpoint=Checkpoint(checkpoints / f"{config.recipe}.pt", "|".join(named)),
            progress=progress,
        )


def asked(scenes: Sequence[Any], images: Labelled) -> tuple[list[Any], list[float]]:
    """Targets of some images, stacked, and the sums that the loss of all of them is divided by."""
    import numpy as np

    from pipelines.training.detector import STRIDE
    from pipelines.training.scenes import targets

    cells = (images.spec.height // STRIDE, images.spec.width // STRIDE)
    parts = [targets(scene, len(images.classes), cells, STRIDE) for scene in scenes]
    heat, sides, weight = (np.stack(some) for some in zip(*parts, strict=True))
    return [heat, sides, weight], [float((heat == 1).sum()), weight.sum()]


def quality(model: Any, images: Labelled, config: NeuralDetector, device: str) -> dict[str, float]:
    """``valid_loss`` of the validation images, and ``valid_error``, 1 - mean average precision, without suppression."""
    import numpy as np
    import torch

    from contracts.problems.detection import Detections
    from pipelines.evaluation.box_measures import Matched
    from pipelines.recipes.image.neural import autocast
    from pipelines.training.detector import MOST, STRIDE, decoded
    from pipelines.training.detector_loss import detector_loss

    valid: Scenes = images.valid
    step, losses, found = 16, [], []
    model.eval()
    with torch.no_grad():
        for at in range(0, len(valid.pixels), step):
            pixels = valid.pixels[at : at + step]
            wanted, total = asked(valid.scenes[at : at + step], images)
            with autocast(config.training.precision, device):
                logits, sides = model(tensor(images.spec.normalised(pixels), device))
            logits, sides = logits.float(), sides.float()
            targets = [tensor(one, device) for one in wanted]
            value = detector_loss(logits, sides, *targets, stride=STRIDE, total=total)
            losses.append((len(pixels), float(value)))
            for boxes, each in zip(*(one.cpu().double().numpy() for one in decoded(logits, sides)), strict=True):
                order = np.argsort(-each.max(axis=0), kind="stable")[:MOST]
                found.append(Detections(boxes[order], each.max(axis=0)[order], each.argmax(axis=0)[order]))
    truth = [scene.truth(images.classes) for scene in valid.scenes]
    reached = Matched(truth, found, images.classes, ["map"]).measure()["map"]
    mean = sum(many * value for many, value in losses) / sum(many for many, _ in losses)
    return {"valid_loss": mean, "valid_error": 1.0 - (reached if reached == reached else 0.0)}


def tensor(values: Any, device: str) -> Any:
    """Of an array, on the device."""
    import numpy as np
    import torch

    made = torch.from_numpy(np.ascontiguousarray(values)).to(device)
    return made.contiguous(memory_format=torch.channels_last) if made.ndim == 4 else made
