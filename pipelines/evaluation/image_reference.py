"""The reference of a data set of images: its own network, and the training images, which generated ones are held to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsBytes

import numpy as np

from contracts.engine import MAX_PIXELS
from contracts.errors import PlatformError
from contracts.images import SPEC, ImageSpec, read_pixels
from pipelines.data.file_rows import StoredFiles, file_column, row_count, some_rows

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

GRAPH, ABOUT = "reference.onnx", "reference.json"
_AT_ONCE = 256
_MOST = 20_000  # training images that are kept in memory; of more, evenly so many


class Reference:
    """What images are compared by.

    Attributes:
        about: what ``reference.json`` says: name, sha256, classes, accuracy.  spec: how a file becomes pixels.
        train: pixels of the training images, uint8, shape (rows, height, width, channels).
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime as ort

        self.about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        self.spec = ImageSpec.model_validate_json((folder / SPEC).read_bytes())
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
        self._column = image_column(folder / "train.parquet")
        rows = row_count(folder / "train.parquet")
        chosen = np.unique(np.linspace(0, rows - 1, min(rows, _MOST)).astype(np.int64))
        tables = some_rows(folder / "train.parquet", chosen, [self._column])
        self.train = np.concatenate([self.decoded(one.column(self._column).to_pylist()) for one in tables])
        self._valid = folder / "valid.parquet"
        self._scale = 1.0
        self._scale = float(np.sqrt((self.judged(self.train)[0] ** 2).mean())) or 1.0
        self._flat = _flat(self.train)
        self._squares = (self._flat**2).sum(axis=1)

    def decoded(self, files: Sequence[SupportsBytes]) -> NDArray[np.uint8]:
        """The pixels of files, shape (rows, height, width, channels)."""
        return np.stack([read_pixels(file, self.spec, MAX_PIXELS)[0] for file in files])

    def real(self, frame: pd.DataFrame) -> NDArray[np.uint8]:
        """The pixels of the images in the rows of a data set."""
        return self.decoded(frame[self._column].tolist())

    def others(self, rows: int) -> NDArray[np.uint8]:
        """As many real images that no model has learned from, of ``valid``, again and again where it has fewer."""
        files = StoredFiles(self._valid, self._column).all()
        return self.decoded([files[at % len(files)] for at in range(rows)])

    def judged(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], list[str]]:
        """The features of images, shape (rows, features), and the class that the network says of each.

        Features are scaled so that the mean of the squares of those of training images is 1.
        """
        found: list[list[NDArray[Any]]] = []
        for at in range(0, len(pixels), _AT_ONCE):
            given = {self.spec.input: self.spec.normalised(pixels[at : at + _AT_ONCE])}
            found.append(self._session.run(["vector", "probabilities"], given))
        vectors, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return vectors.astype(np.float64) / self._scale, [self.about["classes"][at] for at in scores.argmax(axis=1)]

    def nearest(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Of each image the distance to the nearest training image, root mean square of pixels from 0 to 1, and its
        place."""
        apart, place = [], []
        for at in range(0, len(pixels), _AT_ONCE):
            some = _flat(pixels[at : at + _AT_ONCE])
            squares = (some**2).sum(axis=1)[:, None] + self._squares - 2 * some @ self._flat.T
            best = squares.argmin(axis=1)
            # Exact for the nearest one: what is left of large numbers would hide a copy.
            exact = ((some - self._flat[best]) ** 2).mean(axis=1)
            apart.append(np.sqrt(exact.astype(np.float64)))
            place.append(best)
        return np.concatenate(apart), np.concatenate(place)


def reference_of(frame: pd.DataFrame) -> Reference:
    """The reference of the data set that rows were read from by `pipelines.evaluation.scoring.read_rows`.

    Raises:
        PlatformError: ``code="bad_dataset"``: its step ``reference`` has not run.
    """
    folder = Path(frame.attrs.get("dataset", ""))
    if not (folder / ABOUT).exists():
        raise PlatformError(
            "generated images have nothing to be compared with",
            detail=f"{folder} has no {ABOUT}",
            fix="let the task have the step reference, as pipelines.recipes.drawing.task.DrawingTask has",
            code="bad_dataset",
        )
    return _opened(str(folder.resolve()), (folder / GRAPH).stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _opened(folder: str, written: int) -> Reference:
    return Reference(Path(folder))


def image_column(file: Path) -> str:
    """The column of a part of a data set that has files.

    Raises:
        PlatformError: ``code="bad_dataset"``: none has.
    """
    if name := file_column(file):
        return name
    raise PlatformError(
        f"{file} has no column with images", fix="let the split keep the task's images", code="bad_dataset"
    )


def _flat(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = pixels.reshape(len(pixels), -1).astype(np.float32) / np.float32(255)
    return found
