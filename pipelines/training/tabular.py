"""Training of tabular recipes, calibrated, with a threshold chosen by cost.

Used by tasks; what it writes is self-contained (LightGBM text, ONNX) and read by contracts.tabular_engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.tabular_engine import Calibration, matrix
from pipelines.data.hidden import read_hidden
from pipelines.search_space import Dimension
from pipelines.settings import setting
from pipelines.task import STRICT, Progress
from pipelines.training.adversary import Opponent
from pipelines.training.boosting import Columns, Floats, LightGBMConfig, Rows, Share, fit_boosted
from pipelines.training.mitigation import Mitigation
from pipelines.training.network import NetworkConfig, check_private, fit_network, form_of
from pipelines.training.privacy import PrivacyConfig
from pipelines.training.scorecard import ScorecardConfig, fit_scorecard, log_odds, save_scorecard

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LogisticConfig:
    """Logistic regression on standardised inputs. A missing value is the training median and has a weight of its own.

    `c` is 1 / L2. hide_share: as in LightGBMConfig; more than a little costs a linear model quality on the other rows.
    """

    kind: Literal["logistic"] = "logistic"
    c: float = 1.0
    positive_weight: float = 1.0
    log_scale: bool = True
    calibration: Literal["platt", "isotonic", "none"] = "platt"
    max_iterations: int = 500
    hide_share: Share = 0.1

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "c": Dimension(low=0.001, high=100.0, log=True),
        "log_scale": Dimension(choices=(True, False)),
        "calibration": Dimension(choices=("platt", "isotonic", "none")),
    }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CostConfig:
    """What a wrong answer costs; ``false_negative="amount"`` takes each row's own `amount` column.

    rule: ``observed`` takes the threshold that would have been cheapest on the validation rows; ``expected`` the one
    where both answers cost the same if probabilities are right (C. Elkan: The foundations of cost-sensitive learning,
    2001).  review: what a person costs who decides; where neither answer is better by so much, the row is referred.
    """

    false_positive: float = 1.0
    false_negative: float | str = 5.0
    rule: Literal["observed", "expected"] = "observed"
    review: Annotated[float, Field(ge=0)] = 0.0


AnyModel = LightGBMConfig | LogisticConfig | ScorecardConfig | NetworkConfig


@plain_dataclass(frozen=True, kw_only=True)
class Fitted:
    """A model that was written, apart from its calibration.

    Attributes:
        engine: that executes it.  raw: log-odds of the validation rows.
        save: writes what is left to write, given the calibration.
    """

    engine: str
    raw: Floats
    save: Callable[[dict[str, Any]], None]
    history: list[dict[str, float]] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    privacy: dict[str, Any] | None = None


def train_tabular(
    dataset: Path,
    inputs: Sequence[Input],
    classes: Sequence[str],
    model: AnyModel,
    cost: CostConfig,
    seed: int,
    out: Path,
    checkpoints: Path,
    progress: Progress,
    mitigation: Mitigation | None = None,
    privacy: PrivacyConfig | None = None,
) -> dict[str, Any]:
    """Train on ``dataset/{train,valid}.parquet`` and rows as served without features, write the model to `out`.

    The result is TaskConfig.train's.
    """
    import pandas as pd

    from pipelines.evaluation.scoring import columns_of

    train, valid = (pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid"))
    if private := bool(privacy and privacy.is_on):
        check_private(model, cost, bool(mitigation and mitigation.is_on), privacy, len(train))
    hidden = [] if private else read_hidden(dataset, "train", model.hide_share)
    train = pd.concat([train, *hidden], ignore_index=True)
    index = {name: i for i, name in enumerate(classes)}
    x_train, x_valid = (matrix(inputs, columns_of(f, inputs)) for f in (train, valid))
    y_train, y_valid = (np.asarray(f["label"].map(index), dtype=np.int64) for f in (train, valid))
    _need_all_classes(y_train, classes, "train")
    losses = row_costs(cost, valid)  # before the fit, which takes long
    out.mkdir(parents=True, exist_ok=True)
    rows = Rows(x=x_train, y=y_train), Rows(x=x_valid, y=y_valid)
    if mitigation and mitigation.is_on:
        parts = [("train", train["id"], y_train), ("valid", valid["id"], y_valid)]
        fair = mitigation.apply(dataset, parts, x_train, (cost.false_positive, float(np.mean(losses))))
        pairs = zip((x_train, x_valid), fair, strict=True)
        rows = tuple(Rows(x=x, y=y, weight=weight, judged_by_weight=True) for x, (y, weight) in pairs)  # type: ignore[assignment]
    opponent = mitigation.opponent(dataset, train["id"], model.kind) if mitigation else None
    if isinstance(model, LightGBMConfig):
        fitted = _boosted(rows, inputs, classes, model, seed, out, checkpoints, progress)
    else:
        if len(classes) != 2:
            raise PlatformError(
                f"the {model.kind} recipe needs two classes",
                detail=f"got {len(classes)}",
                fix="train another recipe, with --recipe",
                code="bad_config",
            )
        if isinstance(model, NetworkConfig):
            asked = privacy or PrivacyConfig()
            fitted = _fit_network(rows, inputs, model, asked, seed, out, checkpoints, progress, opponent)
        else:
            fit: Any = _fit_logistic if isinstance(model, LogisticConfig) else _fit_card
            fitted = fit(rows, inputs, model, seed, out)
            progress(1, 1)
    kind = model.calibration if len(classes) == 2 and not private else "none"
    calibration = fit_calibration(kind, fitted.raw, y_valid)
    fitted.save(calibration)
    decision = None
    if len(classes) == 2:
        said = Calibration(calibration)(np.append(fitted.raw, 0.0))
        said, zero = said[:-1], float(said[-1])
        cut = zero if mitigation and mitigation.cuts_at_zero else None
        decision = decide(classes, said, y_valid, cost, losses, cut)
        if mitigation and (by := mitigation.by_group(dataset, valid["id"], said, decision["threshold"])):
            decision["by_group"] = by
    return {
        "engine": fitted.engine,
        "output": {"problem": "classification", "classes": list(classes)},
        "decision": decision,
        "history": fitted.history,
        "parameters": {**_flat(model), **fitted.parameters},
        "device": fitted.device,
        **({"privacy": fitted.privacy} if fitted.privacy else {}),
    }


def decide(
    classes: Sequence[str],
    probability: Floats,
    label: NDArray[np.int64],
    cost: CostConfig,
    losses: Floats,
    cut: float | None,
) -> dict[str, Any]:
    """The threshold, which is `cut` where that is known, and the band that people decide about."""
    found: dict[str, Any] = {
        "positive": classes[1],
        "false_positive_cost": cost.false_positive,
        "false_negative_cost": cost.false_negative,
    }
    miss = float(np.mean(losses))
    both = cost.false_positive + miss
    if (cost.rule == "expected" and both <= 0) or (cost.review and cost.review > min(cost.false_positive, miss)):
        raise PlatformError(
            "cost: a decision by what is expected needs costs above 0, and a review that is cheaper than either",
            detail=f"false_positive {cost.false_positive:g}, false_negative {miss:g}, review {cost.review:g}",
            fix=setting("cost.review", 0.0),
            code="bad_config",
        )
    even = cost.false_positive / both if both > 0 else 0.5
    observed = cost.rule == "observed"
    at = choose_threshold(probability, label, cost.false_positive, losses) if observed else even
    at = at if cut is None else cut
    if cost.review:
        half = cost.review / both
        found["refer"] = (max(0.0, at - half), min(1.0, at + half))
    return {**found, "threshold": at}


def _boosted(
    rows: tuple[Rows, Rows],
    inputs: Sequence[Input],
    classes: Sequence[str],
    model: LightGBMConfig,
    seed: int,
    out: Path,
    checkpoints: Path,
    progress: Progress,
) -> Fitted:
    train, valid = rows if len(classes) != 2 else [_weighed(one, model.positive_weight) for one in rows]
    columns = Columns(
        names=[item.name for item in inputs],
        categorical=[item.name for item in inputs if item.dtype == "string"],
        classes=len(classes),
    )
    fitted = fit_boosted(train, valid, columns, model, seed, checkpoints, progress)
    fitted.booster.save_model(str(out / "model.txt"), num_iteration=fitted.rounds)
    return Fitted(
        engine="lightgbm",
        raw=fitted.held_scores,
        save=lambda calibration: _write(out / "calibration.json", calibration),
        history=fitted.history,
        parameters={"best_round": fitted.rounds},
    )


def _weighed(rows: Rows, positive: float) -> Rows:
    own = _weights(rows.y, positive)
    return replace(rows, weight=own if rows.weight is None else own * rows.weight)


def _write(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(document))


def _fit_card(rows: tuple[Rows, Rows], inputs: Sequence[Input], model: ScorecardConfig, seed: int, out: Path) -> Fitted:
    train, valid = rows
    weight = np.ones(len(train.y)) if train.weight is None else train.weight
    card = fit_scorecard(inputs, train.x, np.asarray(train.y, dtype=np.int64), weight, model, seed)
    return Fitted(
        engine="scorecard",
        raw=log_odds(card, inputs, valid.x),
        save=lambda calibration: save_scorecard(card, calibration, out),
        parameters={"base_points": card.base, "inputs_used": len(card.characteristics)},
    )


def _fit_network(
    rows: tuple[Rows, Rows],
    inputs: Sequence[Input],
    model: NetworkConfig,
    privacy: PrivacyConfig,
    seed: int,
    out: Path,
    checkpoints: Path,
    progress: Progress,
    opponent: Opponent | None,
) -> Fitted:
    from pipelines.training.onnx_tabular import save_network

    found = fit_network(rows, inputs, model, privacy, seed, checkpoints, progress, opponent)
    form = form_of(inputs, found)
    return Fitted(
        engine="onnx",
        raw=found.raw,
        save=lambda calibration: save_network(form, calibration, out / "model.onnx"),
        history=found.history,
        parameters=found.parameters,
        device=found.device,
        privacy=found.privacy,
    )


def choose_threshold(probability: Floats, label: NDArray[np.int64], false_positive: float, losses: Floats) -> float:
    """The threshold with the least total cost: `false_positive` for each false alarm, `losses` of each missed positive.

    All arrays have shape (rows,). Ties take the higher threshold (fewer alarms).
    """
    order = np.argsort(-probability, kind="stable")
    p, y, lost = probability[order], label[order], losses[order]
    alarms = np.concatenate([[0.0], np.cumsum(np.where(y == 0, false_positive, 0.0))])
    missed = np.sum(lost * y) - np.concatenate([[0.0], np.cumsum(lost * y)])
    # A threshold can only stand where the score changes.
    cut = np.concatenate([[True], p[1:] != p[:-1], [True]])
    total = np.where(cut, alarms + missed, np.inf)
    best = int(np.argmin(total))
    if best == 0:
        return float(min(1.0, p[0] + 1e-6))
    above = float(p[best - 1])
    middle = (above + float(p[best])) / 2 if best < len(p) else above
    return middle if best == len(p) or middle > p[best] else above  # between neighbouring floats nothing fits


def fit_calibration(kind: str, score: Floats, label: NDArray[np.int64]) -> dict[str, Any]:
    """Fit a calibration of raw log-odds `score`, shape (rows,), to labels 0/1; the document of Calibration."""
    if kind == "none" or label.min(initial=1) == label.max(initial=0):
        return {"kind": "none"}
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        fitted = IsotonicRegression(y_min=1e-6, y_max=1 - 1e-6, out_of_bounds="clip").fit(score, label)
        return {"kind": "isotonic", "x": fitted.X_thresholds_.tolist(), "y": fitted.y_thresholds_.tolist()}
    from sklearn.linear_model import LogisticRegression

    # Platt's targets keep a separable validation set from giving an infinite slope.
    positives = int(label.sum())
    targets = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (len(label) - positives + 2))
    both = np.concatenate([score, score])[:, None]
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(
        both, np.repeat([1, 0], len(score)), sample_weight=np.concatenate([targets, 1 - targets])
    )
    slope = float(fitted.coef_[0, 0])
    # A negative slope would turn the model's order around on the strength of a small sample.
    return {"kind": "platt", "a": slope, "b": float(fitted.intercept_[0])} if slope > 0 else {"kind": "none"}


def _fit_logistic(
    rows: tuple[Rows, Rows], inputs: Sequence[Input], config: LogisticConfig, seed: int, out: Path
) -> Fitted:
    from sklearn.linear_model import LogisticRegression

    from pipelines.training.onnx_tabular import LinearForm, save_linear

    (train, valid), x = rows, rows[0].x
    median, width = np.nan_to_num(np.nanmedian(x, axis=0)), x.shape[1]

    def prepare(data: Floats) -> Floats:
        missing = np.isnan(data)
        filled = np.where(missing, median, data)
        # Signed logarithm: amounts and counts have long tails that a linear model cannot follow.
        bent = np.sign(filled) * np.log1p(np.abs(filled)) if config.log_scale else filled
        return np.concatenate([bent, missing], axis=1)

    mean, deviation = prepare(x).mean(axis=0), prepare(x).std(axis=0)
    deviation[deviation == 0] = 1.0
    fitted = LogisticRegression(C=config.c, max_iter=config.max_iterations, random_state=seed).fit(
        (prepare(x) - mean) / deviation, train.y, sample_weight=_weighed(train, config.positive_weight).weight
    )
    weights, bias = fitted.coef_[0], float(fitted.intercept_[0])
    form = LinearForm(
        median=median,
        mean=mean[:width],
        deviation=deviation[:width],
        weights=weights[:width],
        absent=weights[width:] / deviation[width:],
        bias=bias - float(mean[width:] @ (weights[width:] / deviation[width:])),
        log_scale=config.log_scale,
    )
    return Fitted(
        engine="onnx",
        raw=((prepare(valid.x) - mean) / deviation) @ weights + bias,
        save=lambda calibration: save_linear(form, calibration, out / "model.onnx"),
    )


def _weights(y: NDArray[Any], positive: float) -> Floats:
    share = positive or float((y == 0).sum() / max(1, (y == 1).sum()))
    return np.where(y == 1, share, 1.0)


def row_costs(cost: CostConfig, frame: pd.DataFrame) -> Floats:
    if isinstance(cost.false_negative, str):
        numeric = [str(name) for name in frame.select_dtypes("number").columns]
        if cost.false_negative not in numeric:
            example: str | float = numeric[0] if numeric else 5.0
            raise PlatformError(
                f"cost.false_negative names no column of numbers: {cost.false_negative!r}",
                detail=f"columns of numbers: {', '.join(numeric) or 'none'}",
                fix=f"give a number, or one of these columns: {setting('cost.false_negative', example)}",
                code="bad_config",
            )
        return frame[cost.false_negative].to_numpy(dtype=np.float64)
    return np.full(len(frame), float(cost.false_negative))


def _need_all_classes(y: NDArray[np.int64], classes: Sequence[str], split: str) -> None:
    if missing := [name for i, name in enumerate(classes) if not (y == i).any()]:
        raise PlatformError(
            f"no row of class {', '.join(missing)} in the {split} split",
            detail=f"{len(y)} rows",
            fix="give more data, or a longer training period",
            code="bad_data",
        )


def _flat(config: AnyModel) -> dict[str, Any]:
    given = {one.name: getattr(config, one.name) for one in fields(config)}
    nested = given.pop("training", None)
    return {**given, **({one.name: getattr(nested, one.name) for one in fields(nested)} if nested else {})}
