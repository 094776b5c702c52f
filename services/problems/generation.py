"""Generation: answers are counted by what became of them, and observed by their words. A text is never logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.metric_names import ANSWER_WORDS, WORD_BUCKETS
from contracts.texts import described
from services.problems.base import Count, Distribution, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.generation import GenerationOutput

_TEXT, EMPTY, REFUSED = "text", "(empty)", "(refused)"
_WATCHED = {"answer": "words", "repetition": "repetition", "language": "language", "refused": "refused"}
_SAID = ("tokens", "guard")  # of chats


class GenerationServing(Serving):
    """See `services.problems.base.Serving`; a decision is the text."""

    def labels(self, output: GenerationOutput) -> Sequence[str]:
        """A text that answers, none, or one that refuses to."""
        return (_TEXT, EMPTY, REFUSED)

    def distribution(self, output: GenerationOutput, golden: Sequence[Golden]) -> Distribution:
        """Of the number of words; a Chinese character is one."""
        return Distribution(name=ANSWER_WORDS, text="Words of an answer.", edges=WORD_BUCKETS)

    def count(self, answers: Any, decided: Sequence[str], labels: Mapping[str, Count], observed: Series) -> None:
        """Each row, and its words."""
        for text in decided:
            said = described(text)
            labels[EMPTY if not text else REFUSED if said["refused"] == "yes" else _TEXT].inc()
            observed.observe(said["words"])

    def record(self, answers: Any, decided: Sequence[str], row: int) -> dict[str, Any]:
        """Lengths, repetition, language, refusal and cuts; the answer itself repeats the input, so it is not kept."""
        text = decided[row]
        cuts = {name: True for name in ("truncated", "unfinished") if getattr(text, name, False)}
        tokens = getattr(text, "tokens", 0)
        return described(text) | cuts | ({"tokens": tokens} if tokens else {})

    def parameters(self, output: GenerationOutput) -> dict[str, Any]:
        """How long answers may be."""
        return output.model_dump()

    def summary(self, output: GenerationOutput) -> str:
        """A text."""
        return f"a text of at most {output.max_characters} characters"

    def answers(self, output: GenerationOutput, documents: Sequence[Mapping[str, Any]]) -> NDArray[np.object_]:
        """The texts."""
        import numpy as np

        return np.array([one["text"] for one in documents], dtype=object)

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Words, the share of them that repeats, the language, refusal; of chats tokens, and the guard's first rule."""
        found = {name: record.get(key) for name, key in _WATCHED.items()}
        return found | {name: record[name] for name in _SAID if name in record}


SERVING = GenerationServing()
