"""A loaded model: rows in, answers out; and the proof that it answers as it did when it was built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from contracts.baseline import FILE
from contracts.bundle import REASON_TEXTS, Bundle
from contracts.engine import Engine, Reason
from contracts.errors import PlatformError
from contracts.out_of_distribution import ABSTAIN, FLAG, OOD, abstaining
from contracts.problems.base import Problem, Tensor
from services.adapters.personal import Personal, Shown
from services.metrics.service_metrics import ServiceMetrics
from services.model.columns import Column
from services.model.counterfactual import Counterfactuals
from services.model.principal_reasons import PrincipalReasons
from services.model.request_schema import Batch, RequestSchemas, copied, merge
from services.model.rows import Rows
from services.problems import get_serving

_EXPLAINED_AT_ONCE, _QUICK_SECONDS = 16, 0.02
_WARM_CALLS, _WARM_SECONDS = 30, 0.1


class Lookup(Protocol):
    """Completes rows that name an entity to the model's inputs."""

    views: tuple[str, ...]

    def join(self, batch: Batch, metrics: ServiceMetrics) -> dict[str, Column]:
        """The columns of `batch` with the looked-up ones; adds flags where something was not found."""
        ...


@dataclass(kw_only=True, slots=True)
class Scored:
    """What the model says about the rows of a batch.

    Attributes:
        inputs: the columns that the model got.
        answers: what the engine says, in the form of the problem.
        decided: what follows from it, per row.
        reasons: per row, empty unless they were asked for; all of them where principal reasons are told.
        changes: per row, empty unless they were asked for, see `services.model.counterfactual`; {} of a row whose
            answer is favourable.
        shown: per row, empty unless there are adapters: what they can learn from, see `services.adapters.personal`.
        ood: per row, empty unless the model can abstain: its score, and whether it does.
    """

    inputs: dict[str, Column]
    answers: Any
    decided: list[Any]
    reasons: list[list[Reason]]
    changes: list[dict[str, Any]] = field(default_factory=list)
    shown: list[Shown | None] = field(default_factory=list)
    ood: list[tuple[float, bool]] = field(default_factory=list)

    def part(self, problem: Problem[Any], start: int, end: int, given: Mapping[str, Column]) -> Scored:
        """The rows from `start` to `end`; inputs that were `given` get their own type back."""
        inputs = {name: values[start:end] for name, values in self.inputs.items()}
        for name, values in inputs.items():
            if name in given and given[name].dtype != values.dtype:
                inputs[name] = values.astype(given[name].dtype)
        return Scored(
            inputs=inputs,
            answers=problem.part(self.answers, start, end),
            decided=self.decided[start:end],
            reasons=self.reasons[start:end],
            changes=self.changes[start:end],
            shown=self.shown[start:end],
            ood=self.ood[start:end],
        )


@dataclass(kw_only=True, slots=True)
class Work:
    """What one request asks of the model.

    Attributes:
        top: reasons per row; 0 for none.
        counterfactual: whether changes that would lead to the favourable answer are looked for.
        given_up: true when nobody waits any more; reasons of many rows take long.
    """

    batch: Batch
    top: int = 0
    counterfactual: bool = False
    given_up: bool = False

    @property
    def kind(self) -> str:
        """What takes the same time per row, and can be scored together; reasons are given one request at a time."""
        return f"{self.batch.schema}:explain" if self.top or self.counterfactual else self.batch.schema


def joined(problem: Problem[Any], batch: Batch, works: Sequence[Work], parts: Sequence[Scored]) -> Scored:
    """What the parts of one request say together, in their order; the flags of the parts become those of `batch`."""
    batch.flags[:] = [words for work in works for words in work.batch.flags]
    return Scored(
        inputs={name: np.concatenate([one.inputs[name] for one in parts]) for name in parts[0].inputs},
        answers=problem.join([one.answers for one in parts]),
        decided=[decided for one in parts for decided in one.decided],
        reasons=[reasons for one in parts for reasons in one.reasons],
        changes=[changes for one in parts for changes in one.changes],
        shown=[shown for one in parts for shown in one.shown],
        ood=[told for one in parts for told in one.ood],
    )


