"""Answers that a chat model writes to the test questions, measured beside those that are quoted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from contracts.written_answers import cited_places, uncited
from pipelines.evaluation.faithfulness import unsupported
from pipelines.evaluation.text_measures import token_f1

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.problems.answering import Answered

COLUMN = "written"  # of the test rows: `Said` as JSON; "" where the model is not asked
FAILED, REFUSED = "failed", "not_found"  # why nothing of it is taken
WRITTEN = (
    "written_f1", "served_f1", "written_citation_precision", "written_taken", "written_refused_rightly",
    "written_refused_wrongly", "written_unsupported_numbers", "written_unsupported_names", "written_failed",
)  # fmt: skip
CITED = WRITTEN.index("written_citation_precision")
HIGHER = frozenset({
    "written_f1", "served_f1", "written_citation_precision", "written_taken", "written_refused_rightly",
})  # fmt: skip
TITLES = {
    "written_f1": "F1 of words of what the chat model writes with the wanted answer",
    "served_f1": "F1 of words of what is served then, written or quoted",
    "written_citation_precision": "Citations of what it writes that are right",
    "written_taken": "Taken as it is written, of what it does not refuse",
    "written_refused_rightly": "Not answered by it, where no passage that it reads answers",
    "written_refused_wrongly": "Not answered by it, though a passage that it reads answers",
    "written_unsupported_numbers": "It writes a number that passages and question have not",
    "written_unsupported_names": "It writes a name that passages and question have not",
    "written_failed": "It refuses the request",
}


@dataclass(frozen=True)
class Said:
    """What the chat model made of one question.

    Attributes:
        text: as it was written.
        why: a service does not take it, as `contracts.written_answers.written` says it, or `FAILED`; "": it takes it.
        served: what a service answers then.
        read: passages that the model got, the first ones of the answer's.
    """

    text: str
    why: str
    served: str
    read: int

    def json(self) -> str:
        """As `COLUMN` has it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def of(cls, text: str) -> Said | None:
        """The inverse of `json`; None where the model was not asked."""
        return cls(**json.loads(text)) if text else None


def measured(
    frame: pd.DataFrame, answers: Any, right: list[list[bool]], wanted: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is measured of each row, in the order of `WRITTEN`, NaN where it says nothing of it; and its citations.

    F1 is of words, of Chinese text of characters.

    Args:
        right: of each row, which of the answer's passages have the evidence.
        wanted: the answers; "" where nothing answers.
    """
    import numpy as np

    said = [Said.of(text) for text in frame[COLUMN]]
    asked = frame["question"].astype(str)
    rows = [_row(*one) for one in zip(said, asked, answers, right, wanted, strict=True)]
    cited = [len(cited_places(one.text)) if one is not None and _wrote(one) else 0 for one in said]
    return np.array(rows, dtype=np.float64).reshape(-1, len(WRITTEN)), np.array(cited, dtype=np.float64)


def _row(said: Said | None, question: str, quoted: Answered, right: list[bool], wanted: str) -> list[float]:
    values = dict.fromkeys(WRITTEN, float("nan"))
    if wanted:
        values["served_f1"] = token_f1(uncited(said.served if said else quoted.text), wanted)
    if said is not None:
        wrote, read = _wrote(said), right[: said.read]
        values["written_failed"] = float(said.why == FAILED)
        if wanted:
            values["written_f1"] = token_f1(uncited(said.text), wanted) if wrote else 0.0
        if said.why != FAILED:
            kind = "wrongly" if any(read) else "rightly"
            values[f"written_refused_{kind}"] = float(said.why == REFUSED)
        if wrote:
            source = [question, *(f"{one.title} {one.section} {one.text}" for one in quoted.passages[: said.read])]
            beyond = unsupported(uncited(said.text), "\n".join(source))
            hits = [0 <= at < len(read) and read[at] for at in cited_places(said.text)]
            values["written_taken"] = float(not said.why)
            values["written_unsupported_numbers"] = float(bool(beyond.numbers))
            values["written_unsupported_names"] = float(bool(beyond.names))
            if hits:
                values["written_citation_precision"] = sum(hits) / len(hits)
    return [values[name] for name in WRITTEN]


def _wrote(said: Said) -> bool:
    return said.why not in (FAILED, REFUSED)
