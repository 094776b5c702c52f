"""Image models: an ONNX graph of pixels, and how a file becomes the pixels that it was trained on.

The files of ``model/``: ``model.onnx`` (float32 pixels to answers, such as a score per class, and `VECTOR` and `OOD`
where it has them) and ``image.json`` (`contracts.images.ImageSpec`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from contracts.bundle import Bundle
from contracts.content import size_column
from contracts.engine import (
    MAX_PIXELS,
    VECTOR,
    EngineOptions,
    EngineSpec,
    Reason,
    UnreadableError,
    graph_outputs,
    onnx_providers,
    refused,
    side_by_side,
)
from contracts.errors import PlatformError
from contracts.images import BROKEN, FORMATS, SPEC, ImageSpec, TooLargeError, read_sized
from contracts.out_of_distribution import OOD

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORKING_NUMBERS = 2_000_000  # numbers of pixels that one run of the graph may hold
_PATCH = re.compile(r"\[(\d+)-(\d+)% from the top, (\d+)-(\d+)% from the left\]")
_GRID = 6  # an image is covered in as many rows and columns of patches, one at a time
_TINY = 1e-15
_Place = tuple[int, int, int, int]  # rows from and to, columns from and to


class OnnxImageEngine:
    """Serves an image bundle; see `contracts.engine.Engine`, `DecodingEngine` and `VectorEngine` there, and
    `contracts.out_of_distribution.AbstainingEngine`.

    Attributes:
        reads_stored: its files may be what ``bytes`` reads, each when it is decoded.
    """

    reads_stored = True

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime as ort

        folder, signature = bundle.model_path, bundle.document.signature
        try:
            self._spec = ImageSpec.model_validate_json((folder / SPEC).read_bytes())
        except (OSError, ValidationError) as err:
            raise refused(bundle, str(err)) from err
        inputs = [item.name for item in signature.inputs if item.dtype == "bytes"]
        if len(inputs) != 1 or len(signature.inputs) != 1:
            raise refused(bundle, "its signature must have one input of type bytes, and no other")
        self._name = inputs[0]
        self._problem, self._output = signature.problem, signature.output
        self._names = [self._spec.output] if self._spec.output else list(graph_outputs(signature))
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = onnx_providers(ort.get_available_providers())
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=providers)
        self._only_needed = ort.RunOptions()
        self._only_needed.only_execute_path_to_fetches = True
        outputs = {item.name for item in self._session.get_outputs()}
        self.has_vector, self.has_ood = VECTOR in outputs, OOD in outputs
        given = {item.name: item for item in self._session.get_inputs()}
        if list(given) != [self._spec.input] or given[self._spec.input].type != "tensor(float)":
            raise refused(bundle, f"model.onnx has inputs {', '.join(given)}, expected {self._spec.input} of float32")
        channels = len(self._spec.mode)
        at_once = max(1, WORKING_NUMBERS // (self._spec.width * self._spec.height * channels))
        rows = given[self._spec.input].shape[0]
        self._fixed = isinstance(rows, int)
        self._at_once: int = rows if self._fixed else at_once
        if {len(self._spec.mean), len(self._spec.std)} - {1, channels}:
            raise refused(bundle, f"mean and std must have one number or {channels}, as mode {self._spec.mode} has")

    def decode(self, columns: Mapping[str, NDArray[Any]], max_pixels: int = MAX_PIXELS) -> dict[str, NDArray[Any]]:
        """The pixels of files, uint8, shape (rows, height, width, channels), and beside them the size of each file
        (`contracts.content.size_column`); what is decoded already stays.

        Raises:
            UnreadableError: naming every file that is no image, is cut off, or has too many pixels with those before.
        """
        files = columns[self._name]
        if files.dtype != object:
            return dict(columns)
        pixels, sizes = self._decoded(files, max_pixels)
        return {**columns, self._name: pixels, size_column(self._name): sizes}

    def _decoded(
        self, files: NDArray[Any], most: int, together: bool = True, first: int = 0
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pixels, and the width and height of each file, shape (rows, 2). `most` pixels are for all files `together`,
        or for each; errors count rows from `first`."""
        spec = self._spec
        if len(files) == 1:  # as of most requests: no copy
            _, alone, shown = next(self._read(files, most, together, first))
            return alone[None], np.array([shown])
        pixels = np.empty((len(files), spec.height, spec.width, len(spec.mode)), np.uint8)
        sizes = np.empty((len(files), 2), np.int64)
        for row, found, shown in self._read(files, most, together, first):
            pixels[row], sizes[row] = found, shown
        return pixels, sizes

    def _read(
        self, files: NDArray[Any], most: int, together: bool, first: int
    ) -> Iterator[tuple[int, NDArray[np.uint8], tuple[int, int]]]:
        """Each file's row, pixels and own width and height; see `_decoded`.

        Raises:
            UnreadableError: after the last, naming every file that cannot be read.
        """
        left, errors = most, []
        for row, file in enumerate(files):
            try:
                pixels, shown = read_sized(file, self._spec, left)
            except TooLargeError as err:
                text = f"has {err} pixels, {left} of the {most} that one request may have are left"
                errors.append((first + row, self._name, text))
            except BROKEN:
                errors.append((first + row, self._name, f"is no image that can be read; expected {', '.join(FORMATS)}"))
            else:
                left -= shown[0] * shown[1] if together else 0
                yield row, pixels, shown
        if errors:
            raise UnreadableError(errors)

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Answers, such as probabilities of shape (rows, classes), of files or of what `decode` made of them.

        Of files, each may have as many pixels as a request.
        """
        return self._answers(self._outputs(columns, self._names))

    def predict_ood(self, columns: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`predict`, and how far each row is from what was learned, see `contracts.out_of_distribution`."""
        found = self._outputs(columns, [*self._names, OOD])
        return self._answers(found[:, :-1]), found[:, -1].astype(np.float64)

    def _outputs(self, columns: Mapping[str, NDArray[Any]], names: Sequence[str]) -> NDArray[np.float32]:
        given, parts = columns[self._name], []
        for at in range(0, len(given), self._at_once):
            some = given[at : at + self._at_once]
            pixels = self._decoded(some, MAX_PIXELS, False, at)[0] if some.dtype == object else some
            parts.append(self._run(pixels, names))
        return np.concatenate(parts)

    def _answers(self, found: NDArray[np.float32]) -> NDArray[np.float64]:
        scores = found.astype(np.float64)
        if self._spec.softmax:
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        exact: NDArray[np.float64] = self._problem.exact(self._output, scores)
        return exact

    def vector(self, row: NDArray[np.uint8]) -> NDArray[np.float64]:
        """What the last layer makes its scores of, of one image's pixels."""
        found: NDArray[np.float64] = self._run(row[None], [VECTOR])[0].astype(np.float64)
        return found

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """What covering a patch of the image takes from the log-odds of its class: occlusion (M. Zeiler, R. Fergus:
        Visualizing and understanding convolutional networks, 2014). A patch is covered by the image's mean color.

        Raises:
            PlatformError: ``code="not_explainable"``: the model gives no classes.
        """
        if self._output.problem != "classification":
            raise PlatformError("this model gives no reasons", detail="it gives no classes", code="not_explainable")
        given = columns[self._name]
        pixels = self._decoded(given, MAX_PIXELS, False)[0] if given.dtype == object else given
        answers = self.predict({self._name: pixels})
        return [self._reasons(image, answer, top) for image, answer in zip(pixels, answers, strict=True)]

    def content(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """How many rows and columns of the pixels that `decode` makes show the image, from the upper left corner on."""
        return image.shape[0], image.shape[1]

    def _reasons(self, image: NDArray[np.uint8], answer: NDArray[np.float64], top: int) -> list[Reason]:
        label = int(answer.argmax())
        places = self._places(image)
        covered = np.stack([self._covered(image, place) for place in places])
        lost = _log_odds(answer, label) - _log_odds(self.predict({self._name: covered}), label)
        return self._named(image, places, lost, top)

    def _places(self, image: NDArray[np.uint8]) -> list[_Place]:
        rows, columns = (np.linspace(0, side, min(_GRID, side) + 1).astype(int) for side in self.content(image))
        return [(low, high, left, right) for low, high in pairwise(rows) for left, right in pairwise(columns)]

    def _covered(self, image: NDArray[np.uint8], place: _Place) -> NDArray[np.uint8]:
        """A copy whose pixels at a place have the mean color of the image."""
        (low, high, left, right), (down, across), made = place, self.content(image), image.copy()
        made[low:high, left:right] = np.asarray(image)[:down, :across].mean(axis=(0, 1)).round()
        return made

    def _named(
        self, image: NDArray[np.uint8], places: Sequence[_Place], lost: NDArray[np.float64], top: int
    ) -> list[Reason]:
        """The `top` places whose cover costs most."""
        order = np.argsort(-np.abs(lost), kind="stable")[:top]
        high, wide = self.content(image)
        named = [
            f"{self._name}[{_percent(up, down, high)} from the top, {_percent(left, right, wide)} from the left]"
            for up, down, left, right in places
        ]  # which `patch_of` reads
        return [Reason(feature=named[at], value=None, contribution=float(lost[at])) for at in order]

    def _run(self, pixels: NDArray[np.uint8], names: Sequence[str]) -> NDArray[np.float32]:
        rows = len(pixels)
        if self._fixed and rows < self._at_once:
            pixels = np.concatenate([pixels, np.zeros((self._at_once - rows, *pixels.shape[1:]), np.uint8)])
        found = self._session.run(names, {self._spec.input: self._spec.normalised(pixels)}, self._only_needed)
        return side_by_side(found, len(pixels))[:rows]


def _log_odds(answers: NDArray[np.float64], label: int) -> NDArray[np.float64]:
    others: NDArray[np.float64] = np.delete(answers, label, axis=-1).sum(axis=-1)
    return np.log(answers[..., label] + _TINY) - np.log(others + _TINY)


def patch_of(feature: str, high: int, wide: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right, in pixels of an image of this size, of the patch that a reason names.

    Raises:
        ValueError: it names none.
    """
    found = _PATCH.search(feature)
    if found is None:
        raise ValueError(f"{feature!r} names no patch")
    top, bottom, left, right = map(int, found.groups())
    return round(top * high / 100), round(bottom * high / 100), round(left * wide / 100), round(right * wide / 100)


def _percent(start: int, end: int, whole: int) -> str:
    return f"{round(100 * start / whole)}-{round(100 * end / whole)}%"


def load(bundle: Bundle, options: EngineOptions) -> OnnxImageEngine:
    """See `contracts.engines.load_engine`."""
    return OnnxImageEngine(bundle, options.threads)


ENGINE = EngineSpec(name="onnx", modality="image", extra="services", load=load)
