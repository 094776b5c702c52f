"""What the recipes that train a network of images share: the loop over augmented batches, and scores of many images."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass as plain
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.recipes.image.base import ImageRecipe, Images
from pipelines.search_space import Dimension
from pipelines.task import STRICT, Progress
from pipelines.training.loop import LoopConfig
from pipelines.training.pictures import AugmentConfig, Mix, drawn_mix
from pipelines.training.shards import ClassReader, LoaderConfig, ShardLoader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.training.distributed import Group
    from pipelines.training.privacy import PrivacyConfig


_HELD = 5_000  # of the images that are streamed, those that are decoded beforehand


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageLoop(LoopConfig):
    """How long and how to train.

    smoothing: share of a label that goes to all classes (C. Szegedy et al.: Rethinking the Inception architecture,
    2016).  momentum: of the gradients, as Nesterov has it.  precision: bf16 rounds within the network.
    start_scale: share of the sides that images have in the first epoch; they grow to all of it by three quarters of the
    epochs, which makes the first ones cheaper (M. Tan, Q. Le: EfficientNetV2, 2021).
    """

    epochs: int = 15
    patience: int = 15
    batch_size: int = 128
    learning_rate: float = 0.2
    weight_decay: float = 5e-4
    warmup: int = 100
    schedule: Literal["constant", "linear"] = "linear"
    clip: float = 5.0
    average: float = 0.99
    smoothing: float = 0.1
    momentum: float = 0.9
    precision: Literal["fp32", "bf16"] = "fp32"
    start_scale: Annotated[float, Field(ge=0.25, le=1)] = 1.0

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "learning_rate": Dimension(low=0.02, high=0.6, log=True),
        "weight_decay": Dimension(low=0.00005, high=0.005, log=True),
        "smoothing": Dimension(low=0.0, high=0.2),
    }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NeuralImage(ImageRecipe):
    """Base of the recipes that train with torch."""

    training: ImageLoop = field(default_factory=ImageLoop)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def decoded(self) -> int:
        """Of images that are streamed some are held, for what is learned of colors, of int8 and of strange images."""
        return _HELD if self.loader.workers and not self.is_private else 0

    reports: ClassVar[str] = "valid_loss"


def begin(config: NeuralImage) -> str:
    """Seed torch; the device to train on."""
    from pipelines.training.device import import_torch, resolve_device

    device = resolve_device(config.training.device)
    torch = import_torch()
    torch.set_num_threads(config.training.threads)
    torch.manual_seed(config.seed)
    return device


def fit(
    model: Any,
    images: Images,
    config: NeuralImage,
    device: str,
    checkpoints: Path,
    progress: Progress,
    private: tuple[PrivacyConfig, Mapping[str, Any]] | None = None,
) -> list[dict[str, float]]:
    """Train `model`, of pixels to logits, ending with the weights of the epoch with the least loss of ``valid``.

    private: what is asked, and what was paid for it; then with those of the last epoch.
    """
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy

    from pipelines.data.file_rows import digest_of
    from pipelines.task import dump_config
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.distributed import group
    from pipelines.training.linear_text import class_weight
    from pipelines.training.loop import eager, run_epochs
    from pipelines.training.pictures import drawn_changes, shuffled
    from pipelines.training.privacy import drawn, private_loop, privately, steps_of

    here, train, spec = group(), images.train, images.spec
    training = private_loop(config.training) if private else config.training
    classes, is_streamed = len(images.classes), config.decoded() > 0
    known = _labels(images) if is_streamed else train.labels
    balanced = class_weight(known, classes) if training.class_weights else np.ones(classes)
    weight = torch.tensor(balanced, dtype=torch.float32, device=device)
    size = training.batch_size if private else min(training.batch_size, max(4, len(known) // 10))
    share, steps = steps_of(len(known), size)
    eye = np.eye(classes, dtype=np.float32)
    reader, part = ClassReader(spec, images.classes, config.augment), images.dataset / "train.parquet"
    loader: ShardLoader | None = None
    if is_streamed:
        loader = ShardLoader.of_part(part, images.column, reader, size=size, seed=config.seed, config=config.loader)

    def batches(epoch: int) -> Any:
        rng = np.random.default_rng([config.seed, epoch])
        for found in drawn(len(train.labels), share, steps) if private else shuffled(len(train.labels), size, rng):
            # A step without rows is a row that does not count.
            rows = np.sort(found) if len(found) else np.zeros(1, np.int64)
            # Every process draws the same changes for all images, and makes those of its share.
            changes = drawn_changes((len(rows), *train.pixels.shape[1:]), config.augment, rng)
            mine = share_of(here, (len(rows), *train.pixels.shape[1:3]), config.augment, rng)
            pixels = changes.made(train.pixels[rows[mine.needed]], mine.needed)
            yield shared(pixels, train.labels[rows], mine, epoch, float(len(found) > 0) if private else None)

    def shared(pixels: Any, labels: Any, mine: BatchShare, epoch: int, weighed: float | None) -> tuple[Any, Any, float]:
        """This process's share of a batch, and what its loss is multiplied by; `labels` are those of all of it."""
        targets = mine.mix.targets(eye[labels]) if mine.mix else eye[labels]
        total = float((targets @ balanced.astype(np.float32)).sum())
        factor = here.size / mine.copies / total if weighed is None else weighed
        values = scaled(_tensor(spec.normalised(mine.made(pixels)), device), training, epoch)
        return values, _tensor(targets[mine.rows], device), factor

    def streamed(epoch: int, at: int, rows: int) -> BatchShare:
        rng = np.random.default_rng([config.seed, epoch, at])
        return share_of(here, (rows, spec.height, spec.width), config.augment, rng)

    class Streamed:
        """Batches of `loader`, which begins where it is told to."""

        def __call__(self, epoch: int) -> Any:
            return self.from_step(epoch, 0)

        def from_step(self, epoch: int, step: int) -> Any:
            assert loader is not None
            needed = (lambda *batch: streamed(*batch).needed) if here.size > 1 else None
            for at, (pixels, labels) in enumerate(loader.epoch(epoch, step, needed), step):
                yield shared(pixels, labels, streamed(epoch, at, len(labels)), epoch, None)

    def loss(current: Any, batch: Any) -> Any:
        """The weighted mean over the whole batch, of which this is a share."""
        with autocast(training.precision, device):
            logits = current(batch[0])
        found = cross_entropy(
            logits.float(), batch[1], weight=weight, reduction="sum", label_smoothing=training.smoothing
        )
        return found * batch[2]

    def evaluate(current: Any) -> dict[str, float]:
        found = torch.from_numpy(scores(current, images.valid.pixels, config, images, device))
        target = torch.from_numpy(images.valid.labels)
        accuracy = float((found.argmax(dim=1) == target).double().mean())
        return {"valid_loss": float(cross_entropy(found, target)), "valid_accuracy": accuracy}

    optimizer = eager(torch.optim.SGD)(
        [one for one in model.parameters() if one.requires_grad],
        lr=training.learning_rate,
        momentum=training.momentum,
        nesterov=training.momentum > 0,
        weight_decay=training.weight_decay,
    )
    learned = digest_of(images.dataset / "train.parquet") if loader else train.fingerprint()
    named = (dump_config(config), device, learned, images.valid.fingerprint(), spec.model_dump_json())
    decides = "|".join((*named, private[1]["id"])) if private else "|".join(named)
    counted = steps if private else sum(1 for _ in shuffled(len(train.labels), size, np.random.default_rng(0)))
    asks = privately(model, optimizer, private, size, "--set model.norm=group")
    with asks as steps_by, loader.running() if loader else nullcontext():
        return run_epochs(
            model if private else model.to(memory_format=torch.channels_last),
            steps_by,
            batches=Streamed() if loader else batches,
            steps_per_epoch=len(loader) if loader else counted,
            loss=loss,
            evaluate=evaluate,
            monitor=None if private else "valid_loss",
            config=training,
            seed=config.seed,
            checkpoint=Checkpoint(checkpoints / f"{config.recipe}.pt", decides),
            progress=progress,
        )


