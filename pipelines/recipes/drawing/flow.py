"""Recipe `flow`: a small U-Net turns noise into images by flow matching, from scratch; torch, then ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.drawing.base import DrawingRecipe, Sketches
from pipelines.search_space import Dimension
from pipelines.task import STRICT, Progress
from pipelines.training.loop import LoopConfig
from pipelines.training.pictures import AugmentConfig
from pipelines.training.shards import ClassReader, LoaderConfig, ShardLoader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HELD = 2_000  # of the images that are streamed, those that are decoded beforehand
_Width = Annotated[int, Field(ge=8, le=1024, multiple_of=8)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FlowLoop(LoopConfig):
    """How long and how to train; the weights are the running mean with the least loss of ``valid``.

    dropped: share of the images that are learned without their class, which guidance needs.  precision: bf16 rounds
    within the network, and is faster where the processor has it.
    """

    epochs: int = 50
    patience: int = 50
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 100
    schedule: Literal["constant", "linear"] = "linear"
    average: float = 0.998
    class_weights: bool = False
    dropped: Annotated[float, Field(ge=0, lt=1)] = 0.1
    precision: Literal["fp32", "bf16"] = "fp32"

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "learning_rate": Dimension(low=0.0003, high=0.004, log=True),
        "average": Dimension(low=0.99, high=0.999),
    }

    @model_validator(mode="after")
    def _unweighted(self) -> Self:
        if self.class_weights:
            raise ValueError("a model that draws has no class weights: each image counts alike")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UnetModel:
    """Sizes of the network, see `pipelines.training.flow_network.unet`."""

    widths: Annotated[tuple[_Width, ...], Field(min_length=1, max_length=6)] = (32, 64)
    blocks: Annotated[int, Field(ge=1, le=8)] = 1
    patch: Annotated[int, Field(ge=1, le=8)] = 2
    heads: Annotated[int, Field(ge=1, le=32)] = 4

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.widths[-1] % self.heads:
            raise ValueError(f"heads is {self.heads}, which does not divide the last of widths, {self.widths[-1]}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NeuralFlow(DrawingRecipe):
    """Base of the recipes that learn by flow matching; a subclass has `network` and `stride`."""

    training: FlowLoop = field(default_factory=FlowLoop)
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def decoded(self) -> int:
        """Of images that are streamed some are held, for what is learned of black and white."""
        return _HELD if self.loader.workers else 0

    reports: ClassVar[str] = "valid_loss"

    @property
    def stride(self) -> int:
        """The sides of images are multiples of it."""
        return 1

    def network(self, classes: int) -> Any:
        """A network of images, times and class numbers (`classes` is none) to directions."""
        raise PlatformError(
            f"recipe {self.recipe} has no network",
            fix=f"give its class {type(self).__name__} a method network, as FlowRecipe has",
            code="bad_task",
        )

    @model_validator(mode="after")
    def _even(self) -> Self:
        self.image.in_steps_of(self.stride)
        return self

    def learn(self, images: Sketches, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Train and write the graph."""
        from pipelines.training.device import import_torch, resolve_device
        from pipelines.training.distributed import group
        from pipelines.training.flow_network import export

        device, torch = resolve_device(self.training.device), import_torch()
        torch.set_num_threads(self.training.threads)
        torch.manual_seed(self.seed)
        network = self.network(len(images.classes)).to(device)
        history = fit(network, images, self, device, checkpoints, progress)
        if group().leads:
            shape = (len(images.spec.mode), images.spec.height, images.spec.width)
            (out / "model.onnx").write_bytes(export(network, shape))
        weights = sum(one.numel() for one in network.parameters())
        return {
            "history": history,
            "parameters": {"epochs_run": len(history), "weights": weights},
            "device": device,
        }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FlowRecipe(NeuralFlow):
    """A U-Net from scratch."""

    model: UnetModel = field(default_factory=UnetModel)

    @property
    def stride(self) -> int:
        """Of the coarsest map."""
        return int(self.model.patch * 2 ** (len(self.model.widths) - 1))

    def network(self, classes: int) -> Any:
        """See `pipelines.training.flow_network.unet`."""
        from pipelines.training.flow_network import unet

        model = self.model
        return unet(classes, len(self.image.mode), model.widths, model.blocks, model.patch, model.heads)


