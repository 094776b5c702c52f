"""What all engines of models that draw share: what rows ask for, and the pictures that they get."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.bundle import Bundle
from contracts.engine import Reason, UnreadableError, refused
from contracts.errors import PlatformError
from contracts.problems.image import GUIDANCE, PROMPT, SEED, STEPS, Drawn, ImageOutput, UnnamedError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One picture that is asked for.

    prompt: of a model that takes any text; "" is what it calls the class.
    """

    label: str
    seed: int
    steps: int
    guidance: float
    prompt: str = ""


class FlaggedError(Exception):
    """A model's own check refuses what it has drawn."""


class DrawingEngine(ABC):
    """Base of an engine of problem ``image``; see `contracts.engine.Engine`. Calls of threads take turns.

    Attributes:
        spec: how it was built to sample: ``steps`` and ``guidance`` where a request does not say.
        output: of the signature.
    """

    spec: Any

    def __init__(self, bundle: Bundle) -> None:
        document = bundle.document
        output = document.signature.output
        if not isinstance(output, ImageOutput):
            raise refused(bundle, f"its answers are of problem {output.problem}, expected image")
        self.output = output
        self._made = {"model": document.name, "digest": bundle.digest[:12]}
        self._turn = threading.Lock()

    @abstractmethod
    def draw(self, wishes: Sequence[Wish], report: Callable[[int], None] | None = None) -> list[Drawn]:
        """The pictures, in their order.

        Args:
            report: is told the evaluations of the network (`evaluations`) that are done, and may raise to end it.
        """

    @abstractmethod
    def evaluations(self, wish: Wish) -> int:
        """How often the network looks at one picture until it is done: what it costs."""

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.object_]:
        """`Drawn` of each row, an object array, shape (rows,).

        Raises:
            UnreadableError: naming the rows whose prompt names no class of the model, or several.
        """
        answers = np.empty(len(columns[PROMPT]), dtype=object)
        answers[:] = list(self.draw(self.wishes(columns)))
        return answers

    def wishes(self, columns: Mapping[str, NDArray[Any]]) -> list[Wish]:
        """What the rows ask for; see `predict`. Numbers outside of what the model takes become the nearest inside."""
        found, errors = [], []
        prompts, seeds, steps, guidance = (columns[name] for name in (PROMPT, SEED, STEPS, GUIDANCE))
        for row, prompt in enumerate(prompts):
            try:
                label = self.output.label_of(str(prompt), self.output.labels)
                self.check(str(prompt))
            except UnnamedError as err:
                errors.append((row, PROMPT, str(err)))
                continue
            found.append(
                Wish(
                    label=label,
                    seed=abs(int(_or(seeds[row], 0))),
                    steps=int(np.clip(_or(steps[row], self.spec.steps), 1, self.output.max_steps)),
                    guidance=float(np.clip(_or(guidance[row], self.spec.guidance), 1, self.output.max_guidance)),
                    prompt=self.prompt_of(str(prompt), label),
                )
            )
        if errors:
            raise UnreadableError(errors)
        return found

    def check(self, prompt: str) -> None:  # noqa: B027 - an engine that reads classes reads all of it
        """Refuse a prompt that the model would not read to its end.

        Raises:
            UnnamedError: it is too long.
        """

    def prompt_of(self, prompt: str, label: str) -> str:
        """`Wish.prompt`: the words of a prompt where the model takes any text, "" where it is the name of a class."""
        return prompt if self.output.any_text and prompt.strip() != label else ""

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """None: a picture has no reasons.

        Raises:
            PlatformError: ``code="not_explainable"``, always.
        """
        raise PlatformError("this model gives no reasons", detail="its answers are images", code="not_explainable")

    def _drawn(self, pixels: NDArray[np.uint8], wish: Wish, method: str) -> Drawn:
        """A picture with what its mark says of it."""
        told = {
            **self._made,
            "label": wish.label,
            "seed": wish.seed,
            "steps": wish.steps,
            "guidance": wish.guidance,
            "method": method,
        }
        return Drawn(pixels, wish.label, told)


def _or(value: Any, default: float) -> float:
    return default if value != value else float(value)