@plain(frozen=True)
class BatchShare:
    """What a process has of a batch.

    rows: that it learns from.  needed: these and those that are mixed into them, rising.  copies: processes that learn
    from the same rows.
    """

    rows: NDArray[np.int64]
    needed: NDArray[np.int64]
    mix: Mix | None
    copies: int

    def made(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The images of `rows`, mixed, of those of `needed`."""
        import numpy as np

        if self.mix is None:
            return pixels
        own, others = (np.searchsorted(self.needed, rows) for rows in (self.rows, self.mix.order[self.rows]))
        return self.mix.made(pixels[own], pixels[others])


def share_of(here: Group, shape: tuple[int, int, int], augment: AugmentConfig, rng: np.random.Generator) -> BatchShare:
    """This process's share of a batch of this shape: rows, height, width."""
    import numpy as np

    mix, count = drawn_mix(shape, augment, rng), shape[0]
    alone = count < 2 * here.size  # too few to share: each does all of them
    rows = np.arange(count) if alone else here.share(np.arange(count))
    needed = rows if mix is None else np.union1d(rows, mix.order[rows])
    return BatchShare(rows, needed, mix, here.size if alone else 1)


def _labels(images: Images) -> NDArray[np.int64]:
    """The class numbers of all training images, also of those that are not held as pixels."""
    import numpy as np
    import pandas as pd

    numbers = {name: at for at, name in enumerate(images.classes)}
    found = pd.read_parquet(images.dataset / "train.parquet", columns=["label"])["label"]
    return np.array([numbers[name] for name in found], np.int64)


def autocast(precision: str, device: str) -> Any:
    """A context in which torch computes as `precision` says."""
    import torch

    return torch.autocast(device.partition(":")[0], torch.bfloat16) if precision == "bf16" else nullcontext()


def _tensor(values: Any, device: str) -> Any:
    import torch

    made = torch.from_numpy(values).to(device)
    return made.contiguous(memory_format=torch.channels_last) if made.ndim == 4 else made


def scaled(values: Any, training: ImageLoop, epoch: int) -> Any:
    """Images (rows, channels, height, width) as epoch `epoch` (0, 1, ...) has them, see `ImageLoop.start_scale`.

    Sides are multiples of 4 and 8 at least, or what they are.
    """
    import torch
    from torch.nn.functional import interpolate

    grown = min(1.0, 4 * epoch / max(3 * training.epochs, 1))
    share = training.start_scale + (1 - training.start_scale) * grown
    sides = [min(side, max(8, 4 * round(side * share / 4))) if share < 1 else side for side in values.shape[2:]]
    if sides == list(values.shape[2:]):
        return values
    small = interpolate(values, size=sides, mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def scores(
    model: Any, pixels: NDArray[np.uint8], config: NeuralImage, images: Images, device: str, size: int = 256
) -> NDArray[np.float64]:
    """Logits, float64, shape (rows, classes)."""
    import numpy as np
    import torch

    model.eval()
    found = []
    with torch.no_grad(), autocast(config.training.precision, device):
        for at in range(0, len(pixels), size):
            values = _tensor(images.spec.normalised(pixels[at : at + size]), device)
            found.append(model(values).float().double().cpu().numpy())
    return np.concatenate(found)