class Model:
    """A verified bundle with its engine; used from the executor's threads."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        rows: Rows,
        schemas: RequestSchemas,
        lookup: Lookup | None,
        metrics: ServiceMetrics,
        personal: Personal | None = None,
    ) -> None:
        self.personal = personal
        self.bundle, self.engine, self.rows, self.schemas = bundle, engine, rows, schemas
        self.lookup, self.metrics = lookup, metrics
        signature = bundle.document.signature
        self.problem, self.output, self.decision = signature.problem, signature.output, bundle.document.decision
        self.serving = get_serving(self.problem)
        texts = bundle.read_json(REASON_TEXTS)
        self.principal = PrincipalReasons(texts, self.serving, self.decision) if texts else None
        self.counterfactuals = self._open_counterfactuals(texts or {})
        self.tensors: dict[str, Tensor] = {one.name: one for one in self.problem.tensors(self.output)}
        asked, able = rows.settings.abstain, abstaining(engine) if personal is None else None
        self.abstaining, self._above = able if asked.enabled else None, asked.above
        if self.abstaining is not None:
            self.tensors |= {OOD: Tensor(name=OOD, datatype="FP64"), ABSTAIN: Tensor(name=ABSTAIN, datatype="BOOL")}
        self._inputs = tuple(item.name for item in signature.inputs)
        self._one_at_a_time = Lock()

    def score_all(self, works: Sequence[Work]) -> list[Scored]:
        """Score several requests of one kind by one look-up and one call of the engine.

        Raises:
            TimeoutError: nobody waits for the reasons any more.
        """
        alone, batch = len(works) == 1, works[0].batch
        looked_up = self.lookup is not None and batch.schema == "by_entity"
        if not alone:
            batch = merge([work.batch for work in works])
        elif looked_up:  # which adds flags: when a batch fails, its items are scored once more
            batch = copied(batch)
        stage, start = self.metrics.stage, perf_counter()
        columns = batch.columns
        if looked_up and self.lookup is not None:
            with self._one_at_a_time:
                columns = self.lookup.join(batch, self.metrics)
            start = _observe(stage["features"], start)
        inputs = {name: columns[name] for name in self._inputs}
        shown: list[Shown | None] = []
        ood: list[tuple[float, bool]] = []
        engine = partial(self.rows.predict, inputs, batch.prepared)
        if self.abstaining is not None:
            answers, scores = self.abstaining.predict_ood(inputs)
            ood = [(score, score > self._above) for score in scores.tolist()]
            batch = batch if not alone or looked_up else copied(batch)
            for words, (_, is_beyond) in zip(batch.flags, ood, strict=True):
                words += [FLAG] if is_beyond else []
        elif self.personal is None:
            answers = engine()
        else:
            batch = batch if not alone or looked_up else copied(batch)  # it adds flags, as a look-up does
            answers, shown = self.personal.predict(engine, columns, batch.flags)
        start = _observe(stage["infer"], start)
        reasons = self._reasons(works[0], inputs) if works[0].top else []
        decided = self.problem.decide(self.output, self.decision, answers)
        whole = Scored(inputs=inputs, answers=answers, decided=decided, reasons=reasons, shown=shown, ood=ood)
        if works[0].counterfactual and self.counterfactuals is not None:
            whole.changes = self._changes(works[0], inputs, decided)
        if alone:
            works[0].batch.flags[:] = batch.flags
            return [whole]
        parts, at = [], 0
        for work in works:
            end = at + work.batch.rows
            work.batch.flags[:] = batch.flags[at:end]
            parts.append(whole.part(self.problem, at, end, work.batch.columns))
            at = end
        return parts

    def _open_counterfactuals(self, texts: Mapping[str, Any]) -> Counterfactuals | None:
        if not texts.get("changes"):
            return None
        favourable = texts["favourable"]

        def score(columns: Mapping[str, Column]) -> Any:
            answers = self.engine.predict(columns)
            decided = self.problem.decide(self.output, self.decision, answers)
            flips = [self.serving.against(self.decision, one, favourable) == 0 for one in decided]
            return np.array(flips), self.serving.chance(self.output, answers, favourable)

        normal = (self.bundle.read_json(FILE) or {}).get("inputs", {})
        return Counterfactuals(self.bundle.document.signature.inputs, texts["changes"], normal, score)

    def _changes(self, work: Work, inputs: Mapping[str, Column], decided: Sequence[Any]) -> list[dict[str, Any]]:
        assert self.counterfactuals is not None
        found: list[dict[str, Any]] = []
        for at, one in enumerate(decided):
            if work.given_up:
                raise TimeoutError
            if self.principal is None or self.principal.is_favourable(one):
                found.append({})
                continue
            changes = self.counterfactuals.of({name: values[at] for name, values in inputs.items()})
            found.append({"possible": changes is not None, "changes": changes or []})
        return found

    def _reasons(self, work: Work, inputs: Mapping[str, Column]) -> list[list[Reason]]:
        start = before = perf_counter()
        reasons: list[list[Reason]] = []
        at_once = 1  # more where they take no time: after each call somebody may wait no more
        while len(reasons) < work.batch.rows:
            if work.given_up:
                raise TimeoutError
            part = {name: values[len(reasons) : len(reasons) + at_once] for name, values in inputs.items()}
            reasons += self.engine.explain(part, len(self._inputs) if self.principal else work.top)
            now = perf_counter()
            at_once = min(2 * at_once, _EXPLAINED_AT_ONCE) if now - before < _QUICK_SECONDS else 1
            before = now
        _observe(self.metrics.stage["explain"], start)
        return reasons


def replay(model: Model) -> int:
    """Predict the bundle's golden examples and compare; returns how many there are.

    Raises:
        PlatformError: ``code="golden_mismatch"``, naming the first example that is answered differently.
    """
    examples = list(model.bundle.golden())
    if not examples:
        raise _mismatch(model, "golden.jsonl has no examples")
    batch = model.schemas.by_features.batch(
        {item.name: [one.inputs.get(item.name) for one in examples] for item in model.schemas.by_features.fields},
        learned=True,
    )
    problem, output = model.problem, model.output
    answers = model.engine.predict(batch.columns)
    if wrong := problem.wrong(output, answers, len(examples)):
        raise _mismatch(model, wrong)
    for index, example in enumerate(examples):
        if differs := problem.differs(output, example.expected, answers, index, example.tolerance):
            raise _mismatch(model, f"example {index} (counted from 0), {differs}", example=index)
    return len(examples)


def warm(model: Model) -> tuple[float, float]:
    """Call the model with one golden row until it is warm; returns the row's size and the shortest call's seconds.

    The size is the row's length where it has one. One row alone takes another path through some libraries than many.
    """
    first = next(iter(model.bundle.golden()))
    schema = model.schemas.by_features
    values = {item.name: [first.inputs.get(item.name)] for item in schema.fields}
    batch = model.rows.prepared(schema.batch(values, learned=True))
    shortest, end = math.inf, perf_counter() + _WARM_SECONDS
    for _ in range(_WARM_CALLS):
        start = perf_counter()
        model.rows.predict(batch.columns, batch.prepared)
        now = perf_counter()
        shortest = min(shortest, now - start)
        if now > end:
            break
    return float(batch.lengths[0] if batch.lengths else 1), shortest


def _mismatch(model: Model, detail: str, **context: int) -> PlatformError:
    return PlatformError(
        f"{model.bundle.document.name} does not reproduce its golden examples",
        detail=detail,
        fix="install the library versions that the bundle was built with, or train it again",
        code="golden_mismatch",
        **context,
    )


def _observe(histogram: object, start: float) -> float:
    now = perf_counter()
    histogram.observe(now - start)  # type: ignore[attr-defined]
    return now
