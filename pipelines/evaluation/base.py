"""What an evaluation is: all that the steps ask about answers of one problem, so that no step knows a problem.

An evaluation is stateless; importing its module is cheap. Its object is called ``EVALUATION``.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import Bundle, BundleDocument, Input
    from contracts.engine import Engine
    from contracts.fairness import Outcome
    from contracts.problems.classification import Decision
    from pipelines.evaluation.comparison import Pair
    from pipelines.task import AddedStep

Measure = Callable[[Any], dict[str, float]]  # metrics by name, of weights for the rows; None: every row once
FEW = 30  # with more classes, a class has no metric of its own
_OF_SLICE = "rows"  # is measured of slices alone
_TITLES = {"latency_ms": "One prediction, ms", "bundle_mb": "Size, MB"}


@dataclass(frozen=True, kw_only=True)
class MetricNames:
    """The metrics that a gate may name.

    whole: of all rows.  each: families that every class has one of, as ``f1`` in ``f1:sports``.
    classes: None where only the data tell.
    """

    whole: Sequence[str]
    each: Sequence[str] = ()
    classes: Sequence[str] | None = None

    def has(self, metric: str) -> bool:
        """Whether it may be measured; names of slices, their values and classes may have colons of their own."""
        if metric in self.whole or self._is_of_class(metric):
            return True
        parts = metric.split(":")
        ends = [":".join(parts[at:]) for at in range(2, len(parts))]
        return any(end in self.whole or end == _OF_SLICE or self._is_of_class(end) for end in ends)

    def known(self) -> list[str]:
        """All that can be written out."""
        few = [name for name in self.classes or () if len(self.classes or ()) <= FEW]
        return [*self.whole, *(f"{family}:{name}" for family in self.each for name in few)]

    def accepted(self) -> list[str]:
        """As a message lists them."""
        unknown = [f"{family}:CLASS" for family in self.each if self.classes is None]
        return [*self.known(), *unknown]

    def near(self, metric: str) -> str:
        """The accepted metric that was most likely meant, of the same slice; "" without one."""
        slice_of, _, last = metric.rpartition(":")
        before, meant = (f"{slice_of}:", last) if ":" in slice_of else ("", metric)
        known = self.known()
        near = [*difflib.get_close_matches(meant, known, 1), *(name for name in known if meant.startswith(name))]
        return f"{before}{near[0]}" if near else ""

    def _is_of_class(self, metric: str) -> bool:
        family, _, name = metric.partition(":")
        if family not in self.each or not name:
            return False
        return self.classes is None or (name in self.classes and len(self.classes) <= FEW)


class Batch(ABC):
    """Answers of batch scoring, chunk by chunk.

    Attributes:
        columns: names of the columns that each row gets.
    """

    columns: Sequence[str]

    @abstractmethod
    def add(self, answers: Any) -> list[Any]:
        """The columns of a chunk as Arrow arrays."""

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """What the summary says about all chunks."""


class Evaluation(ABC):
    """How answers of a problem are measured, drawn, described and written.

    `frame` always has the column ``label``, as the task's split gives it; `output` is the signature's output part.

    Attributes:
        problem: its name.
        explained_in: what `explained` is counted in.
        usual: the metric that models are compared by where a gate does not say, and that is suggested.
        higher: metrics of which more is better, a family by its name alone.
        titles: metrics in words, where their name is not enough; of a family with ``{}`` for the class.
        plots: names of the pictures in the order of the card.
        association: what `associate` gives, as a message calls it.
        two_kinds: what data must have at least two of, as a message calls it.
        steps: that every run of a task of this problem has more than others.
    """

    problem: ClassVar[str]
    usual: ClassVar[str]
    higher: ClassVar[frozenset[str]]
    explained_in: ClassVar[str] = "log-odds"
    titles: ClassVar[Mapping[str, str]]
    plots: ClassVar[Sequence[str]]
    association: ClassVar[str] = "AUC"
    two_kinds: ClassVar[str]
    steps: ClassVar[Mapping[str, AddedStep]] = {}

    def labels(self, values: pd.Series[Any]) -> pd.Series[Any]:
        """The column ``label`` of a table's own column; names here, and a row without one has none of them."""
        return values.fillna("").astype(str)

    @abstractmethod
    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """What a gate of the task may name; `config` is the recipe's, with its settings."""

    @abstractmethod
    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: Any,
        decision: Decision | None,
        only: Collection[str] | None = None,
    ) -> Measure:
        """The metrics as a function of row weights; `only` are those that are wanted, where that saves time."""

    def judged_otherwise(
        self, candidate: Bundle, champion: Bundle, dataset: Path
    ) -> tuple[tuple[str, Pair] | None, str]:
        """A metric of which more is better, and both models by it, where the gate's primary metric is no judge of them;
        None where it is. And a remark, which may be empty."""
        return None, ""

    @abstractmethod
    def associate(self, codes: NDArray[np.int64], label: NDArray[Any], fit: NDArray[np.bool_]) -> float | None:
        """How well a column tells the label, from 0.5 (not at all) to 1 (it gives it away); None: cannot be said.

        Rows of `fit` give each of the column's values, numbered by `codes`, a prediction; the others are ranked by it.
        """

    @abstractmethod
    def draw(
        self, folder: Path, frame: pd.DataFrame, answers: Any, output: Any, decision: Decision | None, result: Any
    ) -> None:
        """Pictures as PNG files; `result` is what evaluation.json says so far."""

    @abstractmethod
    def golden_rows(self, output: Any, answers: Any, most: int) -> NDArray[np.int64]:
        """Rows to replay, over the whole range of answers, so that a wrong model cannot pass by chance."""

    @abstractmethod
    def baseline(self, output: Any, answers: Any) -> dict[str, Any]:
        """What normal answers look like, beside the inputs in ``baseline.json``."""

    @abstractmethod
    def batch(self, output: Any, decision: Decision | None) -> Batch:
        """The columns of batch scoring."""

    @abstractmethod
    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """A table of the summary of batch scoring for people: headings and rows."""

    @abstractmethod
    def answers_text(self, document: BundleDocument) -> str:
        """What the model answers, as one sentence of the card."""

    def watched(self, output: Any, decision: Decision | None, answers: Any) -> dict[str, NDArray[Any]]:
        """What monitors watch of answers, by the names of `Serving.watched`: numbers, or names of categories."""
        return {}

    def asked(
        self, engine: Engine, columns: Mapping[str, NDArray[Any]], inputs: Sequence[Input], answers: Any
    ) -> dict[str, NDArray[Any]]:
        """What monitors watch of answers that depends on the engine or on what was asked, as `watched`."""
        return {}

    def explained(
        self, output: Any, decision: Decision | None, answers: Any, like: Any, alone: bool
    ) -> NDArray[np.float64] | None:
        """The number of each row that its reasons are about, shape (rows,); None where they are about none.

        Args:
            answers: to changed copies of rows.  like: to the rows as they are.
            alone: reasons are about what was answered to their row, and not about one thing for all rows where there is
                one, such as the positive class.
        """
        return None

    def described(self, inputs: Sequence[Input]) -> Sequence[Input]:
        """The inputs that monitors watch: those that say something about a row, not what is asked for it."""
        return inputs

    def expected(self, frame: pd.DataFrame, answers: Any) -> dict[str, Any]:
        """What `Serving.expected` needs of ``baseline.json`` to estimate quality before labels are there."""
        return {}

    def higher_is_better(self, metric: str) -> bool:
        """Whether more is better."""
        return metric.split(":")[0] in self.higher

    def title(self, metric: str) -> str:
        """A metric for people."""
        family, _, name = metric.partition(":")
        if name and f"{family}:{{}}" in self.titles:
            return self.titles[f"{family}:{{}}"].format(name)
        return {**_TITLES, **self.titles}.get(metric, metric.replace("_", " ").capitalize())

    def interval_metrics(self, output: Any, primary: str) -> Collection[str] | None:
        """The metrics that get an interval, where all would take too long; None: all."""
        return None

    def counts(self, label: pd.Series[Any]) -> dict[str, int]:
        """Rows by what their label is, in the order of a table; empty where labels are not counted."""
        return {}

    def rows_text(self, result: Mapping[str, Any]) -> str:
        """What the test rows are, beside their number."""
        return ""

    def decision_text(self, document: BundleDocument) -> Any:
        """How answers are decided about, as HTML; "" when nothing is."""
        return ""

    def strata(self, label: pd.Series[Any]) -> pd.Series[Any] | None:
        """The class of each row, by which rows are sampled and losses compared; None: rows have no class."""
        return None

    def not_comparable(self, frame: pd.DataFrame, champion: Any) -> str:
        """Why a model with output `champion` cannot answer these rows; "" when it can."""
        return ""

    def curves(self, frame: pd.DataFrame, answers: Any, output: Any, decision: Decision | None) -> dict[str, Any]:
        """Numbers behind the pictures for a page, into evaluation.json."""
        return {}

    def outcome(
        self, frame: pd.DataFrame, answers: Any, output: Any, decision: Decision | None, favourable: str
    ) -> Outcome | None:
        """Who gets the answer that is good for them, of whom it is true, and how probable; None where none is good."""
        return None

    def losses(self, frame: pd.DataFrame, answers: Any, output: Any) -> NDArray[np.float64] | None:
        """How far each answer is from its label, by what training lowers, shape (rows,); None where it is not known."""
        return None

    def take(self, answers: Any, rows: NDArray[Any]) -> Any:
        """The answers to some rows, given by their positions or a mask."""
        return answers[rows]

    def save(self, file: Path, answers: Any) -> None:
        """Keep answers beside a candidate; `read` gives them back."""
        import numpy as np

        np.save(file, answers)

    def read(self, file: Path) -> Any:
        """What `save` wrote."""
        import numpy as np

        return np.load(file, allow_pickle=False)
