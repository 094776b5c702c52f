"""What services say about answers beyond what `contracts.problems` does: how they are counted, logged and described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from contracts.bundle import Golden


class Count(Protocol):
    """A Prometheus counter of one label set."""

    def inc(self) -> None:
        """Add one."""
        ...


class Series(Protocol):
    """A Prometheus histogram of one label set."""

    def observe(self, value: float) -> None:
        """Count `value`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The histogram of a model's answers: its name among `contracts.metric_names.LABELS`, a help text, upper edges."""

    name: str
    text: str
    edges: tuple[float, ...]


class Serving(ABC):
    """The services' part of one problem. Stateless: `output` is the model's, from the signature."""

    @abstractmethod
    def labels(self, output: Any) -> Sequence[str]:
        """The values of ``label`` in ``fairlead_predictions_total``, at least one: series that exist from the start."""

    @abstractmethod
    def distribution(self, output: Any, golden: Sequence[Golden]) -> Distribution | None:
        """The histogram that answers are observed in, None for none; `golden` shows their scale."""

    @abstractmethod
    def count(self, answers: Any, decided: Sequence[Any], labels: Mapping[str, Count], observed: Series) -> None:
        """Count and observe the answers to a batch."""

    @abstractmethod
    def record(self, answers: Any, decided: Sequence[Any], row: int) -> dict[str, Any]:
        """What the prediction log keeps of the answer to a row."""

    def recorder(self, baseline: Mapping[str, Any]) -> Callable[[Any, Sequence[Any], int], dict[str, Any]]:
        """`record`, or what adds how far an answer is from what ``baseline.json`` calls normal."""
        return self.record

    def label_schema(self, output: Any) -> dict[str, Any] | None:
        """The JSON schema of what turned out to be true of a row; None where answers are not labelled."""
        return None

    def label(self, output: Any, value: Any) -> Any:
        """A label that came as JSON, checked and in its one form.

        Raises:
            ValueError: what is accepted; it never repeats the value.
        """
        raise ValueError("answers of this problem take no labels")

    def is_right(self, recorded: Mapping[str, Any], label: Any, metrics: Mapping[str, float]) -> bool | None:
        """Whether a recorded answer is what its label says, or near enough; None where nothing says what is near.

        metrics: of the bundle, which say how far off answers usually are.
        """
        return None

    def against(self, decision: Any, decided: Any, favourable: str) -> int:
        """The sign of the contributions that speak for an answer other than the favourable one; 0 where it is that."""
        return 0

    def chance(self, output: Any, answers: Any, favourable: str) -> Any:
        """How probable the favourable answer is to each row; None where answers have no such."""
        return None

    def truths(self, output: Any) -> Sequence[str]:
        """What labels can say of a row, one by one: classes of rows whose wrong answers are counted apart."""
        return ()

    def misses(self, recorded: Mapping[str, Any], label: Any) -> Mapping[str, bool]:
        """Those of `truths` that a row's label says, and whether the recorded answer is wrong in each."""
        return {}

    def label_of_text(self, output: Any, text: str) -> Any:
        """A label that came as text, from a file; raises as `label` does."""
        return self.label(output, text)

    @abstractmethod
    def parameters(self, output: Any) -> dict[str, Any]:
        """What the model's metadata say of its answers."""

    @abstractmethod
    def summary(self, output: Any) -> str:
        """What answers hold, in a few words."""

    @abstractmethod
    def answers(self, output: Any, documents: Sequence[Mapping[str, Any]]) -> Any:
        """The answers that the documents of ``/predict`` were made from."""

    def measure(
        self, output: Any, decision: Any, answers: Sequence[Mapping[str, Any]], labels: Sequence[Any]
    ) -> Callable[[Any], dict[str, float]] | None:
        """Metrics of logged answers and their labels, as a function of row weights; None where there are none."""
        return None

    def expected(
        self, output: Any, decision: Any, record: Mapping[str, Any], baseline: Mapping[str, Any]
    ) -> dict[str, float]:
        """What a logged answer adds to the sums of `estimate`; {} where answers say nothing of how sure they are.

        Args:
            baseline: the bundle's ``baseline.json``.
        """
        return {}

    def estimate(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Metrics to be expected before labels are there, from the sums of `expected` over rows.

        The confidence of calibrated answers is taken at its word (J. Bialek, W. Kuberski, N. Perrakis, A. Bifet:
        Estimating model performance under covariate shift without labels, 2024): a world in which the same inputs mean
        something else is not seen this way.
        """
        return {}

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of an answer that monitors watch, from its log record: numbers, or names of categories.

        ``answer`` is the main one. Nothing is watched of answers that the log keeps nothing of; a record that lacks a
        column says nothing about it.
        """
        return {}

    def normal(self, output: Any, decision: Any, baseline: Mapping[str, Any]) -> dict[str, Any]:
        """What ``baseline.json`` says of the columns of `watched`, as `contracts.baseline` describes columns."""
        found: dict[str, Any] = baseline.get("answer", {})
        return found
