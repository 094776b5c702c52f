"""LightGBM in blocks of rounds: a killed run goes on from its last block and ends with the very same model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from contracts.tabular_engine import import_lightgbm
from pipelines.search_space import Dimension
from pipelines.task import STRICT, Progress

_PLAIN = re.compile(r"[\w.+-]+")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LightGBMConfig:
    """Gradient boosted trees (Ke et al., NeurIPS 2017); `positive_weight` 0 balances the classes.

    refit: train once more on training and validation rows together, for the number of rounds that was best.
    rising, falling: inputs with which the score of the second of two classes never falls, or never rises, all other
        inputs being equal.
    hide_share: of training rows, how many are also learned from as they are served without their online features, so
        that unknown entities and stale features have a right answer.
    threads: 0 takes one per 50,000 rows, at most one per core: on a busy machine idle threads cost more than they give.
    """

    kind: Literal["lightgbm"] = "lightgbm"
    rounds: int = 400
    learning_rate: float = 0.05
    leaves: int = 31
    min_leaf: int = 40
    feature_fraction: float = 0.8
    bagging_fraction: float = 0.8
    l2: float = 1.0
    positive_weight: float = 1.0
    early_stopping: int = 40
    calibration: Literal["platt", "isotonic", "none"] = "platt"
    refit: bool = False
    checkpoint_every: int = 50
    threads: int = 0
    rising: tuple[str, ...] = ()
    falling: tuple[str, ...] = ()
    hide_share: Share = 1.0

    # Rounds are where a training ends at the latest: validation rows stop it, and 400 end a small rate too early.
    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "rounds": Dimension(low=400, high=2_000, log=True),
        "learning_rate": Dimension(low=0.01, high=0.2, log=True),
        "leaves": Dimension(low=4, high=128, log=True),
        "min_leaf": Dimension(low=5, high=200, log=True),
        "feature_fraction": Dimension(low=0.3, high=1.0),
        "bagging_fraction": Dimension(low=0.5, high=1.0),
        "l2": Dimension(low=0.001, high=100.0, log=True),
    }


@plain_dataclass(frozen=True, kw_only=True)
class Rows:
    """Training or validation rows: `x` of shape (rows, inputs), class numbers or numbers `y`, weights; (rows,) each.

    judged_by_weight: whether early stopping on these rows weighs them too.
    """

    x: Floats
    y: Ints | Floats
    weight: Floats | None = None
    judged_by_weight: bool = False


@plain_dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the inputs, those that are category numbers, and what is predicted.

    classes: how many; 0 for a number.  quantile: of the number; None for its mean.
    """

    names: Sequence[str]
    categorical: Sequence[str]
    classes: int
    quantile: float | None = None

    @property
    def metric(self) -> str:
        """What training lowers, as LightGBM calls it."""
        if self.classes == 0:
            return "l2" if self.quantile is None else "quantile"
        return "binary_logloss" if self.classes == 2 else "multi_logloss"

    def objective(self) -> dict[str, Any]:
        """LightGBM's parameters."""
        if self.classes == 0:
            alpha = {} if self.quantile is None else {"alpha": self.quantile}
            return {"objective": "regression" if self.quantile is None else "quantile", "metric": self.metric, **alpha}
        if self.classes == 2:
            return {"objective": "binary", "metric": ["average_precision", self.metric]}
        return {"objective": "multiclass", "metric": [self.metric], "num_class": self.classes}


@plain_dataclass(frozen=True, kw_only=True)
class Boosted:
    """The model, its number of rounds, and raw scores of the validation rows by a model that did not train on them.

    Raw scores are log-odds, or numbers.
    """

    booster: Any
    rounds: int
    held_scores: Floats
    history: list[dict[str, float]]


def fit_boosted(
    train: Rows,
    valid: Rows,
    columns: Columns,
    config: LightGBMConfig,
    seed: int,
    checkpoints: Path,
    progress: Progress,
) -> Boosted:
    """Train with early stopping on `valid`; with ``config.refit``, once more on all rows for as many rounds.

    Every block of ``config.checkpoint_every`` rounds has a seed of its own and starts from the text of the one before,
    so that it does not matter whether the process was killed in between.
    """
    data, held = _datasets(train, valid, columns)
    booster, history = _load(checkpoints)
    while len(history) < config.rounds and not _stopped(history, config, columns):
        count = min(config.checkpoint_every, config.rounds - len(history))
        booster = _block(data, held, columns, config, seed, count, booster, history, progress)
        _save(checkpoints, booster, history)
    best = _best(history, config, columns)
    progress(config.rounds, config.rounds, rounds=best)
    scores = np.asarray(booster.predict(valid.x, raw_score=True, num_iteration=best))
    if not config.refit:
        return Boosted(booster=booster, rounds=best, held_scores=scores, history=history)
    both = Rows(
        x=np.concatenate([train.x, valid.x]),
        y=np.concatenate([train.y, valid.y]),
        weight=None if train.weight is None else np.concatenate([train.weight, valid.weight]),
    )
    data, _ = _datasets(both, valid, columns)
    whole = _block(data, None, columns, config, seed, best, None, [], lambda *_, **__: None)
    return Boosted(booster=whole, rounds=best, held_scores=scores, history=history)


