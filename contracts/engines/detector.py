"""Detectors: an ONNX graph of pixels to boxes, of which none overlaps a better one, and where they are in the image.

The files of ``model/``: ``model.onnx`` (float32 pixels to ``detections``, shape (rows, objects, 6): left, top, right,
bottom in those pixels, score, class number; score 0 where there is no object; and to `VECTOR` where it has one) and
``image.json`` (`contracts.images.ImageSpec`, whose fit is ``stretch`` or ``pad``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.bundle import Bundle
from contracts.content import size_column
from contracts.engine import MAX_PIXELS, EngineOptions, EngineSpec, Reason, odds_of, refused
from contracts.engines.onnx_image import OnnxImageEngine
from contracts.problems.detection import DetectionOutput, Detections, left_of, surest

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTPUT = "detections"


class Picture(np.ndarray[Any, Any]):
    """The pixels of a file, which remember its own width and height, `shown`."""

    shown: tuple[int, int]

    def __array_finalize__(self, made_of: Any) -> None:
        self.shown = getattr(made_of, "shown", (0, 0))


class DetectorEngine(OnnxImageEngine):
    """Serves a bundle of problem ``detection``; see `contracts.engine.Engine` and `DecodingEngine` there."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle, threads)
        if self._spec.fit == "crop":
            raise refused(bundle, "image.json says crop, where objects may be lost; expected stretch or pad")
        self._names = [self._spec.output or OUTPUT]
        if not isinstance(self._output, DetectionOutput):
            raise refused(bundle, f"its answers are of problem {self._output.problem}, expected detection")
        self._longest = self._output.longest

    def decode(self, columns: Mapping[str, NDArray[Any]], max_pixels: int = MAX_PIXELS) -> dict[str, NDArray[Any]]:
        """`Picture` of each file, an object array, shape (rows,), and beside it the size of each file; what is
        decoded already stays.

        Raises:
            UnreadableError: see `OnnxImageEngine.decode`.
        """
        files = columns[self._name]
        if not len(files) or isinstance(files[0], Picture):
            return dict(columns)
        pictures = self._pictures(files, max_pixels)
        return {**columns, self._name: pictures, size_column(self._name): np.array([one.shown for one in pictures])}

    def _pictures(self, files: NDArray[Any], most: int, together: bool = True, first: int = 0) -> NDArray[np.object_]:
        made = np.empty(len(files), object)
        for row, pixels, shown in self._read(files, most, together, first):
            made[row] = pixels.view(Picture)
            made[row].shown = shown
        return made

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> Any:
        """`Detections` of each file, or of each `Picture`, an object array, shape (rows,)."""
        given = columns[self._name]
        answers = np.empty(len(given), object)
        for at in range(0, len(given), self._at_once):
            some = given[at : at + self._at_once]
            pictures = some if isinstance(some[0], Picture) else self._pictures(some, MAX_PIXELS, False, at)
            pixels = np.stack([np.asarray(one) for one in pictures])
            found = self._run(pixels, self._names).reshape(len(pixels), -1, 6)
            for row, (one, boxes) in enumerate(zip(pictures, found, strict=True), at):
                answers[row] = self._placed(boxes.astype(np.float64), one.shown)
        return answers

    def _placed(self, found: NDArray[np.float64], shown: tuple[int, int]) -> Detections:
        """What the graph says, in pixels of the image."""
        there = found[found[:, 4] > 0]
        boxes = np.clip(there[:, :4] / np.tile(self._spec.factors(*shown), 2), 0, np.tile(shown, 2))
        inside = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
        there, boxes = there[inside], boxes[inside]
        order = np.argsort(-there[:, 4], kind="stable")[: self._longest]
        return Detections(boxes[order], np.minimum(there[order, 4], 1.0), there[order, 5].astype(np.int64))

    def vector(self, row: NDArray[np.uint8]) -> NDArray[np.float64]:
        """See `contracts.engine.VectorEngine`."""
        return super().vector(np.asarray(row))

    def content(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """Without what ``pad`` adds."""
        if not isinstance(image, Picture):
            return super().content(image)
        (wide, high), (across, down) = image.shown, self._spec.factors(*image.shown)
        return min(image.shape[0], max(1, round(high * down))), min(image.shape[1], max(1, round(wide * across)))

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """What covering a patch of the image takes from the log-odds of its surest object; no reasons where none is
        answered. An object is still found as far as one of its class is there (`contracts.problems.detection.left_of`).
        """
        given = columns[self._name]
        pictures = given if len(given) and isinstance(given[0], Picture) else self._pictures(given, MAX_PIXELS, False)
        answers = self.predict({self._name: pictures})
        return [self._reasons_of(image, answer, top) for image, answer in zip(pictures, answers, strict=True)]

    def _reasons_of(self, image: Picture, answer: Detections, top: int) -> list[Reason]:
        assert isinstance(self._output, DetectionOutput)
        best = surest(self._output, answer)
        if best is None:
            return []
        places = self._places(image)
        covered = np.empty(len(places), object)
        for at, place in enumerate(places):
            covered[at] = self._covered(image, place)
        found = [left_of(answer, best, one) for one in self.predict({self._name: covered})]
        lost = odds_of(float(answer.scores[best])) - odds_of(np.array(found))
        return self._named(image, places, lost, top)


def load(bundle: Bundle, options: EngineOptions) -> DetectorEngine:
    """See `contracts.engines.load_engine`."""
    return DetectorEngine(bundle, options.threads)


ENGINE = EngineSpec(name="detector", modality="image", extra="services", load=load, batch_rows=32, golden=8)
