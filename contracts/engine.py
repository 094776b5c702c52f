"""How a bundle is executed: the same code scores it in evaluation, batch scoring and serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from contracts.bundle import Bundle
from contracts.errors import PlatformError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MAX_PIXELS = 25_000_000  # of all images of one request


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One reason code: `contribution` is in log-odds of the positive (or the predicted) class."""

    feature: str
    value: float | str | None
    contribution: float


class Engine(Protocol):
    """A loaded model; services call it from one executor thread."""

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Probabilities, shape (rows, classes); `columns` maps each input's name to an array of `rows` values.

        A missing number is NaN; string columns are object arrays of str, a string that is not among the input's
        `categories` is treated as missing; columns of type bytes are object arrays of bytes.
        """
        ...

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """The `top` reasons of each row, largest absolute contribution first."""
        ...


@runtime_checkable
class TokenEngine(Protocol):
    """An engine whose work is counted in tokens, so that rows of similar length can be gathered."""

    def tokenise(self, columns: Mapping[str, NDArray[Any]]) -> list[list[int]]:
        """The token ids of each row, cut to what the model takes; safe to call from any thread."""
        ...

    def predict_ids(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """`Engine.predict` of rows that were tokenised before."""
        ...

    def padded(self, lengths: Sequence[int]) -> int:
        """How many tokens the model computes for rows of these lengths, padding included."""
        ...


class UnreadableError(ValueError):
    """Values that are no files of the expected kind: (row, input, message) of each."""

    def __init__(self, errors: Sequence[tuple[int, str, str]]) -> None:
        super().__init__("; ".join(f"row {row}, {name}: {text}" for row, name, text in errors))
        self.errors = errors


@runtime_checkable
class DecodingEngine(Protocol):
    """An engine whose rows are files: decoded per request, so that a bad one fails its own request alone."""

    def decode(self, columns: Mapping[str, NDArray[Any]], max_pixels: int = ...) -> dict[str, NDArray[Any]]:
        """What `predict` takes in the place of files; safe to call from any thread.

        Raises:
            UnreadableError: naming the files that cannot be decoded, or have more than `max_pixels` together.
        """
        ...


def onnx_providers(available: Sequence[str]) -> list[str]:
    """Where ONNX Runtime executes: CUDA first where its build has it, which needs no GPU to be there, else the CPU."""
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]


def load_engine(bundle: Bundle, *, threads: int = 1, device: str = "auto", compiled: bool = False) -> Engine:
    """Load the model of a verified bundle; imports the engine's library here and not before.

    `device` and `compiled` are for engine ``torch``, see `contracts.engine_torch`.

    Raises:
        PlatformError: when the engine's library is not installed.
    """
    modality, engine = bundle.document.modality, bundle.document.engine
    try:
        if engine == "torch":
            from contracts.engine_torch import TorchTextEngine

            return TorchTextEngine(bundle, threads, device, compiled)
        if modality == "text":
            from contracts.engine_text import OnnxTextEngine

            return OnnxTextEngine(bundle, threads)
        if modality == "image":
            from contracts.engine_image import OnnxImageEngine

            return OnnxImageEngine(bundle, threads)
        from contracts import engine_tabular

        if engine == "lightgbm":
            return engine_tabular.LightGBMEngine(bundle, threads)
        return engine_tabular.OnnxTabularEngine(bundle, threads)
    except ImportError as err:
        extras = "services,torch" if engine == "torch" else "services"
        raise PlatformError(
            f"cannot load {bundle.document.name}: {err.name} is not installed",
            detail=f"its engine is {engine}",
            fix=f"pip install 'fairlead[{extras}]'"
            + (", or serve it with an image built with VARIANT=gpu" if engine == "torch" else ""),
            code="missing_package",
        ) from err
