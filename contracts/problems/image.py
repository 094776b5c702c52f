"""Image: a picture for each row, made of a class, or of any text, and a seed."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, Field, create_model, model_validator

from contracts.problems.base import Output, Problem, Tensor, check_unique, one_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROMPT, SEED, STEPS, GUIDANCE = "prompt", "seed", "steps", "guidance"  # the inputs of every such model
TEXT = "(text)"  # the class of a picture whose prompt names none, of a model that takes any text
LARGEST_SEED = 2**53 - 1  # JSON has no larger whole numbers
_WORD = re.compile(r"[^\W_]+")


class ImageOutput(Output):
    """Attributes: labels: the classes.  width, height: in pixels.  mode: gray or colours.
    max_steps, max_guidance: more is not computed.  any_text: prompts need not name a class, see `TEXT`."""

    problem: Literal["image"] = "image"
    labels: tuple[str, ...] = Field(min_length=1)
    width: int = Field(ge=1, le=4096)
    height: int = Field(ge=1, le=4096)
    mode: Literal["RGB", "L"] = "RGB"
    max_steps: int = Field(100, ge=1)
    max_guidance: float = Field(20.0, ge=1)
    any_text: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """All that a picture may be said to show."""
        return (*self.labels, TEXT) if self.any_text else self.labels

    def label_of(self, prompt: str, drawn: Sequence[str]) -> str:
        """The class that a prompt asks for, one of those that are `drawn`; `TEXT` where any text is taken.

        Raises:
            UnnamedError: it names none, or several, of a model that draws classes.
        """
        if not self.any_text:
            return named(prompt, drawn)
        if not prompt.strip():
            raise UnnamedError("says nothing")
        found = classes_in(prompt, drawn)
        return found.pop() if len(found) == 1 else TEXT

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_unique(self.labels, "class")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A picture that a model has made.

    Attributes:
        pixels: uint8, shape (height, width, channels).  label: the class that was asked for.
        made: what its mark says of it, see `contracts.provenance`.
    """

    pixels: NDArray[np.uint8]
    label: str
    made: Mapping[str, Any] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        import numpy as np

        if not isinstance(other, Drawn):
            return NotImplemented
        return self.label == other.label and np.array_equal(self.pixels, other.pixels)

    __hash__ = None  # type: ignore[assignment]

    def png(self) -> bytes:
        """A PNG file with the mark of where it comes from."""
        from contracts.provenance import marked_png

        return marked_png(self.pixels, self.made)


class UnnamedError(ValueError):
    """A prompt that names no class, or several; its text says what is accepted and repeats no value."""


def classes_in(prompt: str, labels: Sequence[str]) -> set[str]:
    """The classes that a text names: their words, in their order, stand in it; of "ice" and "ice cream" the longer."""
    words = _words(prompt)
    found: dict[str, tuple[str, ...]] = {}
    for label in labels:
        wanted = _words(label)
        if wanted and _at(words, wanted):
            found[label] = wanted
    return {
        one for one, words in found.items() if not any(words != more and _at(more, words) for more in found.values())
    }


def named(prompt: str, labels: Sequence[str]) -> str:
    """The one class that a text names, see `classes_in`.

    Raises:
        UnnamedError: none is named, or several are.
    """
    found = classes_in(prompt, labels)
    if len(found) == 1:
        return found.pop()
    shown = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
    raise UnnamedError(f"names {'several classes' if found else 'no class'}; expected one of {shown}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


def _at(words: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words) - len(wanted) + 1))


def pixels_of(file: bytes) -> NDArray[np.uint8]:
    """The pixels of a PNG file that a `Drawn` made, shape (height, width, channels).

    Raises:
        ValueError: it is none.
    """
    import io

    import numpy as np
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(file), formats=("PNG",))
        pixels = np.asarray(image, np.uint8)
    except (OSError, SyntaxError) as err:
        raise ValueError("no PNG file") from err
    return pixels.reshape(image.height, image.width, -1)