def fit(
    model: Any, images: Sketches, config: NeuralFlow, device: str, checkpoints: Path, progress: Progress
) -> list[dict[str, float]]:
    """Train `model`, ending with the running mean of its weights at the epoch with the least loss of ``valid``.

    Times of training are from the logistic normal distribution (P. Esser et al.: Scaling rectified flow transformers,
    2024), which asks most often where the direction is hardest to tell.
    """
    import numpy as np
    import torch

    from pipelines.data.file_rows import digest_of, row_count
    from pipelines.task import dump_config
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.distributed import group
    from pipelines.training.loop import eager, run_epochs
    from pipelines.training.pictures import shuffled

    here, train, training = group(), images.train, config.training
    part, is_streamed = images.dataset / "train.parquet", config.decoded() > 0
    count = row_count(part) if is_streamed else len(train.labels)
    size = min(training.batch_size, max(4, count // 4))
    none = len(images.classes)
    reader = ClassReader(images.spec, images.classes, AugmentConfig(flip=False, crop=0.0))
    loader: ShardLoader | None = None
    if is_streamed:
        loader = ShardLoader.of_part(part, images.column, reader, size=size, seed=config.seed, config=config.loader)

    def mine_of(rows: int) -> NDArray[np.int64]:
        return here.share(np.arange(rows)) if rows >= here.size else np.arange(rows)

    def batches(epoch: int) -> Any:
        rng = np.random.default_rng([config.seed, epoch])
        for rows in shuffled(count, size, rng):
            yield batch(train.pixels[rows[mine_of(len(rows))]], train.labels[rows], rng)

    def batch(pixels: NDArray[np.uint8], labels: NDArray[np.int64], rng: np.random.Generator) -> Sequence[Any]:
        """This process's share of a batch: `pixels` are those of it, `labels` those of all."""
        dropped = rng.random(len(labels)) < training.dropped
        mine = mine_of(len(labels))
        made = drawn_batch(pixels, np.where(dropped, none, labels)[mine], rng, len(labels), mine)
        return tuple(_tensor(one, device) for one in made)

    class Streamed:
        """Batches of `loader`, which begins where it is told to."""

        def __call__(self, epoch: int) -> Any:
            return self.from_step(epoch, 0)

        def from_step(self, epoch: int, step: int) -> Any:
            assert loader is not None
            needed = (lambda *asked: mine_of(asked[-1])) if here.size > 1 else None
            for at, (pixels, labels) in enumerate(loader.epoch(epoch, step, needed), step):
                yield batch(pixels, labels, np.random.default_rng([config.seed, epoch, at]))

    optimizer = eager(torch.optim.AdamW)(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, betas=(0.9, 0.99)
    )
    learned = digest_of(part) if loader else train.fingerprint()
    named = (dump_config(config), device, learned, images.valid.fingerprint())
    steps = sum(1 for _ in shuffled(count, size, np.random.default_rng(0)))
    with loader.running() if loader else nullcontext():
        return run_epochs(
            model.to(memory_format=torch.channels_last),
            optimizer,
            batches=Streamed() if loader else batches,
            steps_per_epoch=len(loader) if loader else steps,
            loss=lambda current, batch: flow_loss(current, batch, training.precision, device),
            evaluate=lambda current: {"valid_loss": _held_out(current, images, config, device)},
            monitor="valid_loss",
            config=training,
            seed=config.seed,
            checkpoint=Checkpoint(checkpoints / f"{config.recipe}.pt", "|".join(named)),
            progress=progress,
        )


def drawn_batch(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    rng: np.random.Generator,
    count: int = 0,
    mine: Any = slice(None),
) -> Sequence[Any]:
    """Images from -1 to 1 with the channels first, noise, times and labels.

    count: rows of the whole batch, of which `pixels` and `labels` are those at `mine`; 0: they are all of it.
    """
    import numpy as np

    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1))
    noise = rng.standard_normal((count or len(images), *images.shape[1:]), dtype=np.float32)
    times = np.asarray(1 / (1 + np.exp(-rng.standard_normal(len(noise)))), np.float32)
    return (images, noise[mine], times[mine], labels)


def flow_loss(model: Any, batch: Sequence[Any], precision: str, device: str) -> Any:
    """The mean square of what is missing to the direction from noise to image."""
    from pipelines.recipes.image.neural import autocast

    images, noise, times, labels = batch
    share = times[:, None, None, None]
    with autocast(precision, device):
        found = model(share * images + (1 - share) * noise, times, labels)
    return (found.float() - (images - noise)).square().mean()


def _held_out(model: Any, images: Sketches, config: NeuralFlow, device: str) -> float:
    """The loss of ``valid``, with the same noise in every epoch."""
    import numpy as np
    import torch

    rng, valid, step, total = np.random.default_rng(config.seed), images.valid, 256, 0.0
    model.eval()
    with torch.no_grad():
        for at in range(0, len(valid.labels), step):
            some = drawn_batch(valid.pixels[at : at + step], valid.labels[at : at + step], rng)
            batch = tuple(_tensor(one, device) for one in some)
            total += float(flow_loss(model, batch, config.training.precision, device)) * len(some[0])
    return total / len(valid.labels)


def _tensor(values: Any, device: str) -> Any:
    import numpy as np
    import torch

    made = torch.from_numpy(np.ascontiguousarray(values)).to(device)
    return made.contiguous(memory_format=torch.channels_last) if made.ndim == 4 else made
