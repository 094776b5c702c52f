"""How a model decides, and whether its reasons are true of it: shown in the card, measured in evaluation.

Of tables: importance is the mean size of an input's contribution. Partial dependence (Friedman, 2001) is the mean
answer when one input takes a value in all rows; where few rows are, it says little, so that the density stands below
it. Faithfulness is measured by hiding and by telling inputs in the order of the reasons (deletion and insertion:
Petsiuk et al., RISE, 2018), beside a random order; stability by how alike the reasons of rows are that differ by a
hundredth. Of texts and images see `pipelines.evaluation.occlusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.engines.seq2seq import Seq2SeqEngine
from contracts.errors import PlatformError
from pipelines.evaluation import get_evaluation, occlusion
from pipelines.evaluation.measures import evenly
from pipelines.evaluation.plots import BLUE, GREY, ORANGE, figure
from pipelines.evaluation.scoring import predict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from contracts.bundle import BundleDocument, Input
    from contracts.engine import Engine

ROWS = 200  # that reasons are asked of, evenly from all
STEPS = 12  # how many inputs are hidden or told, at most so many numbers
DRAWS = 3  # random orders
GRID, CATEGORIES = 20, 12  # values of a partial dependence
SHOWN = 6  # inputs with a partial dependence
NUDGE = 0.01  # of an input's standard deviation
FEW = 20  # texts or images that reasons are asked of
_TINY = 1e-9
Columns = Mapping[str, NDArray[Any]]
Score = Callable[[Columns], NDArray[np.float64]]


def measure(
    engine: Engine, document: BundleDocument, columns: Columns, answers: Any, seed: int, folder: Path | None
) -> dict[str, Any] | None:
    """See the module; of tables ``importance.png`` and ``dependence.png`` are drawn in `folder`, too.

    Args:
        columns: of the test rows.  answers: to them.

    Returns:
        rows, importance by input (largest first, in log-odds or the label's unit), faithfulness (deletion and
        insertion, each of the reasons and of a random order, 0 to 1, more is better), stability (mean cosine of the
        reasons of a row and of it nudged). Of texts and images what `pipelines.evaluation.occlusion.measure` says, and
        of lists `of_lists`. Of all above_random: by how much reasons are more faithful than chance, of two measures by
        the lesser. None for what gives no reasons.
    """
    by, decision = get_evaluation(document.signature.output.problem), document.decision
    rng = np.random.default_rng(seed)
    if document.signature.output.problem == "ranking":
        return occlusion.of_lists(engine, _some(columns, FEW), rng)
    if isinstance(engine, Seq2SeqEngine):
        return occlusion.of_written(engine, _some(columns, FEW // 2), rng)  # each is read some 60 times
    if by.explained(document.signature.output, decision, answers, answers, False) is None:
        return None
    try:
        if document.modality in occlusion.MODALITIES:
            some = _some(columns, FEW)
            like = predict(engine, some, document)
            found = occlusion.measure(engine, document, some, like, partial(score_of, engine, document), rng)
            return found and {**found, "removed": {**found["removed"], "unit": by.explained_in}}
        return _of_table(engine, document, columns, np.asarray(answers), rng, folder)
    except PlatformError as err:
        if err.code != "not_explainable":
            raise
        return None


def _some(columns: Columns, most: int) -> dict[str, NDArray[Any]]:
    chosen = evenly(len(next(iter(columns.values()))), most)
    return {name: values[chosen] for name, values in columns.items()}


def _of_table(
    engine: Engine,
    document: BundleDocument,
    columns: Columns,
    answers: NDArray[np.float64],
    rng: np.random.Generator,
    folder: Path | None,
) -> dict[str, Any] | None:
    inputs = document.signature.inputs
    if document.modality != "tabular" or len(inputs) < 2:
        return None
    some, chosen = _some(columns, ROWS), evenly(len(answers), ROWS)
    given = _contributions(engine, inputs, some)
    importance = np.abs(given).mean(axis=0)
    order = np.argsort(-importance, kind="stable")
    score = score_of(engine, document, answers[chosen], alone=False)
    result: dict[str, Any] = {
        "rows": len(chosen),
        "importance": {inputs[at].name: float(importance[at]) for at in order},
        "faithfulness": (kinds := faithfulness(score, inputs, some, given, rng)),
        "above_random": min(one["reasons"] - one["random"] for one in kinds.values()),
        "stability": _stability(engine, inputs, some, given, rng),
    }
    if folder is not None:
        _draw_importance(folder / "importance.png", result["importance"])
        if shown := [inputs[at] for at in order[:SHOWN] if importance[at] > 0]:
            _draw_dependences(folder / "dependence.png", score, shown, some, columns)
    return result


def faithfulness(
    score: Score, inputs: Sequence[Input], columns: Columns, given: NDArray[np.float64], rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """How soon the score moves as inputs are hidden (deletion), and how soon it is back as they are told (insertion).

    A hidden input has its usual value: the median, or the commonest category. Both are areas under how much of the way
    between the score and the one without any input is gone, averaged over rows.

    Args:
        given: contributions, shape (rows, inputs).
    """
    rows, width = given.shape
    usual = {item.name: _usual(columns[item.name]) for item in inputs}
    whole, none = score(columns), score({name: _filled(values, usual[name]) for name, values in columns.items()})
    steps = np.unique(np.linspace(0, width, min(STEPS, width) + 1).round().astype(int))

    def areas(order: NDArray[np.int64]) -> tuple[float, float]:
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(width)[None, :].repeat(rows, 0), axis=1)
        gone, back = [], []
        for step in steps:
            first = rank < step
            gone.append(_moved(score(_hidden(inputs, columns, usual, first)), whole, none))
            back.append(_moved(score(_hidden(inputs, columns, usual, ~first)), none, whole))
        return _area(steps / width, gone), _area(steps / width, back)

    by_reasons = areas(np.argsort(-np.abs(given), axis=1, kind="stable"))
    by_chance = np.mean(
        [areas(rng.permuted(np.tile(np.arange(width), (rows, 1)), axis=1)) for _ in range(DRAWS)], axis=0
    )
    return {
        name: {"reasons": by_reasons[at], "random": float(by_chance[at])}
        for at, name in enumerate(("deletion", "insertion"))
    }


def _moved(now: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]) -> float:
    """Share of the way from `start` to `end` that is gone, of the mean sizes: 0 to 1."""
    way = np.abs(end - start).sum()
    return 1.0 if way < _TINY else float(np.clip(1 - np.abs(end - now).sum() / way, 0, 1))


def _area(at: NDArray[np.float64], values: Sequence[float]) -> float:
    return float(np.trapezoid(values, at))


def _hidden(
    inputs: Sequence[Input], columns: Columns, usual: Mapping[str, Any], mask: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    return {
        item.name: np.where(mask[:, at], _filled(columns[item.name], usual[item.name]), columns[item.name])
        for at, item in enumerate(inputs)
    }


def _usual(values: NDArray[Any]) -> Any:
    if values.dtype == object:
        names, counts = np.unique(values.astype(str), return_counts=True)
        return str(names[counts.argmax()])
    known = values[~np.isnan(values)]
    return float(np.quantile(known, 0.5, method="lower")) if len(known) else float("nan")


def _filled(values: NDArray[Any], value: Any) -> NDArray[Any]:
    made = np.empty_like(values)
    made[:] = value
    return made


def _contributions(engine: Engine, inputs: Sequence[Input], columns: Columns) -> NDArray[np.float64]:
    """Shape (rows, inputs)."""
    place = {item.name: at for at, item in enumerate(inputs)}
    reasons = engine.explain(columns, len(inputs))
    made = np.zeros((len(reasons), len(inputs)))
    for row, found in enumerate(reasons):
        for one in found:
            made[row, place[one.feature]] = one.contribution
    return made


def _stability(
    engine: Engine,
    inputs: Sequence[Input],
    columns: Columns,
    given: NDArray[np.float64],
    rng: np.random.Generator,
) -> float:
    nudged = dict(columns)
    for item in inputs:
        values = columns[item.name]
        if item.dtype == "float64":
            spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
            nudged[item.name] = values + rng.normal(0, NUDGE * spread, len(values))
    other = _contributions(engine, inputs, nudged)
    sizes = np.linalg.norm(given, axis=1) * np.linalg.norm(other, axis=1)
    alike = np.where(sizes > _TINY, (given * other).sum(axis=1) / np.maximum(sizes, _TINY), 1.0)
    return float(np.clip(alike, -1, 1).mean())


def score_of(engine: Engine, document: BundleDocument, like: Any, *, alone: bool) -> Score:
    """What reasons are about, see `Evaluation.explained`, of any columns of these rows."""
    output, decision = document.signature.output, document.decision
    by = get_evaluation(output.problem)

    def score(columns: Columns) -> NDArray[np.float64]:
        found = by.explained(output, decision, np.asarray(predict(engine, columns, document)), like, alone)
        assert found is not None
        return found

    return score


def _draw_importance(file: Path, importance: Mapping[str, float]) -> None:
    names, sizes = list(importance)[:20], list(importance.values())[:20]
    with figure(file, "What counts", "mean size of the contribution", "", (6.4, 1.2 + 0.26 * len(names))) as axes:
        axes.barh(range(len(names)), sizes, color=BLUE)
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axes.invert_yaxis()


def _draw_dependences(file: Path, score: Score, shown: Sequence[Input], some: Columns, columns: Columns) -> None:
    """The mean score over the values of each input, above how many of all test rows have them."""
    across = min(len(shown), 3)
    down = -(-len(shown) // across)
    with figure(file, "", "", "", (0.6 + 3.1 * across, 0.4 + 2.4 * down)) as first:
        whole: Any = first.figure
        first.remove()
        whole.suptitle("Partial dependence: mean score, over how many rows", x=0.01, ha="left", weight="bold")
        panels = whole.subplots(down, across, squeeze=False).ravel()
        for axes, item in zip(panels, shown, strict=False):
            _draw_dependence(axes, score, item, some, columns)
        for axes in panels[len(shown) :]:
            axes.remove()


def _draw_dependence(axes: Axes, score: Score, item: Input, some: Columns, columns: Columns) -> None:
    values = columns[item.name]
    axes.set_title(item.name.replace("_", " "), size=9.5)
    counts = axes.twinx()
    counts.set_yticks([])
    counts.grid(visible=False)
    if values.dtype == object:
        names, found = np.unique(values.astype(str), return_counts=True)
        keep = np.argsort(-found, kind="stable")[:CATEGORIES]
        at: Any = range(len(keep))
        counts.bar(at, found[keep], color=GREY, alpha=0.3)
        axes.plot(at, _dependence(score, some, item.name, names[keep]), "o", color=ORANGE)
        axes.set_xticks(at, [str(name)[:18] or "(missing)" for name in names[keep]], rotation=40, ha="right")
    else:
        known = values[np.isfinite(values)]
        low, high = np.quantile(known, [0.01, 0.99])
        counts.hist(known[(known >= low) & (known <= high)], bins=30, color=GREY, alpha=0.3)
        grid = np.unique(np.quantile(known, np.linspace(0.01, 0.99, GRID), method="nearest"))
        axes.plot(grid, _dependence(score, some, item.name, grid), "o-", color=ORANGE, markersize=3)
    counts.set_ylim(0, 3 * counts.get_ylim()[1])  # below the curve


def _dependence(score: Score, some: Columns, name: str, values: Sequence[Any] | NDArray[Any]) -> list[float]:
    return [float(score({**some, name: _filled(some[name], value)}).mean()) for value in values]