def _datasets(train: Rows, valid: Rows, columns: Columns) -> tuple[Any, Any]:
    lgb = import_lightgbm()
    names = plain_names(columns.names)
    categorical = [plain for plain, name in zip(names, columns.names, strict=True) if name in columns.categorical]
    options: dict[str, Any] = {
        "feature_name": names,
        "categorical_feature": categorical or "auto",
        "free_raw_data": False,
    }
    data = lgb.Dataset(train.x, train.y, weight=train.weight, **options)
    weight = valid.weight if valid.judged_by_weight else None
    return data, lgb.Dataset(valid.x, valid.y, weight=weight, reference=data, free_raw_data=False)


def plain_names(names: Sequence[str]) -> list[str]:
    """Names that LightGBM takes, in order: it refuses commas, quotes, brackets and colons, and rewrites spaces.

    Other names become ``input_<position>``. The engine gives inputs by position, so only the model's text shows them.
    """
    plain = [name if _PLAIN.fullmatch(name) else "" for name in names]
    taken = set(plain)
    for at, name in enumerate(plain):
        if not name:
            made = f"input_{at}"
            while made in taken:
                made += "_"
            taken.add(made)
            plain[at] = made
    return plain


def _block(
    data: Any,
    held: Any,
    columns: Columns,
    config: LightGBMConfig,
    seed: int,
    count: int,
    start: Any,
    history: list[dict[str, float]],
    progress: Progress,
) -> Any:
    lgb = import_lightgbm()

    def report(env: Any) -> None:
        row = {f"{name}_{metric}": float(value) for name, metric, value, _ in env.evaluation_result_list}
        history.append(row)
        if len(history) % 10 == 0:
            progress(len(history), config.rounds, **row)

    # From text, as after a kill: a model in memory holds numbers that its text does not.
    before = lgb.Booster(model_str=start.model_to_string(num_iteration=-1)) if start is not None else None
    return lgb.train(
        _parameters(columns, config, seed + (start.current_iteration() if start is not None else 0), len(data.label)),
        data,
        num_boost_round=count,
        valid_sets=[held] if held is not None else None,
        valid_names=["valid"] if held is not None else None,
        init_model=before,
        callbacks=[report],
    )


def _parameters(columns: Columns, config: LightGBMConfig, seed: int, rows: int) -> dict[str, Any]:
    return {
        **columns.objective(),
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.min_leaf,
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": config.bagging_fraction,
        "bagging_freq": 1 if config.bagging_fraction < 1 else 0,
        "lambda_l2": config.l2,
        "num_threads": config.threads or max(1, min(rows // 50_000, len(os.sched_getaffinity(0)))),
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
        **({"monotone_constraints": _monotone(columns, config)} if config.rising or config.falling else {}),
    }


def _monotone(columns: Columns, config: LightGBMConfig) -> list[int]:
    """LightGBM's number for each input: 1 where the score never falls, -1 where it never rises."""
    check_monotone(columns, config.rising, config.falling)
    return [int(name in config.rising) - int(name in config.falling) for name in columns.names]


def check_monotone(columns: Columns, rising: Sequence[str], falling: Sequence[str]) -> None:
    """Refuse what is no number of the model, and what is to rise and to fall.

    Raises:
        PlatformError: ``code="bad_config"``.
    """
    free = [name for name in columns.names if name not in columns.categorical]
    for key, names in (("rising", rising), ("falling", falling)):
        wrong = [name for name in names if name not in free]
        both = [name for name in falling if name in rising]
        if not names or not (wrong or both or columns.classes not in (0, 2)):
            continue
        if wrong:
            said = f"model.{key} names {wrong[0]!r}, which is no number that the model gets"
        elif both:
            said = f"model.rising and model.falling both name {both[0]!r}"
        else:
            said = f"model.{key} is for two classes or a number; there are {columns.classes}"
        raise PlatformError(
            said,
            detail=f"numbers: {', '.join(free)}",
            fix=f"--set 'model.{key}=[]', or names of numbers of a model with two classes",
            code="bad_config",
        )


def _goodness(history: Sequence[dict[str, float]], config: LightGBMConfig, columns: Columns) -> list[float]:
    """What early stopping maximises, per round. Weighted classes spoil the log loss, so then it is the ranking."""
    if columns.classes == 2 and config.positive_weight != 1.0:
        return [row["valid_average_precision"] for row in history]
    return [-row[f"valid_{columns.metric}"] for row in history]


def _best(history: Sequence[dict[str, float]], config: LightGBMConfig, columns: Columns) -> int:
    """Number of rounds of the best model, at least one."""
    return int(np.argmax(_goodness(history, config, columns))) + 1


def _stopped(history: Sequence[dict[str, float]], config: LightGBMConfig, columns: Columns) -> bool:
    return bool(history) and len(history) - _best(history, config, columns) >= config.early_stopping


def _load(folder: Path) -> tuple[Any, list[dict[str, float]]]:
    lgb = import_lightgbm()
    state = folder / "state.json"
    if not state.exists():
        return None, []
    saved = json.loads(state.read_text())
    return lgb.Booster(model_str=saved["model"]), saved["history"]


def _save(folder: Path, booster: Any, history: list[dict[str, float]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "state.json.part"
    part.write_text(json.dumps({"model": booster.model_to_string(num_iteration=-1), "history": history}))
    os.replace(part, folder / "state.json")
