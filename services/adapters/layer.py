"""What a layer is: how adapters change what a base answers, and how feedback changes adapters.

A layer is found by the problem of the model; another package adds one by the entry point ``fairlead.layers``. The rest,
where adapters are kept, found, evicted and counted, is the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from contracts.adapter import Adapter
from contracts.engine import Engine
from contracts.errors import PlatformError
from contracts.plugins import Rooms

LAYERS = Rooms("layer", "services.adapters.layers", "LAYER")


@dataclass(frozen=True, kw_only=True)
class Applied:
    """Attributes: answers: of all rows.  shown: of each row, JSON values that `Layer.learned` needs, or None."""

    answers: Any
    shown: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Example:
    """Attributes: shown: of an answer, see `Applied`.  parts: of its label, those that are new, see `Layer.parts`."""

    shown: Any
    parts: Sequence[str]


class Layer(ABC):
    """How adapters are applied to one base.

    Attributes:
        name: as it stands in adapters.
        entity: of the model's inputs, whose adapter a row wants where settings do not say; "" for none.
    """

    name: ClassVar[str]
    entity: ClassVar[str] = ""

    @abstractmethod
    def fits(self, adapter: Adapter) -> str:
        """What of an adapter does not fit the base; "" where all does."""

    @abstractmethod
    def apply(self, engine: Callable[..., Any], adapters: Sequence[Adapter | None]) -> Applied:
        """The answers to all rows, each by its own adapter, None: by the base alone; what the others have changes
        nothing.

        Args:
            engine: gives the answers to all rows; of engines that take more than inputs, such as tastes or matrices of
                low rank, it takes that by its name.
        """

    @abstractmethod
    def parts(self, label: Any) -> Sequence[str]:
        """Names of the parts of a label, each of which teaches once; a label that corrects another has new ones."""

    @abstractmethod
    def learned(self, adapter: Adapter | None, examples: Sequence[Example]) -> Mapping[str, Any]:
        """The tensors of the next version; None is who has no adapter yet."""


def open_layer(problem: str, engine: Engine, output: Any) -> Layer:
    """The layer of a model's problem.

    Raises:
        PlatformError: ``code="bad_settings"``: there is none, or not for this model.
    """
    if problem not in LAYERS.names():
        raise PlatformError(
            f"answers of problem {problem} have no personal part",
            detail=f"adapters are for: {', '.join(LAYERS.names())}",
            fix="leave adapters.folder of the service empty",
            code="bad_settings",
            key="adapters.folder",
        )
    found: Layer = LAYERS.get(problem)(engine, output)
    return found
