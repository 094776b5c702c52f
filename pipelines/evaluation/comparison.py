"""The comparison of a candidate with the champion: on rows that neither has learned from, with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Bundle, Check
from contracts.engines import load_engine
from pipelines.data.seen import read_seen, row_hashes
from pipelines.evaluation import get_evaluation, scoring
from pipelines.evaluation.measures import paired_bootstrap
from pipelines.io import events
from pipelines.io.files import missing
from pipelines.task import GateConfig

if TYPE_CHECKING:
    import pandas as pd

_RISING = ("at least", "not shown below", "shown at least")  # rules of metrics of which more is better
_SEED = 0  # of the bootstrap: the same two models on the same rows get the same decision


@dataclass(frozen=True)
class Pair:
    """The two values of the primary metric, the 95 % interval of their difference, and where they were measured.

    rows: compared, None when the champion's value is a recorded one.  left_out: seen by one of the two, or not told.
    """

    candidate: float
    champion: float
    interval: tuple[float, float] | None
    rows: int | None
    left_out: int


def compare(
    candidate: Bundle, champion: Bundle, name: str, dataset: Path, evaluation: Mapping[str, Any], settings: GateConfig
) -> tuple[Check | None, list[str]]:
    """The check against the champion (None when it has nothing to compare with), and remarks on how it was made."""
    problem, other = (each.document.signature.output.problem for each in (candidate, champion))
    if problem != other:
        return None, [f"champion {name} is not compared: its problem is {other}, not {problem}"]
    judged, said = get_evaluation(problem).judged_otherwise(candidate, champion, dataset)
    if judged is not None:
        metric, found = judged
        return check_pair(found, name, metric, settings, True), [said]
    file = dataset / "test.parquet"
    if not file.exists():
        raise missing(file)
    frame = scoring.read_rows(file)
    hashes = row_hashes(frame["row_key"])
    fair, notes = _fair_rows(candidate, champion, name, hashes)
    notes += [said] if said else []
    left_out = int(len(frame) - fair.sum())
    pair: Pair | str
    different, least = len(np.unique(hashes[fair])), max(2, settings.min_compared_rows)
    if different < least:
        pair = (
            f"{different} of {len(frame)} test rows, copies not counted, are new to both models; "
            f"at least {least} are needed: gate.min_compared_rows"
        )
    else:
        pair = _measure(candidate, champion, frame, fair, hashes, settings.primary)
    if isinstance(pair, str):
        recorded = _recorded(champion, evaluation, settings.primary, left_out)
        if recorded is None:
            return None, [*notes, f"champion {name} has no {settings.primary} to compare with ({pair})"]
        notes.append(
            f"champion {name} is not compared on these rows ({pair}), but by its recorded {settings.primary}, which is "
            "of other rows: how hard those were is not in the interval"
        )
        pair = recorded
    up = get_evaluation(problem).higher_is_better(settings.primary)
    return check_pair(pair, name, settings.primary, settings, up), notes


def _fair_rows(
    candidate: Bundle, champion: Bundle, name: str, hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which rows neither has seen, for all that is known, and what is not known."""
    fair, notes = np.ones(len(hashes), dtype=np.bool_), []
    for bundle, called in ((candidate, "the candidate"), (champion, f"champion {name}")):
        record = read_seen(bundle.path)
        if not record.known:
            notes.append(
                f"{called} does not record which rows it has learned from: it may have seen some of the rows that are "
                "compared, which would flatter it"
            )
            continue
        told = record.tells(hashes)
        if not told.all():
            notes.append(
                f"{called} has learned from more rows than it can record: {int((~told).sum())} rows that it does not "
                "tell about are left out"
            )
        fair &= told & ~record.has(hashes)
    return fair, notes


def _measure(
    candidate: Bundle,
    champion: Bundle,
    frame: pd.DataFrame,
    fair: NDArray[np.bool_],
    hashes: NDArray[np.uint64],
    primary: str,
) -> Pair | str:
    """Both on the fair rows, or why that cannot be."""
    rows = frame[fair].reset_index(drop=True)
    document = champion.document
    absent = [item.name for item in document.signature.inputs if item.name not in rows.columns]
    if absent:
        return f"its input {absent[0]!r} is not in the data"
    evaluation = get_evaluation(candidate.document.signature.output.problem)
    if why := evaluation.not_comparable(rows, document.signature.output):
        return why
    engine = load_engine(champion, threads=1)
    rows = scoring.for_engine(rows, engine, document.signature.inputs)
    columns = scoring.columns_of(rows, document.signature.inputs)
    theirs = scoring.predict(engine, columns, document, events.progress("gate"))
    mine = evaluation.take(_answers(candidate, len(frame)), fair)
    measures = [
        evaluation.measure_for(rows, answers, each.signature.output, each.decision, [primary])
        for each, answers in ((candidate.document, mine), (document, theirs))
    ]
    ours, its = (measure(None).get(primary, math.nan) for measure in measures)
    if not (math.isfinite(ours) and math.isfinite(its)):
        return f"{primary} is not defined on the {len(rows)} rows that neither has learned from"
    _, groups = np.unique(hashes[fair], return_inverse=True)
    interval = paired_bootstrap(measures[0], measures[1], primary, groups, _SEED)
    if interval is None:
        return f"{primary} is not defined in most samples of the {len(rows)} rows that neither has learned from"
    return Pair(ours, its, interval, len(rows), len(frame) - len(rows))


