"""Images with the boxes of their objects for training: decoded once, changed at random, and what a detector learns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from contracts.engine import MAX_PIXELS
from contracts.images import ImageSpec, open_image, read_sized, upright
from contracts.problems.detection import Truth, read_truth
from pipelines.task import STRICT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_ROWS = 64
_SPREAD = 0.54  # of a box, the part around its middle that learns; as TTFNet has it
_LEAST_SEEN = 0.3  # of a box that is cut by an edge, the part that must be left


@settings(frozen=True, kw_only=True, config=STRICT)
class SceneAugment:
    """How training images are changed at random, their boxes with them.

    flip, upend: mirror half of them left to right, or top to bottom; not where a mirrored object is another one.
    scale: by which factor they grow or shrink at most.  shift: by which share of their sides they are moved at most.
    color: by which share brightness, contrast and each channel change at most.
    """

    flip: bool = True
    upend: bool = False
    scale: Annotated[float, Field(ge=1, le=4)] = 1.25
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    color: Annotated[float, Field(ge=0, lt=1)] = 0.2


@dataclass(frozen=True)
class Scene:
    """The objects of an image in pixels of the network's input.

    boxes: left, top, right, bottom, shape (objects, 4).  labels: their class numbers.  crowd: which of them are areas
    of many objects, where nothing is learned.
    """

    boxes: Floats
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    def truth(self, classes: Sequence[str]) -> list[Truth]:
        """The same, class by its name."""
        rows = zip(self.boxes.tolist(), self.labels, self.crowd, strict=True)
        return [Truth(classes[label], tuple(box), bool(crowd)) for box, label, crowd in rows]


@dataclass(frozen=True)
class Scenes:
    """The images of one part, uint8, shape (rows, height, width, channels), and what is on each."""

    pixels: NDArray[np.uint8]
    scenes: Sequence[Scene]

    def fingerprint(self) -> str:
        """Names the images and their objects."""
        digest = hashlib.sha256()
        for scene in self.scenes:
            digest.update(scene.boxes.tobytes() + scene.labels.tobytes() + scene.crowd.tobytes() + b"|")
        for at in range(0, len(self.pixels), _ROWS):
            digest.update(self.pixels[at : at + _ROWS].tobytes())
        return digest.hexdigest()


def decode_scenes(
    file: Path, column: str, spec: ImageSpec, classes: Sequence[str], scratch: Path, most: int = 0
) -> Scenes:
    """The images of a part of a data set, through a file in `scratch`, so that memory stays bounded.

    most: so many of them, evenly from all; 0: all.
    """
    import numpy as np

    from pipelines.data.file_rows import row_count, some_rows

    there = row_count(file)
    chosen = np.arange(0, there, max(1, there // most) if most else 1)
    shape = (len(chosen), spec.height, spec.width, len(spec.mode))
    pixels = np.memmap(scratch / f"{file.stem}.pixels", np.uint8, "w+", shape=shape)
    scenes: list[Scene] = []
    for table in some_rows(file, chosen, [column, "label"]):
        for content, label in zip(table.column(column), table.column("label"), strict=True):
            pixels[len(scenes)], size = read_sized(content.as_py(), spec, MAX_PIXELS)
            scenes.append(_scene(label.as_py(), spec, size, classes))
    return Scenes(pixels, scenes)


def _scene(label: str, spec: ImageSpec, size: tuple[int, int], classes: Sequence[str]) -> Scene:
    import numpy as np

    truth = read_truth(label)
    boxes = np.array([one.box for one in truth], np.float32).reshape(-1, 4)
    return Scene(
        boxes * np.tile(np.array(spec.factors(*size), np.float32), 2),
        np.array([classes.index(one.label) for one in truth], np.int64),
        np.array([one.crowd for one in truth], bool),
    )


def changed(
    pixels: NDArray[np.uint8], scene: Scene, config: SceneAugment, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Scene]:
    """An image, changed at random, and where its objects are then; those that are mostly out of it are left out."""
    change = drawn_change(pixels.shape, config, rng)
    return change.made(pixels), change.scene(scene)


@dataclass(frozen=True)
class SceneChange:
    """What was drawn for an image: a point p of it comes to grow * p + start, each of the shape (2,).

    sides: width and height.  light: factors of the channels, contrast: a factor; None: of none.
    """

    grow: NDArray[np.float64]
    start: NDArray[np.float64]
    sides: tuple[int, int]
    light: NDArray[np.float64] | None
    contrast: float

    def made(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image as it is then."""
        import numpy as np
        from PIL import Image

        grow, start = self.grow, self.start
        back = (1 / grow[0], 0.0, -start[0] / grow[0], 0.0, 1 / grow[1], -start[1] / grow[1])
        fill = tuple(int(one) for one in pixels.reshape(-1, pixels.shape[-1]).mean(axis=0))
        picture = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
        moved = picture.transform(
            self.sides, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR,
            fillcolor=fill if pixels.shape[-1] == 3 else fill[0],
        )  # fmt: skip
        made = np.asarray(moved, np.uint8).reshape(pixels.shape)
        return made if self.light is None else _colored(made, self.light, self.contrast)

    def scene(self, scene: Scene) -> Scene:
        """Where its objects are then."""
        import numpy as np

        corners = scene.boxes.reshape(-1, 2, 2) * self.grow + self.start
        whole = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        cut = np.clip(whole, 0, self.sides * 2)
        seen = _areas(cut) >= _LEAST_SEEN * np.maximum(_areas(whole), 1e-6)
        kept = (seen | scene.crowd) & (_areas(cut) > 0)
        return Scene(cut[kept].astype(np.float32), scene.labels[kept], scene.crowd[kept])


