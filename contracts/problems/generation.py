"""Generation: a text for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, Field, create_model

from contracts.problems.base import Output, Problem, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Written(str):
    """An answer that says of itself what its reader has to know.

    Attributes:
        truncated: the end of the input was not read, as it is longer than what the model takes.
        unfinished: it stops at the limit of its length, not at its end.
        tokens: that were written, as the engine counts them; 0: it does not say.
    """

    truncated: bool
    unfinished: bool
    tokens: int

    def __new__(cls, text: str, *, truncated: bool = False, unfinished: bool = False, tokens: int = 0) -> Self:
        made = super().__new__(cls, text)
        made.truncated, made.unfinished, made.tokens = truncated, unfinished, tokens
        return made


class GenerationOutput(Output):
    """Attributes:
    max_characters: no answer is longer.
    says_cut: answers say whether their input or they themselves were cut, see `Written`.
    """

    problem: Literal["generation"] = "generation"
    max_characters: int = Field(ge=1)
    says_cut: bool = False


_CUTS = {
    "truncated": "the end of the input was not read, as it is longer than what the model takes",
    "unfinished": "the text stops at the limit of its length, not at its end",
}


class Generation(Problem["NDArray[np.object_]"]):
    """Answers are texts, an object array of str, shape (rows,); a decision is the text.

    Decoding is greedy wherever golden examples are made: the same input has the same answer.
    """

    name = "generation"
    output = GenerationOutput

    def wrong(self, output: GenerationOutput, answers: NDArray[np.object_], rows: int) -> str:
        """One text per row, which can be written as UTF-8 and is not too long."""
        found = getattr(answers, "shape", None)
        if found != (rows,):
            return f"the model gives {found}, not one text per example: {(rows,)}"
        for row, text in enumerate(answers):
            if not isinstance(text, str):
                return f"the answer to row {row} is {type(text).__name__}, not a text"
            if len(text) > output.max_characters:
                return f"the answer to row {row} has {len(text)} characters, at most {output.max_characters} may be"
            if not _is_unicode(text):
                return f"the answer to row {row} has half a character, which is not UTF-8"
        return ""

    def expected(self, output: GenerationOutput, answers: NDArray[np.object_], row: int) -> str:
        """The text."""
        return str(answers[row])

    def differs(
        self, output: GenerationOutput, expected: Any, answers: NDArray[np.object_], row: int, tolerance: float
    ) -> str:
        """`tolerance` is the share of characters that may be others, which it takes to be where arithmetic varies."""
        from contracts.texts import common

        got = answers[row]
        if not isinstance(expected, str) or not isinstance(got, str):
            return f"expected a text, got {type(got).__name__} in the place of {type(expected).__name__}"
        if got == expected or 1 - 2 * common(expected, got) / (len(expected) + len(got)) <= tolerance:
            return ""
        at = next((at for at, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), len(min(expected, got)))
        return f"expected another text from character {at} on, of {len(expected)}; got {len(got)}"

    def decide(self, output: GenerationOutput, decision: Any, answers: NDArray[np.object_]) -> list[str]:
        """The text."""
        found: list[str] = answers.tolist()
        return found

    def documents(
        self, output: GenerationOutput, decision: Any, answers: Any, decided: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The text, and what of it or its input was cut."""
        if not output.says_cut:
            return [{"text": text} for text in decided]
        return [{"text": str(text), **{name: getattr(text, name, False) for name in _CUTS}} for text in decided]

    def answer_model(self, output: GenerationOutput) -> type[BaseModel]:
        """A text."""
        about = f"what the model writes, at most {output.max_characters} characters; it may be empty"
        text = (str, Field(description=about, max_length=output.max_characters))
        if not output.says_cut:
            return create_model("Prediction", text=text)
        cuts: dict[str, Any] = {name: (bool, Field(description=meaning)) for name, meaning in _CUTS.items()}
        return create_model("Prediction", text=text, **cuts)

    def tensors(self, output: GenerationOutput) -> list[Tensor]:
        """The text, in UTF-8, and what of it or its input was cut."""
        cuts = [Tensor(name=name, datatype="BOOL") for name in _CUTS] if output.says_cut else []
        return [Tensor(name="text", datatype="BYTES"), *cuts]

    def values(self, output: GenerationOutput, name: str, answers: Any, decided: Sequence[str]) -> list[Any]:
        """The texts, or whether each was cut."""
        return list(decided) if name == "text" else [getattr(text, name, False) for text in decided]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


PROBLEM = Generation()