def described(one: Drawn) -> dict[str, Any]:
    """What the log and monitors keep of a picture: its class, the mean of its pixels and their deviation, from 0 to 1,
    and its `contracts.images.sharpness`. A picture is never logged."""
    from contracts.images import sharpness

    return {
        "class": one.label,
        "brightness": round(float(one.pixels.mean()) / 255, 4),
        "contrast": round(float(one.pixels.std()) / 255, 4),
        "sharpness": round(sharpness(one.pixels.mean(axis=-1)), 4),
    }


class ImageProblem(Problem["NDArray[np.object_]"]):
    """Answers are `Drawn`, an object array, shape (rows,); a decision is the class that was drawn.

    The same class, seed, steps and guidance give the same picture, but for what arithmetic varies.
    """

    name = "image"
    output = ImageOutput

    def wrong(self, output: ImageOutput, answers: NDArray[np.object_], rows: int) -> str:
        """One picture per row, of the model's size and one of its classes."""
        import numpy as np

        found = getattr(answers, "shape", None)
        if found != (rows,):
            return f"the model gives {found}, not one image per row: {(rows,)}"
        shape = (output.height, output.width, len(output.mode))
        for row, one in enumerate(answers):
            if not isinstance(one, Drawn):
                return f"the answer to row {row} is {type(one).__name__}, not an image"
            if one.pixels.shape != shape or one.pixels.dtype != np.uint8:
                return (
                    f"the image of row {row} has shape {one.pixels.shape} of {one.pixels.dtype}, not {shape} of uint8"
                )
            if one.label not in output.kinds:
                return f"the image of row {row} has a class that the model does not know"
        return ""

    def expected(self, output: ImageOutput, answers: NDArray[np.object_], row: int) -> dict[str, Any]:
        """The class, and the pixels as a PNG file without a mark, in base64."""
        from contracts.provenance import plain_png

        one = answers[row]
        return {"label": one.label, "image": base64.b64encode(plain_png(one.pixels)).decode()}

    def differs(
        self, output: ImageOutput, expected: Any, answers: NDArray[np.object_], row: int, tolerance: float
    ) -> str:
        """`tolerance` is the mean difference of pixels, from 0 to 1."""
        import numpy as np

        got = answers[row]
        try:
            label, wanted = expected["label"], pixels_of(base64.b64decode(expected["image"], validate=True))
        except (TypeError, KeyError, ValueError):
            return "expected no image with a label"
        if label != got.label:
            return f"expected an image of {label}, got one of {got.label}"
        if wanted.shape != got.pixels.shape:
            return f"expected an image of shape {wanted.shape}, got {got.pixels.shape}"
        apart = float(np.abs(wanted.astype(np.float64) - got.pixels).mean()) / 255
        return "" if apart <= tolerance else f"pixels differ by {apart:.4g} in the mean, tolerance {tolerance:g}"

    def decide(self, output: ImageOutput, decision: Any, answers: NDArray[np.object_]) -> list[str]:
        """The classes."""
        return [one.label for one in answers]

    def documents(
        self, output: ImageOutput, decision: Any, answers: Any, decided: Sequence[str]
    ) -> list[dict[str, Any]]:
        """A PNG file in base64, with its mark, and what it shows."""
        return [{"label": one.label, "image": base64.b64encode(one.png()).decode()} for one in answers]

    def answer_model(self, output: ImageOutput) -> type[BaseModel]:
        """A class and a file."""
        about = f"a PNG file of {output.width}x{output.height} pixels in base64; it says of itself how it was made"
        return create_model(
            "Prediction",
            label=(one_of(output.kinds), Field(description="the class that the prompt names")),
            image=(str, Field(description=about)),
        )

    def tensors(self, output: ImageOutput) -> list[Tensor]:
        """The PNG file in base64, and the class."""
        return [Tensor(name="image", datatype="BYTES"), Tensor(name="label", datatype="BYTES")]

    def values(self, output: ImageOutput, name: str, answers: Any, decided: Sequence[str]) -> list[Any]:
        """Of each row."""
        if name == "label":
            return list(decided)
        return [base64.b64encode(one.png()).decode() for one in answers]

    def join(self, parts: Sequence[NDArray[np.object_]]) -> NDArray[np.object_]:
        """One array."""
        import numpy as np

        rows = [one for part in parts for one in part]
        made = np.empty(len(rows), dtype=object)
        made[:] = rows
        return made


PROBLEM = ImageProblem()
