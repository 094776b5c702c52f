"""Answering: whether the passage that answers a question is found and cited, and nothing is said where none does."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from contracts.problems.answering import Answered, answered_of, document_of, listed
from pipelines.evaluation.base import Batch, Evaluation, Measure, MetricNames
from pipelines.evaluation.parts import spread_rows
from pipelines.evaluation.text_measures import token_f1
from pipelines.evaluation.written import CITED, COLUMN, HIGHER, TITLES, WRITTEN, measured
from pipelines.formatting import number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import BundleDocument, Input
    from contracts.problems.answering import AnsweringOutput

_FIRST = (1, 5)  # passages that recall looks at
OF_ROWS = (
    "recall_at_1", "recall_at_5", "mrr", "answer_f1", "right", "answered",
    "citation_precision", "citation_recall", "false_answers", "refusal_precision", "leaked",
)  # fmt: skip
_SAMPLES = 8  # of the card
GIVEN, MADE = "given", "made"  # where questions are from


@dataclass(frozen=True)
class Wanted:
    """What a question should be answered with; all is empty where nothing answers it.

    Attributes:
        evidence: words that the passage has which answers it.
    """

    answer: str = ""
    evidence: str = ""
    document: str = ""

    def text(self) -> str:
        """As the column ``label`` has it."""
        return json.dumps(self.__dict__ if self.evidence else {}, ensure_ascii=False, sort_keys=True)

    @classmethod
    def read(cls, text: str) -> Wanted:
        """The inverse of `text`."""
        return cls(**json.loads(text))


def wanted_text(text: str) -> str:
    """A text as it is compared: in small letters, without spaces."""
    return "".join(text.casefold().split())


class Answering(Evaluation):
    """Answers are `Answered`; the column ``label`` has `Wanted`.

    A passage is right when it has the words of the evidence. Measures of what is found are of questions that something
    answers; ``false_answers`` of the others.
    """

    problem = "answering"
    usual = "right"
    higher = frozenset({
        "recall_at_1", "recall_at_5", "mrr", "answer_f1", "right", "answered", "citation_precision", "citation_recall",
        "refusal_precision",
    }) | HIGHER  # fmt: skip
    titles: ClassVar = {
        "recall_at_1": "Right passage is the first",
        "recall_at_5": "Right passage among the first five",
        "mrr": "Reciprocal rank of the right passage",
        "answer_f1": "F1 of words with the wanted answer",
        "right": "Answered from the right passage, or rightly not",
        "answered": "Answered, of what something answers",
        "citation_precision": "Citations that are right",
        "citation_recall": "Right passage is cited",
        "false_answers": "Answered, of what nothing answers",
        "refusal_precision": "Rightly not answered, of all not answered",
        "leaked": "Answers with a passage that the asker may not read",
        **TITLES,
    }
    plots = ("found", "confidence", "learning_curve")
    two_kinds = "different texts"

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """All of them, of every task; those of what a chat model writes where the configuration names one."""
        writer = getattr(config, "writer", None)
        return MetricNames(whole=(*OF_ROWS, *(WRITTEN if writer is not None and writer.url else ())))

    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: AnsweringOutput,
        decision: Any,
        only: Collection[str] | None = None,
    ) -> Measure:
        """Means over the rows of which each is measured; of citations over all of them."""
        import numpy as np

        names: tuple[str, ...] = OF_ROWS
        rows = _of_rows(frame, answers)
        cited = {OF_ROWS.index("citation_precision"): _cited(answers)}
        if COLUMN in frame:
            wanted = _wanted(frame)
            right = [_right(*one) for one in zip(wanted, answers, strict=True)]
            more, theirs = measured(frame, answers, right, [one.answer if one.evidence else "" for one in wanted])
            cited[len(OF_ROWS) + CITED] = theirs
            rows, names = np.concatenate([rows, more], axis=1), (*OF_ROWS, *WRITTEN)
        defined = np.isfinite(rows)
        filled = np.where(defined, rows, 0.0)
        defined = defined * np.ones(rows.shape)
        for at, weights in cited.items():
            defined[:, at] *= weights

        def measure(weight: Any = None) -> dict[str, float]:
            w = np.ones(len(rows)) if weight is None else np.asarray(weight)
            total = w @ defined
            sums = w @ (filled * defined)
            means = np.where(total > 0, sums / np.maximum(total, 1e-12), np.nan)
            return dict(zip(names, means.tolist(), strict=True))

        return measure

    def interval_metrics(self, output: AnsweringOutput, primary: str) -> Collection[str] | None:
        """All: they are ratios of sums."""
        return None

    def associate(self, codes: NDArray[np.int64], label: NDArray[Any], fit: NDArray[np.bool_]) -> None:
        """Every paragraph is another, so no column is said to give it away."""

    def rows_text(self, result: Mapping[str, Any]) -> str:
        """How many questions nothing answers."""
        return f"{number(result['asked']['unanswerable'])} that nothing answers"

    def draw(
        self, folder: Path, frame: pd.DataFrame, answers: Any, output: AnsweringOutput, decision: Any, result: Any
    ) -> None:
        """How far down the right passage is; and how sure answers are of both kinds of questions."""
        import numpy as np

        from pipelines.evaluation.plots import BLUE, GREY, figure

        ranks = np.array([rank for rank in map(_rank, _wanted(frame), answers) if rank is not None])
        with figure(folder / "found.png", "How far down", "passages", "questions whose passage is found") as axes:
            sizes = np.arange(1, max(2, output.k) + 1)
            axes.plot(sizes, [float(np.mean(ranks <= size)) if len(ranks) else 0.0 for size in sizes], marker="o")
            axes.set(ylim=(0, 1.02))
        sure = np.array([one.confidence for one in answers])
        can = np.array([bool(one.evidence) for one in _wanted(frame)])
        with figure(folder / "confidence.png", "How sure", "confidence", "questions") as axes:
            bins = np.linspace(0, 1, 21).tolist()
            axes.hist([sure[can], sure[~can]], bins=bins, color=[BLUE, GREY], label=["answerable", "nothing answers"])
            axes.axvline(output.threshold, color="black", linewidth=1, label="threshold")
            axes.legend(loc="best")

    def curves(self, frame: pd.DataFrame, answers: Any, output: AnsweringOutput, decision: Any) -> dict[str, Any]:
        """``asked``: how many there are and nothing answers; ``questions`` of the card, from the least sure one."""
        wanted = _wanted(frame)
        chosen = spread_rows([one.confidence for one in answers], _SAMPLES)
        shown = [
            {
                "question": _texts(frame, "question")[at],
                "wanted": wanted[at].answer,
                "answer": answers[at].text,
                "cited": ", ".join(
                    dict.fromkeys(answers[at].passages[each.passage].id for each in answers[at].citations)
                ),
                "confidence": answers[at].confidence,
            }
            for at in sorted(chosen.tolist(), key=lambda at: answers[at].confidence)
        ]
        made = "slice_questions" in frame and bool((frame["slice_questions"] == MADE).any())
        asked = {"rows": len(frame), "unanswerable": sum(not one.evidence for one in wanted), "made": made}
        return {"asked": asked, "questions": shown}

    def golden_rows(self, output: AnsweringOutput, answers: Any, most: int) -> NDArray[np.int64]:
        """From the least sure answer to the surest."""
        return spread_rows([one.confidence for one in answers], most)

    def baseline(self, output: AnsweringOutput, answers: Any) -> dict[str, Any]:
        """``scores``: deciles of the confidence; ``labels``: the shares of questions that are answered and not."""
        from contracts.baseline import numbers

        sure = self.watched(output, None, answers)["answer"]
        found = sum(one.found for one in answers) / max(1, len(answers))
        return {"scores": {"confidence": numbers(sure)}, "labels": {"answer": found, "(not found)": 1 - found}}

    def watched(self, output: AnsweringOutput, decision: Any, answers: Any) -> dict[str, NDArray[Any]]:
        """How sure an answer is, whether something is found, and how many citations it has."""
        import numpy as np

        return {
            "answer": np.array([one.confidence for one in answers], dtype=np.float64),
            "found": np.array(["yes" if one.found else "no" for one in answers], dtype=object),
            "citations": np.array([len(one.citations) for one in answers], dtype=np.float64),
        }

    def described(self, inputs: Sequence[Input]) -> Sequence[Input]:
        """The question: labels and the number of passages say nothing of what is asked."""
        return [item for item in inputs if item.name == "question"]

    def batch(self, output: AnsweringOutput, decision: Any) -> Batch:
        """The answer, whether it was found, how sure it is, and citations as JSON."""
        return _Batch()

    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """How many were answered."""
        return ("questions", "number"), [(name, number(value)) for name, value in summary["questions"].items()]

    def answers_text(self, document: BundleDocument) -> str:
        """What is searched, and when it answers."""
        output: Any = document.signature.output
        return (
            f"Answers questions from {output.passages:,} passages of {output.documents:,} documents, which the bundle "
            f"holds, and says that nothing was found where its confidence is below {output.threshold:.3g}."
        )

    def save(self, file: Path, answers: Any) -> None:
        """As JSON, an answer a line."""
        lines = [
            json.dumps({**document_of(one), "labels": [each.labels for each in one.passages]}, ensure_ascii=False)
            for one in answers
        ]
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def read(self, file: Path) -> Any:
        """What `save` wrote."""
        from dataclasses import replace

        import numpy as np

        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        found = np.empty(len(lines), dtype=object)
        for at, line in enumerate(lines):
            said = json.loads(line)
            one, labels = answered_of(said), said["labels"]
            kept = [replace(each, labels=tuple(mine)) for each, mine in zip(one.passages, labels, strict=True)]
            found[at] = replace(one, passages=tuple(kept))
        return found


class _Batch(Batch):
    columns = ("answer", "found", "confidence", "citations")

    def __init__(self) -> None:
        self._rows = self._found = 0

    def add(self, answers: Any) -> list[Any]:
        import pyarrow as pa

        self._rows += len(answers)
        self._found += sum(one.found for one in answers)
        cited = [json.dumps(document_of(one)["citations"], ensure_ascii=False) for one in answers]
        return [
            pa.array([one.text for one in answers], pa.string()),
            pa.array([one.found for one in answers], pa.bool_()),
            pa.array([one.confidence for one in answers], pa.float64()),
            pa.array(cited, pa.string()),
        ]

    def document(self) -> dict[str, Any]:
        return {"questions": {"answered": self._found, "not found": self._rows - self._found}}


def _wanted(frame: pd.DataFrame) -> list[Wanted]:
    return [Wanted.read(text) for text in frame["label"]]


def _texts(frame: pd.DataFrame, name: str) -> list[str]:
    return [str(one) for one in frame[name]] if name in frame else [""] * len(frame)


def _right(wanted: Wanted, answer: Answered) -> list[bool]:
    """Which passages have the evidence; none where nothing answers."""
    words = wanted_text(wanted.evidence)
    return [bool(words) and words in wanted_text(one.text) for one in answer.passages]


def _rank(wanted: Wanted, answer: Answered) -> float | None:
    """Place of the first passage with the evidence, from 1; infinite where none has it; None: nothing answers it."""
    if not wanted.evidence:
        return None
    return next((at for at, one in enumerate(_right(wanted, answer), 1) if one), float("inf"))


def _cited(answers: Any) -> NDArray[np.float64]:
    """How many citations each answer has."""
    import numpy as np

    return np.array([len(one.citations) for one in answers], dtype=np.float64)


def _of_rows(frame: pd.DataFrame, answers: Any) -> NDArray[np.float64]:
    """What is measured of each row, in the order of `OF_ROWS`; NaN where a row says nothing of it."""
    import numpy as np

    nan = float("nan")
    rows = []
    for wanted, one, labels in zip(_wanted(frame), answers, _texts(frame, "labels"), strict=True):
        can, found = bool(wanted.evidence), _right(wanted, one)
        hits = [found[each.passage] for each in one.citations]
        rank, good = _rank(wanted, one), any(hits)
        asker = set(listed(labels))
        values = dict.fromkeys(OF_ROWS, nan)
        if rank is not None:
            values |= {f"recall_at_{size}": float(rank <= size) for size in _FIRST}
            values |= {"mrr": 1 / rank, "answer_f1": token_f1(one.text, wanted.answer)}
            values |= {"answered": float(one.found), "citation_recall": float(good)}
        values |= {
            "right": float(good if can else not one.found),
            "citation_precision": float(np.mean(hits)) if hits else nan,
            "false_answers": nan if can else float(one.found),
            "refusal_precision": nan if one.found else float(not can),
            "leaked": float(any(each.labels and asker.isdisjoint(each.labels) for each in one.passages)),
        }
        rows.append([values[name] for name in OF_ROWS])
    return np.array(rows, dtype=np.float64).reshape(-1, len(OF_ROWS))


EVALUATION = Answering()
