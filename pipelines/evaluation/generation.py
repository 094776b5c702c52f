"""Generation: a text for each row, measured against a reference, and against the source that it must keep to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.evaluation.base import Batch, Evaluation, Measure, MetricNames
from pipelines.evaluation.parts import spread_rows
from pipelines.formatting import number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import BundleDocument, Input
    from contracts.engine import Engine
    from contracts.problems.generation import GenerationOutput

OVERLAP = ("rouge_1", "rouge_2", "rouge_l", "token_f1", "exact_match")
OF_ROWS = (
    *OVERLAP, "words", "length_ratio", "repetition", "empty",
    "unsupported_numbers", "unsupported_names", "unsupported_quotes", "facts_kept",
)  # fmt: skip
OF_SETS = ("bleu", "chrf", "distinct_1", "distinct_2")
_SAMPLES, _SHOWN = 6, 700  # of the card: rows, and characters of a text
_OWN = frozenset({"id", "label", "row_key"})  # columns of a data set that are no text of the source


class Generation(Evaluation):
    """Answers are texts, an object array; the column ``label`` is the reference, the other texts are the source."""

    problem = "generation"
    explained_in = "share of its words"
    usual = "rouge_l"
    higher = frozenset({*OVERLAP, *OF_SETS, "facts_kept"})
    titles: ClassVar = {
        "rouge_1": "ROUGE-1, F1",
        "rouge_2": "ROUGE-2, F1",
        "rouge_l": "ROUGE-L, F1",
        "bleu": "BLEU, of 100",
        "chrf": "chrF2, of 100",
        "token_f1": "F1 of words",
        "exact_match": "The reference, word for word",
        "distinct_1": "Different words, by all words",
        "distinct_2": "Different pairs of words, by all pairs",
        "words": "Words of an answer",
        "length_ratio": "Words, by those of the reference",
        "repetition": "Four words that were there before",
        "empty": "Answers without text",
        "unsupported_numbers": "Answers with a number that the source has not",
        "unsupported_names": "Answers with a name that the source has not",
        "unsupported_quotes": "Answers with a quote that the source has not",
        "facts_kept": "Facts of the source, NAME: VALUE, that the answer has",
    }
    plots = ("overlap", "lengths", "learning_curve")
    two_kinds = "different texts"

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """All of them, of every task."""
        return MetricNames(whole=(*OF_ROWS, *OF_SETS))

    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: GenerationOutput,
        decision: Any,
        only: Collection[str] | None = None,
    ) -> Measure:
        """Means of what is measured of each row, and what sets of texts have as a whole."""
        import numpy as np

        rows = _of_rows(frame, answers)
        defined = np.isfinite(rows)
        filled = np.where(defined, rows, 0.0)
        whole = _of_sets(frame, answers, OF_SETS if only is None else [name for name in OF_SETS if name in only])

        def measure(weight: Any = None) -> dict[str, float]:
            w = np.ones(len(rows)) if weight is None else np.asarray(weight)
            total = w @ defined
            means = np.where(total > 0, (w @ filled) / np.maximum(total, 1e-12), np.nan)
            found = dict(zip(OF_ROWS, means.tolist(), strict=True))
            return found | {name: of(weight) for name, of in whole.items()}

        return measure

    def interval_metrics(self, output: GenerationOutput, primary: str) -> Collection[str]:
        """Those of rows: of drawn rows fewer n-grams are distinct, and BLEU of each draw takes long."""
        return {*OF_ROWS, primary}

    def associate(self, codes: NDArray[np.int64], label: NDArray[Any], fit: NDArray[np.bool_]) -> None:
        """A text is not ranked, so no column is said to give it away."""

    def rows_text(self, result: Mapping[str, Any]) -> str:
        """How long the references are."""
        return f"references of {number(result['references']['words'])} words"

    def draw(
        self, folder: Path, frame: pd.DataFrame, answers: Any, output: GenerationOutput, decision: Any, result: Any
    ) -> None:
        """How ROUGE-L is distributed, and the words of answers against those of references."""
        import numpy as np

        from contracts.texts import words
        from pipelines.evaluation.plots import BLUE, GREY, figure

        overlap = _of_rows(frame, answers)[:, OF_ROWS.index("rouge_l")]
        with figure(folder / "overlap.png", "Overlap with the reference", "ROUGE-L", "rows") as axes:
            axes.hist(overlap, bins=np.linspace(0, 1, 21).tolist(), color=BLUE)
        said, wanted = ([len(words(text)) for text in texts] for texts in (answers, frame["label"]))
        with figure(folder / "lengths.png", "Length", "words of the reference", "words of the answer") as axes:
            most = max(1, *said, *wanted)
            axes.plot([0, most], [0, most], color=GREY, linewidth=1)
            axes.scatter(wanted, said, s=9, alpha=0.5, color=BLUE)

    def curves(self, frame: pd.DataFrame, answers: Any, output: GenerationOutput, decision: Any) -> dict[str, Any]:
        """``samples`` of the card, from the least overlap to the most, and the mean length of ``references``."""
        from contracts.texts import words

        overlap = _of_rows(frame, answers)[:, OF_ROWS.index("rouge_l")]
        source, label = sources(frame), frame["label"].tolist()
        rows = sorted(spread_rows(overlap, _SAMPLES).tolist(), key=lambda at: (overlap[at], at))
        samples = [
            {
                "source": _cut(source[at]),
                "reference": _cut(label[at]),
                "answer": _cut(answers[at]),
                "rouge_l": round(float(overlap[at]), 4),
            }
            for at in rows
        ]
        mean = sum(len(words(text)) for text in label) / max(1, len(label))
        return {"samples": samples, "references": {"words": round(mean, 1)}}

    def explained(
        self, output: GenerationOutput, decision: Any, answers: Any, like: Any, alone: bool
    ) -> NDArray[np.float64]:
        """The share of the answer's words that are still there."""
        import numpy as np

        from contracts.engines.extractive import kept

        return np.array([kept(one, found) for one, found in zip(like, answers, strict=True)])

    def golden_rows(self, output: GenerationOutput, answers: Any, most: int) -> NDArray[np.int64]:
        """From the shortest answer to the longest."""
        import numpy as np

        return spread_rows(np.array([len(text) for text in answers]), most)

    def baseline(self, output: GenerationOutput, answers: Any) -> dict[str, Any]:
        """``scores``: deciles of the number of words."""
        from contracts.baseline import numbers

        return {"scores": {"words": numbers(self.watched(output, None, answers)["answer"])}}

    def watched(self, output: GenerationOutput, decision: Any, answers: Any) -> dict[str, NDArray[Any]]:
        """Words, repetition, language and refusal of each answer; its tokens, where the engine counts them."""
        import numpy as np

        from contracts.texts import described

        said = [described(text) for text in answers]
        numbers = {"answer": "words", "repetition": "repetition"}
        found = {name: np.array([one[key] for one in said], dtype=np.float64) for name, key in numbers.items()}
        found |= {name: np.array([one[name] for one in said], dtype=object) for name in ("language", "refused")}
        tokens = np.array([getattr(text, "tokens", 0) for text in answers], dtype=np.float64)
        return found | ({"tokens": np.where(tokens > 0, tokens, np.nan)} if tokens.any() else {})

    def asked(
        self, engine: Engine, columns: Mapping[str, NDArray[Any]], inputs: Sequence[Input], answers: Any
    ) -> dict[str, NDArray[Any]]:
        """The first rule of the guard that holds in what is asked or in the answer, where the service has one."""
        import numpy as np

        from contracts.guard_rules import RULES, find, watched

        if not getattr(engine, "guarded", False):
            return {}
        texts = [columns[item.name] for item in inputs if item.dtype == "string"]
        after = [rule for rule in RULES if rule.group != "injection"]

        def first(said: Sequence[str], answer: str) -> str:
            found = [one for text in said for one in find(str(text), RULES)] + find(answer, after)
            return watched(one.rule.name for one in found)

        rows = zip(*texts, answers, strict=True)
        return {"guard": np.array([first(said, answer) for *said, answer in rows], dtype=object)}

    def batch(self, output: GenerationOutput, decision: Any) -> Batch:
        """The text."""
        return _Batch()

    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """How many texts there are, how long, and how many do not answer."""
        return ("texts", "number"), [(name, number(value)) for name, value in summary["texts"].items()]

    def answers_text(self, document: BundleDocument) -> str:
        """The longest that may be."""
        output: Any = document.signature.output
        return f"Answers a text of at most {output.max_characters:,} characters."

    def save(self, file: Path, answers: Any) -> None:
        """In UTF-8, and where each text ends."""
        import numpy as np

        parts = [text.encode() for text in answers]
        with file.open("wb") as stream:
            np.save(stream, np.frombuffer(b"".join(parts), dtype=np.uint8))
            np.save(stream, np.cumsum([len(part) for part in parts], dtype=np.int64))

    def read(self, file: Path) -> Any:
        """What `save` wrote."""
        import numpy as np

        with file.open("rb") as stream:
            whole, ends = (np.load(stream, allow_pickle=False) for _ in range(2))
        data, starts = whole.tobytes(), [0, *ends.tolist()]
        return np.array([data[start:end].decode() for start, end in zip(starts, ends, strict=False)], dtype=object)