def _answers(candidate: Bundle, rows: int) -> Any:
    file = candidate.path / scoring.ANSWERS
    if not file.exists():
        raise missing(file)
    answers = get_evaluation(candidate.document.signature.output.problem).read(file)
    if len(answers) != rows:
        raise missing(file)
    return answers


def _recorded(champion: Bundle, evaluation: Mapping[str, Any], primary: str, left_out: int) -> Pair | None:
    """The champion's own record against the candidate's, each from rows of its own.

    The interval of the difference of two independent values follows from theirs by Zou and Donner's square-and-add.
    """
    its = champion.document.metrics.get(primary)
    if its is None:
        return None
    ours = float(evaluation["metrics"][primary])
    our_range = evaluation.get("intervals", {}).get(primary)
    its_range = ((champion.read_json("evaluation.json") or {}).get("intervals") or {}).get(primary)
    interval = _difference(ours, our_range, its, its_range) if our_range and its_range else None
    return Pair(ours, its, interval, None, left_out)


def _difference(a: float, of_a: Sequence[float], b: float, of_b: Sequence[float]) -> tuple[float, float]:
    return a - b - math.hypot(a - of_a[0], of_b[1] - b), a - b + math.hypot(of_a[1] - a, b - of_b[0])


def check_pair(pair: Pair, name: str, metric: str, settings: GateConfig, higher_is_better: bool) -> Check:
    """Refuse what is shown to be worse; what the rows leave open is decided by `gate.unsure`."""
    up, lenient = higher_is_better, settings.unsure == "pass"
    if pair.interval is None:
        rule = "at least" if up else "at most"
    elif lenient:
        rule = "not shown below" if up else "not shown above"
    else:
        rule = "shown at least" if up else "shown at most"
    check = Check(
        metric=metric,
        rule=rule,
        value=pair.candidate,
        limit=pair.champion - settings.champion_tolerance if up else pair.champion + settings.champion_tolerance,
        passed=False,
        against=name,
        difference=pair.candidate - pair.champion,
        interval=pair.interval,
        rows_compared=pair.rows,
        rows_left_out=pair.left_out,
    )
    found = _finding(check, pair.candidate, pair.candidate - pair.champion)
    return check.model_copy(update={"passed": found == "as good" or (found == "open" and lenient)})


def _finding(check: Check, value: float, difference: float) -> Literal["worse", "as good", "open"]:
    """What the difference shows: the candidate is worse by more than the tolerance, or it is not, or neither is shown.

    Without an interval the two numbers have to do.
    """
    sign = 1.0 if check.rule in _RISING else -1.0
    behind = sign * (value - check.limit) < 0
    if check.interval is None:
        return "worse" if behind else "as good"
    if behind and max(sign * end for end in check.interval) < 0:
        return "worse"
    worst = min(sign * (value - difference + end - check.limit) for end in check.interval)
    return "as good" if worst >= 0 else "open"


def describe(check: Check) -> str:
    """A comparison in one sentence: both values, the difference with its interval, the rows, and what follows."""
    if check.value is None or check.difference is None:
        raise ValueError(f"{check.metric} against {check.against} is no comparison")
    champion = check.value - check.difference
    interval = f" (95 % {check.interval[0]:+.3g} to {check.interval[1]:+.3g})" if check.interval else " (no interval)"
    rows = "its recorded value" if check.rows_compared is None else f"{check.rows_compared} rows"
    out = (
        f"{check.rows_left_out} left out that one of them has learned from" if check.rows_left_out else "none left out"
    )
    margin = f"worse by more than {abs(champion - check.limit):.3g}"
    found = _finding(check, check.value, check.difference)
    if check.interval is None:
        verdict = f"{'not ' if found == 'as good' else ''}{margin}, by the two numbers alone"
    elif found == "open":
        then = ", so it passes; gate.unsure=refuse would refuse it" if check.passed else " (gate.unsure)"
        verdict = f"that does not show whether it is {margin}{then}"
    else:
        verdict = f"shown {'not ' if found == 'as good' else ''}to be {margin}"
    return (
        f"{check.metric} is {check.value:.4g}, of champion {check.against} {champion:.4g}: difference "
        f"{check.difference:+.3g}{interval} on {rows}, {out}; {verdict}"
    )
