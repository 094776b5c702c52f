"""What an engine is and can do: the same one scores a bundle in evaluation, batch scoring and serving."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from contracts.errors import PlatformError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Bundle, Signature

MAX_PIXELS = 25_000_000  # of all images of one request
VECTOR = "vector"  # output of a graph that has an encoder: shape (rows, width)


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One reason code: `contribution` is in log-odds of the positive (or the predicted) class, or to a number."""

    feature: str
    value: float | str | None
    contribution: float


class Engine(Protocol):
    """A loaded model; services call it from one executor thread."""

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> Any:
        """Answers to all rows in the form of the bundle's problem, such as probabilities of shape (rows, classes).

        `columns` maps each input's name to an array of `rows` values. A missing number is NaN; string columns are
        object arrays of str, a string that is not among the input's `categories` counts as missing; columns of type
        bytes are object arrays of bytes.
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

    def predict_ids(self, rows: Sequence[Sequence[int]]) -> Any:
        """`Engine.predict` of rows that were tokenised before."""
        ...

    def padded(self, lengths: Sequence[int]) -> int:
        """How many tokens the model computes for rows of these lengths, padding included."""
        ...


def refused(bundle: Bundle, detail: str) -> PlatformError:
    """That a bundle's files are none that its engine can serve."""
    return PlatformError(
        f"{bundle.document.modality} model refused: {bundle.model_path}",
        detail=detail,
        fix="publish the model again",
        code="bad_bundle",
    )


class UnreadableError(ValueError):
    """Values that are no files of the expected kind: (row, input, message) of each."""

    def __init__(self, errors: Sequence[tuple[int, str, str]]) -> None:
        super().__init__("; ".join(f"row {row}, {name}: {text}" for row, name, text in errors))
        self.errors = errors


@runtime_checkable
class DecodingEngine(Protocol):
    """An engine whose rows are files: decoded per request, so that a bad one fails its own request alone."""

    def decode(self, columns: Mapping[str, NDArray[Any]], max_pixels: int = ...) -> dict[str, NDArray[Any]]:
        """What `predict` takes in the place of files; safe to call from any thread. Of images their size may stand
        beside it, see `contracts.content.size_column`.

        Raises:
            UnreadableError: naming the files that cannot be decoded, or have more than `max_pixels` together.
        """
        ...


@runtime_checkable
class VectorEngine(Protocol):
    """An engine that may have a vector of each row beside its answer, from which it is told how far rows are from usual
    ones.

    Attributes:
        has_vector: whether this bundle's graph has the output `VECTOR`.
    """

    has_vector: bool

    def vector(self, row: Any) -> NDArray[np.float64]:
        """The vector of one row, shape (width,): of its token ids, or of its pixels as `decode` makes them; safe to
        call from any thread."""
        ...


def vector_of(engine: Engine) -> Callable[[Any], NDArray[np.float64]] | None:
    """`VectorEngine.vector` of an engine whose bundle has one."""
    return engine.vector if isinstance(engine, VectorEngine) and engine.has_vector else None


def odds_of(chance: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of chances, which count as one in a thousand at least, also where nothing was found at all."""
    import numpy as np

    held = np.clip(chance, 1e-3, 1 - 1e-6)
    found: NDArray[np.float64] = np.log(held) - np.log1p(-held)
    return found


def graph_outputs(signature: Signature) -> dict[str, int]:
    """The outputs of a graph that together are the answers, by name, with their width: the problem's numeric tensors.

    Of a classification ``probabilities``, of a regression ``value`` (and ``low``, ``high``), of an embedding
    ``embedding``.
    """
    tensors = signature.problem.tensors(signature.output)
    return {one.name: math.prod(one.shape) for one in tensors if one.datatype.startswith("FP")}


def side_by_side(found: Sequence[NDArray[Any]], rows: int) -> NDArray[Any]:
    """Outputs of a graph as one array, shape (rows, width of all)."""
    import numpy as np

    if len(found) == 1 and found[0].ndim == 2:
        return found[0]
    return np.concatenate([one.reshape(rows, -1) for one in found], axis=1)


def onnx_providers(available: Sequence[str]) -> list[str]:
    """Where ONNX Runtime executes: CUDA first where its build has it, which needs no GPU to be there, else the CPU."""
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a model is executed.

    `device` and `compiled` are for engines that can choose, such as torch; `slots`, conversations at a time, and
    `window`, tokens of each (0: as the bundle says), for those that write; `url` is that of a server that has the
    bundle's weights loaded, `served` what it calls them, `key` its token, `wait` the seconds that it may take to start.
    """

    threads: int = 1
    device: str = "auto"
    compiled: bool = False
    slots: int = 4
    window: int = 0
    url: str = ""
    served: str = ""
    key: str = ""
    wait: float = 0.0


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What a module of ``contracts/engines`` says of its engine.

    Attributes:
        name, modality: as in bundle.json.
        load: the engine of a verified bundle; may import its library.
        extra: of this package, which installs the library.
        image: the argument of an image build that has the library, where not every image has it.
        batch_rows: rows of one call when there are many, so that memory stays bounded.
        golden: examples that a bundle proves itself by at every start; fewer where an answer takes long.
    """

    name: str
    modality: str
    load: Callable[[Bundle, EngineOptions], Engine]
    extra: str = "services"
    image: str = ""
    batch_rows: int = 256
    golden: int = 20