def drawn_change(shape: Sequence[int], config: SceneAugment, rng: np.random.Generator) -> SceneChange:
    """A change of an image of this shape: height, width, channels."""
    import numpy as np

    high, wide, channels = shape
    factor = float(config.scale ** rng.uniform(-1, 1))
    signs = [-1.0 if given and rng.random() < 0.5 else 1.0 for given in (config.flip, config.upend)]
    move = rng.uniform(-config.shift, config.shift, 2) * (wide, high)
    middle = np.array([wide / 2, high / 2])
    grow = np.array(signs) * factor
    light, contrast, most = None, 1.0, config.color
    if most:
        light = rng.uniform(1 - most, 1 + most) * rng.uniform(1 - most / 2, 1 + most / 2, channels)
        contrast = rng.uniform(1 - most, 1 + most)
    return SceneChange(grow, middle + move - grow * middle, (wide, high), light, contrast)


@dataclass(frozen=True)
class SceneReader:
    """Images with boxes, as `pipelines.training.shards.Reader` has it: labels become scenes."""

    spec: ImageSpec
    classes: Sequence[str]
    augment: SceneAugment

    def read(self, file: bytes, label: str, wanted: bool) -> tuple[NDArray[np.uint8] | None, Scene]:
        """See `Reader`; of a file whose pixels are not wanted the header is read, for its size."""
        if not wanted:
            return None, _scene(label, self.spec, upright(open_image(file, MAX_PIXELS)).size, self.classes)
        pixels, size = read_sized(file, self.spec, MAX_PIXELS)
        return pixels, _scene(label, self.spec, size, self.classes)

    def changed(
        self, pixels: NDArray[np.uint8], labels: Sequence[Scene], places: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """See `Reader`."""
        import numpy as np

        changes = [drawn_change(pixels.shape[1:], self.augment, rng) for _ in labels]
        for at, place in enumerate(places):
            pixels[at] = changes[place].made(pixels[at])
        scenes = np.empty(len(labels), object)
        scenes[:] = [change.scene(scene) for change, scene in zip(changes, labels, strict=True)]
        return pixels, scenes


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = boxes[:, 2:] - boxes[:, :2]
    found: NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return found


def _colored(pixels: NDArray[np.uint8], light: NDArray[np.float64], contrast: float) -> NDArray[np.uint8]:
    import numpy as np

    mean = float(pixels.mean())
    # Of 256 values each channel has a table: the same numbers in a tenth of the time.
    table = np.clip(((np.arange(256)[:, None] - mean) * contrast + mean) * light, 0, 255).astype(np.uint8)
    return np.stack([table[pixels[..., at], at] for at in range(pixels.shape[-1])], axis=-1)


def targets(scene: Scene, classes: int, shape: tuple[int, int], stride: int) -> tuple[Floats, Floats, Floats]:
    """What the maps should say of an image of `shape` cells (height, width).

    Returns:
        heat (classes, height, width), 1 in the cell of a middle and less around it, -1 in a crowd, where nothing is
        asked; sides (4, height, width), the box that a cell has to find, in pixels; weight (height, width), how much it
        counts, 0 for most.
    """
    import numpy as np

    high, wide = shape
    heat = np.zeros((classes, high, wide), np.float32)
    sides, weight = np.zeros((4, high, wide), np.float32), np.zeros((high, wide), np.float32)
    extent = scene.boxes[:, 2:] - scene.boxes[:, :2]
    for at in np.argsort(-extent[:, 0] * extent[:, 1], kind="stable"):  # small ones last, so that they are not covered
        box, label = scene.boxes[at], scene.labels[at]
        if scene.crowd[at]:
            left, top = np.floor(box[:2] / stride).astype(int)
            right, bottom = np.ceil(box[2:] / stride).astype(int)
            region = heat[label, top:bottom, left:right]
            region[region == 0] = -1
            continue
        reach = extent[at] / stride / 2 * _SPREAD
        x, y = np.minimum((box[:2] + box[2:]) / 2 // stride, (wide - 1, high - 1)).astype(int)
        near_x, near_y = int(reach[0]), int(reach[1])
        columns = np.arange(max(0, x - near_x), min(wide, x + near_x + 1))
        rows = np.arange(max(0, y - near_y), min(high, y + near_y + 1))
        sigma = (2 * reach + 1) / 6
        around = np.exp(
            -((columns - x) ** 2)[None, :] / (2 * sigma[0] ** 2) - ((rows - y) ** 2)[:, None] / (2 * sigma[1] ** 2)
        ).astype(np.float32)
        place = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        heat[(label, *place)] = np.maximum(heat[(label, *place)], around)
        sides[(slice(None), *place)] = box[:, None, None]
        weight[place] = around * np.float32(np.log1p(extent[at].prod()) / around.sum())
    return heat, sides, weight
