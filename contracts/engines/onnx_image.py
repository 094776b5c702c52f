"""Image models: an ONNX graph of pixels, and how a file becomes the pixels that it was trained on.

The files of ``model/``: ``model.onnx`` (float32 pixels to answers, such as a score per class) and
``image.json`` (`ImageSpec`).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field, ValidationError

from contracts.bundle import Bundle
from contracts.document import Document
from contracts.engine import (
    MAX_PIXELS,
    EngineOptions,
    EngineSpec,
    Reason,
    UnreadableError,
    graph_outputs,
    onnx_providers,
    side_by_side,
)
from contracts.errors import PlatformError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The commonest, each read by code that is made for hostile files; Pillow would also start other programs for some.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
WORKING_NUMBERS = 2_000_000  # numbers of pixels that one run of the graph may hold
# What Pillow's readers raise for files that are cut off or made up.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError)
_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class ImageSpec(Document):
    """The content of ``image.json``: what happens to a file before the graph sees it.

    Attributes:
        mode: channels, RGB or gray.  fit: ``stretch`` changes the shape of an image, ``crop`` takes its middle.
        crop_share: of the shorter side, what ``crop`` keeps; 0.875 is the custom of ImageNet (224 of 256).
        mean, std: per channel, of values from 0 to 1.  layout: whether channels come before rows and columns.
        input, output: names in the graph; no output: those of `graph_outputs`.
        softmax: the graph gives scores that are not probabilities yet.
    """

    format: Literal[1] = 1
    width: int = Field(ge=1, le=4096)
    height: int = Field(ge=1, le=4096)
    mode: Literal["RGB", "L"] = "RGB"
    fit: Literal["stretch", "crop"] = "stretch"
    crop_share: float = Field(1.0, gt=0, le=1)
    resample: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["channels_first", "channels_last"] = "channels_first"
    input: str = "pixels"
    output: str = ""
    softmax: bool = False


class OnnxImageEngine:
    """Serves an image bundle; see `contracts.engine.Engine` and `contracts.engine.DecodingEngine`."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime as ort

        folder, signature = bundle.model_path, bundle.document.signature
        try:
            self._spec = ImageSpec.model_validate_json((folder / "image.json").read_bytes())
        except (OSError, ValidationError) as err:
            raise _refused(bundle, str(err)) from err
        inputs = [item.name for item in signature.inputs if item.dtype == "bytes"]
        if len(inputs) != 1 or len(signature.inputs) != 1:
            raise _refused(bundle, "its signature must have one input of type bytes, and no other")
        self._name = inputs[0]
        self._problem, self._output = signature.problem, signature.output
        self._names = [self._spec.output] if self._spec.output else list(graph_outputs(signature))
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = onnx_providers(ort.get_available_providers())
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=providers)
        given = {item.name: item for item in self._session.get_inputs()}
        if list(given) != [self._spec.input] or given[self._spec.input].type != "tensor(float)":
            raise _refused(bundle, f"model.onnx has inputs {', '.join(given)}, expected {self._spec.input} of float32")
        channels = len(self._spec.mode)
        at_once = max(1, WORKING_NUMBERS // (self._spec.width * self._spec.height * channels))
        rows = given[self._spec.input].shape[0]
        self._fixed = isinstance(rows, int)
        self._at_once: int = rows if self._fixed else at_once
        if {len(self._spec.mean), len(self._spec.std)} - {1, channels}:
            raise _refused(bundle, f"mean and std must have one number or {channels}, as mode {self._spec.mode} has")
        self._mean, self._std = (np.asarray(values, np.float32) for values in (self._spec.mean, self._spec.std))

    def decode(self, columns: Mapping[str, NDArray[Any]], max_pixels: int = MAX_PIXELS) -> dict[str, NDArray[Any]]:
        """The pixels of files, uint8, shape (rows, height, width, channels); what is decoded already stays.

        Raises:
            UnreadableError: naming every file that is no image, is cut off, or has too many pixels with those before.
        """
        files = columns[self._name]
        if files.dtype != object:
            return dict(columns)
        spec = self._spec
        pixels = np.empty((len(files), spec.height, spec.width, len(spec.mode)), np.uint8)
        errors: list[tuple[int, str, str]] = []
        left = max_pixels
        for row, file in enumerate(files):
            try:
                pixels[row], used = _pixels(file, spec, left)
                left -= used
            except _TooLargeError as err:
                text = f"has {err} pixels, {left} of the {max_pixels} that one request may have are left"
                errors.append((row, self._name, text))
            except _BROKEN:
                errors.append((row, self._name, f"is no image that can be read; expected {', '.join(FORMATS)}"))
        if errors:
            raise UnreadableError(errors)
        return {**columns, self._name: pixels}

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Answers, such as probabilities of shape (rows, classes), of files or of what `decode` made of them."""
        pixels = self.decode(columns)[self._name]
        parts = [self._run(pixels[at : at + self._at_once]) for at in range(0, len(pixels), self._at_once)]
        scores = np.concatenate(parts).astype(np.float64)
        if self._spec.softmax:
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        exact: NDArray[np.float64] = self._problem.exact(self._output, scores)
        return exact

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """Not for images."""
        raise PlatformError("this model gives no reasons", detail="images have none", code="not_explainable")

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = len(pixels)
        if self._fixed and rows < self._at_once:
            pixels = np.concatenate([pixels, np.zeros((self._at_once - rows, *pixels.shape[1:]), np.uint8)])
        values = (pixels.astype(np.float32) / np.float32(255) - self._mean) / self._std
        if self._spec.layout == "channels_first":
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        found = self._session.run(self._names, {self._spec.input: values})
        return side_by_side(found, len(pixels))[:rows]


class _TooLargeError(Exception):
    """Its text is a number of pixels."""


def _pixels(file: bytes, spec: ImageSpec, most: int) -> tuple[NDArray[np.uint8], int]:
    """The pixels of a file as `spec` wants them, and how many it had."""
    try:
        image: Image.Image = Image.open(io.BytesIO(file), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _TooLargeError(f"more than {2 * int(Image.MAX_IMAGE_PIXELS or 0)}") from None
    size = image.width * image.height  # from the header: nothing is decoded yet
    if size > most:
        raise _TooLargeError(size)
    ImageOps.exif_transpose(image, in_place=True)  # cameras turn pictures by a note in the file
    if image.mode.startswith("I"):  # gray of 16 bits, which a conversion would cut at 255
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    image = image.convert(spec.mode)
    box = None
    if spec.fit == "crop":
        # Cut before it is resized: a line of a million pixels must not become a million lines.
        scale = min(image.width / spec.width, image.height / spec.height) * spec.crop_share
        wide, high = spec.width * scale, spec.height * scale
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        box = (left, top, left + wide, top + high)
    if box is not None or image.size != (spec.width, spec.height):
        image = image.resize((spec.width, spec.height), _RESAMPLE[spec.resample], box)
    return np.asarray(image, np.uint8).reshape(spec.height, spec.width, len(spec.mode)), size


def _refused(bundle: Bundle, detail: str) -> PlatformError:
    return PlatformError(
        f"image model refused: {bundle.model_path}", detail=detail, fix="publish the model again", code="bad_bundle"
    )


def load(bundle: Bundle, options: EngineOptions) -> OnnxImageEngine:
    """See `contracts.engines.load_engine`."""
    return OnnxImageEngine(bundle, options.threads)


ENGINE = EngineSpec(name="onnx", modality="image", extra="services", load=load)