class _Batch(Batch):
    def __init__(self) -> None:
        self.columns = ["text"]
        self._rows = self._words = self._empty = self._refused = 0

    def add(self, answers: Any) -> list[Any]:
        import pyarrow as pa

        from contracts.texts import described

        for text in answers:
            said = described(text)
            self._rows, self._words = self._rows + 1, self._words + said["words"]
            self._empty += not text
            self._refused += said["refused"] == "yes"
        return [pa.array(list(answers), pa.string())]

    def document(self) -> dict[str, Any]:
        mean = round(self._words / max(1, self._rows), 2)
        return {"texts": {"mean words": mean, "empty": self._empty, "refused": self._refused}}


def _of_rows(frame: pd.DataFrame, answers: Any) -> NDArray[np.float64]:
    """What is measured of each row, in the order of `OF_ROWS`."""
    import numpy as np

    from pipelines.evaluation.text_measures import measured

    found = [[one[name] for name in OF_ROWS] for one in map(measured, answers, frame["label"].tolist(), sources(frame))]
    return np.array(found, dtype=np.float64).reshape(len(found), len(OF_ROWS))


def _of_sets(frame: pd.DataFrame, answers: Any, names: Sequence[str]) -> dict[str, Callable[[Any], float]]:
    from pipelines.evaluation import corpus_measures as by

    said, wanted = list(answers), frame["label"].tolist()
    makers: dict[str, Callable[[], Callable[[Any], float]]] = {
        "bleu": lambda: by.bleu(said, wanted),
        "chrf": lambda: by.chrf(said, wanted),
        "distinct_1": lambda: by.distinct(said, 1),
        "distinct_2": lambda: by.distinct(said, 2),
    }
    return {name: makers[name]() for name in names}


def sources(frame: pd.DataFrame) -> list[str]:
    """The texts that answers are made of, of each row as one."""
    names = [name for name in frame.columns if name not in _OWN and not str(name).startswith("slice_")]
    fields = [frame[name].fillna("").astype(str).tolist() for name in names if frame[name].dtype.kind == "O"]
    return ["\n".join(row) for row in zip(*fields, strict=True)] if fields else [""] * len(frame)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


EVALUATION = Generation()
