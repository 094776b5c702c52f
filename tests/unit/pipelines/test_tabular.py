"""Tabular training: what is exported answers as what was trained, and the threshold is the cheapest one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contracts.bundle import Input, write_bundle
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.tabular_engine import Calibration, matrix
from pipelines.evaluation.scoring import columns_of
from pipelines.training.boosting import LightGBMConfig, plain_names
from pipelines.training.tabular import (
    CostConfig,
    LogisticConfig,
    choose_threshold,
    fit_calibration,
    train_tabular,
)

INPUTS = [
    Input(name="amount", dtype="float64"),
    Input(name="age", dtype="float64"),
    Input(name="plan", dtype="string", categories=["basic", "plus", "pro"]),
]
CLASSES = ("stays", "leaves")


def frame(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    amount, age = rng.gamma(2, 30, rows), rng.normal(40, 10, rows)
    plan = rng.choice(["basic", "plus", "pro"], rows)
    odds = 0.02 * amount - 0.05 * (age - 40) + np.where(plan == "pro", 1.5, -1.0) - 1
    label = np.where(rng.random(rows) < 1 / (1 + np.exp(-odds)), "leaves", "stays")
    age[rng.random(rows) < 0.1] = np.nan
    return pd.DataFrame({"amount": amount, "age": age, "plan": plan, "label": label, "id": np.arange(rows).astype(str)})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    frame(3000, 1).to_parquet(folder / "train.parquet")
    frame(4000, 2).to_parquet(folder / "valid.parquet")
    return folder


def train(dataset: Path, out: Path, model: Any, **changes: Any) -> dict[str, Any]:
    options = {"checkpoints": out / "checkpoints", "progress": lambda *_, **__: None, **changes}
    options = {"cost": CostConfig(), **options}
    return train_tabular(dataset, INPUTS, CLASSES, model, seed=3, out=out / "model", **options)


def engine_of(out: Path, engine: str, inputs: list[Input] = INPUTS) -> Any:
    fields = {
        "name": "churn",
        "task": "churn",
        "recipe": "r",
        "modality": "tabular",
        "engine": engine,
        "signature": {"inputs": [i.model_dump() for i in inputs], "classes": list(CLASSES)},
        "gate": {"passed": True, "checks": []},
        "lineage": {"code_version": "", "data_version": "", "source": "", "seed": 1, "created": ""},
    }
    return load_engine(write_bundle(out, out.parent / "bundles", fields))


def columns(data: pd.DataFrame) -> dict[str, Any]:
    return {item.name: data[item.name].to_numpy() for item in INPUTS}


@pytest.mark.parametrize("calibration", ["platt", "isotonic", "none"])
@pytest.mark.parametrize("model", [LightGBMConfig, LogisticConfig])
def test_the_exported_model_is_calibrated_and_ranks(
    dataset: Path, tmp_path: Path, model: Any, calibration: str
) -> None:
    out = tmp_path / "out"
    report = train(dataset, out, model(calibration=calibration, **({"threads": 1} if model is LightGBMConfig else {})))
    test = frame(4000, 9)
    p = engine_of(out, report["engine"]).predict(columns(test))
    assert p.shape == (4000, 2)
    assert np.allclose(p.sum(axis=1), 1)
    truth = (test["label"] == "leaves").to_numpy()
    assert p[truth, 1].mean() > p[~truth, 1].mean() + 0.1
    assert abs(p[:, 1].mean() - truth.mean()) < 0.03
    assert 0 < report["decision"]["threshold"] < 1


@pytest.mark.parametrize("model", [LightGBMConfig(calibration="none", threads=1), LogisticConfig(calibration="none")])
def test_reasons_are_the_largest_contributions_first(dataset: Path, tmp_path: Path, model: Any) -> None:
    out = tmp_path / "out"
    engine = engine_of(out, train(dataset, out, model)["engine"])
    test = frame(200, 5)
    reasons = engine.explain(columns(test), top=3)
    assert all(len(row) == 3 for row in reasons)
    sizes = np.array([[abs(reason.contribution) for reason in row] for row in reasons])
    assert (np.diff(sizes, axis=1) <= 0).all()
    # Contributions of a row and its log-odds differ by one constant: the attribution is exact.
    p = engine.predict(columns(test))[:, 1]
    rest = np.log(p / (1 - p)) - np.array([sum(reason.contribution for reason in row) for row in reasons])
    assert np.ptp(rest) < 1e-6
    missing = np.isnan(test["age"].to_numpy())
    assert all(r.value is None for row, m in zip(reasons, missing, strict=True) if m for r in row if r.feature == "age")


def worth(node: Any, row: Any, known: set[int]) -> float:
    """What a tree expects for `row` when only the inputs `known` are known: branches count by the rows they had."""
    if "leaf_value" in node:
        return float(node["leaf_value"])
    branches = node["left_child"], node["right_child"]
    if node["split_feature"] not in known:
        rows = [one.get("leaf_count", one.get("internal_count")) for one in branches]
        return float(np.average([worth(one, row, known) for one in branches], weights=rows))
    value = row[node["split_feature"]]
    if node["decision_type"] == "==":  # a set of categories goes left
        inside = not np.isnan(value) and str(int(value)) in node["threshold"].split("||")
        return worth(branches[0 if inside else 1], row, known)
    if np.isnan(value) and node["missing_type"] == "NaN":
        return worth(branches[0 if node["default_left"] else 1], row, known)
    return worth(branches[0 if np.nan_to_num(value) <= node["threshold"] else 1], row, known)


def test_contributions_of_trees_are_shapley_values_by_their_definition(dataset: Path, tmp_path: Path) -> None:
    from itertools import combinations
    from math import factorial

    out = tmp_path / "out"
    engine = engine_of(out, train(dataset, out, LightGBMConfig(calibration="none", threads=1, rounds=8))["engine"])
    trees = [tree["tree_structure"] for tree in engine._booster.dump_model()["tree_info"]]
    test, inputs = frame(12, 5), range(len(INPUTS))
    reasons = engine.explain(columns(test), top=len(INPUTS))
    for row, said in zip(matrix(INPUTS, columns(test)), reasons, strict=True):
        got = {reason.feature: reason.contribution for reason in said}
        for one in inputs:
            expected = 0.0
            for size in range(len(INPUTS)):
                share = factorial(size) * factorial(len(INPUTS) - size - 1) / factorial(len(INPUTS))
                for others in combinations([other for other in inputs if other != one], size):
                    gain = sum(worth(t, row, {*others, one}) - worth(t, row, set(others)) for t in trees)
                    expected += share * gain
            assert got[INPUTS[one].name] == pytest.approx(expected, abs=1e-9)


def test_an_unknown_category_counts_as_missing() -> None:
    data = {
        "amount": np.array([1.0, 1.0]),
        "age": np.array([2.0, 2.0]),
        "plan": np.array(["pro", "gold"], dtype=object),
    }
    assert matrix(INPUTS, data)[0, 2] == 2
    assert np.isnan(matrix(INPUTS, data)[1, 2])


ODD = {"amount": "charge, gross", "age": 'calls[7d]:"x"', "plan": "plan {type} \u4ef7\u683c"}


@pytest.mark.parametrize("model", [LightGBMConfig(rounds=20), LogisticConfig()])
def test_columns_may_have_any_name(dataset: Path, tmp_path: Path, model: Any) -> None:
    renamed = tmp_path / "dataset"
    renamed.mkdir()
    for part in ("train", "valid"):
        pd.read_parquet(dataset / f"{part}.parquet").rename(columns=ODD).to_parquet(renamed / f"{part}.parquet")
    inputs = [item.model_copy(update={"name": ODD[item.name]}) for item in INPUTS]
    answers = []
    for out, folder, signature in ((tmp_path / "plain", dataset, INPUTS), (tmp_path / "odd", renamed, inputs)):
        options: dict[str, Any] = {"checkpoints": out / "checkpoints", "progress": lambda *_, **__: None}
        trained = train_tabular(folder, signature, CLASSES, model, CostConfig(), 3, out / "model", **options)
        engine = engine_of(out, trained["engine"], signature)
        table = pd.read_parquet(folder / "valid.parquet").head(50)
        answers.append(engine.predict(columns_of(table, signature)))
    assert np.array_equal(answers[0], answers[1])


@given(names=st.lists(st.text(max_size=12) | st.sampled_from(["input_0", "input_1", "a,b", "a b"]), unique=True))
def test_names_for_lightgbm_are_plain_and_differ(names: list[str]) -> None:
    plain = plain_names(names)
    assert len(set(plain)) == len(names)
    assert not set("".join(plain)) & set(',[]{}:" \t')
    assert plain_names(plain) == plain


def test_the_same_seed_gives_the_same_model(dataset: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        train(dataset, tmp_path / name, LightGBMConfig(rounds=30, threads=1))
        texts.append((tmp_path / name / "model" / "model.txt").read_text())
    assert texts[0] == texts[1]


def test_a_killed_training_continues_and_ends_with_the_same_model(dataset: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def stop_at_40(done: int, total: int, **_: float) -> None:
        if done >= 40:
            raise KilledError

    config = LightGBMConfig(rounds=60, threads=1, checkpoint_every=20, early_stopping=60)
    with pytest.raises(KilledError):
        train(dataset, tmp_path / "out", config, progress=stop_at_40)
    seen: list[int] = []
    report = train(dataset, tmp_path / "out", config, progress=lambda done, total, **_: seen.append(done))
    assert min(seen) > 20
    assert len(report["history"]) == 60
    train(dataset, tmp_path / "whole", config)
    resumed, whole = ((tmp_path / name / "model" / "model.txt").read_text() for name in ("out", "whole"))
    assert resumed == whole


def test_blocks_of_rounds_add_up_to_one_training(dataset: Path, tmp_path: Path) -> None:
    scores = []
    for name, every in (("one", 40), ("blocks", 10)):
        config = LightGBMConfig(
            rounds=40, threads=1, checkpoint_every=every, bagging_fraction=1.0, feature_fraction=1.0, early_stopping=40
        )
        report = train(dataset, tmp_path / name, config)
        scores.append([row["valid_binary_logloss"] for row in report["history"]])
    assert np.allclose(scores[0], scores[1], rtol=1e-3)


def test_it_stops_when_validation_gets_worse(dataset: Path, tmp_path: Path) -> None:
    config = LightGBMConfig(rounds=500, learning_rate=0.3, threads=1, checkpoint_every=10, early_stopping=20)
    report = train(dataset, tmp_path / "out", config)
    losses = [row["valid_binary_logloss"] for row in report["history"]]
    assert len(losses) < 500
    assert report["parameters"]["best_round"] == int(np.argmin(losses)) + 1


def test_a_refit_learns_from_the_validation_rows_too(dataset: Path, tmp_path: Path) -> None:
    config = LightGBMConfig(rounds=30, threads=1)
    refit = LightGBMConfig(rounds=30, threads=1, refit=True)
    reports = [train(dataset, tmp_path / str(i), model) for i, model in enumerate((config, refit))]
    texts = [(tmp_path / str(i) / "model" / "model.txt").read_text() for i in range(2)]
    assert texts[0] != texts[1]
    assert reports[0]["decision"] == reports[1]["decision"]  # chosen by the model that had not seen these rows


@pytest.mark.parametrize("column", ["nothing", "plan"])
def test_a_cost_that_is_no_column_of_numbers_is_refused_before_the_fit(
    dataset: Path, tmp_path: Path, column: str
) -> None:
    def fit(*_: Any, **__: Any) -> None:
        raise AssertionError("it trains")

    with pytest.raises(PlatformError, match=f"no column of numbers: '{column}'") as caught:
        train(dataset, tmp_path, LightGBMConfig(), cost=CostConfig(false_negative=column), progress=fit)
    assert caught.value.fix.endswith("--set cost.false_negative=amount")


def test_a_class_without_rows_is_an_error(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    only = frame(50, 1).assign(label="stays")
    only.to_parquet(folder / "train.parquet")
    only.to_parquet(folder / "valid.parquet")
    with pytest.raises(PlatformError, match="no row of class leaves in the train split"):
        train(folder, tmp_path / "out", LightGBMConfig())


rows = st.integers(1, 60)


def test_scores_that_are_neighbours_are_told_apart() -> None:
    low = 0.001
    p = np.array([low, np.nextafter(low, 1)])
    found = choose_threshold(p, np.array([0, 1]), 3.0, np.array([1.0, 1.0]))
    assert (p >= found).tolist() == [False, True]


@given(data=st.data(), n=rows)
def test_no_other_threshold_is_cheaper(data: st.DataObject, n: int) -> None:
    p = data.draw(hnp.arrays(np.float64, n, elements=st.floats(0.001, 0.999)))
    y = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    losses = data.draw(hnp.arrays(np.float64, n, elements=st.floats(0, 100)))

    def cost(threshold: float) -> float:
        alarm = p >= threshold
        return float(3.0 * (alarm & (y == 0)).sum() + losses[~alarm & (y == 1)].sum())

    best = cost(choose_threshold(p, y, 3.0, losses))
    assert best <= min(cost(t) for t in [0.0, *p, *(p + 1e-9), 1.1]) + 1e-9


@given(data=st.data(), kind=st.sampled_from(["platt", "isotonic"]))
def test_calibration_keeps_the_order(data: st.DataObject, kind: str) -> None:
    score = np.sort(data.draw(hnp.arrays(np.float64, 30, elements=st.floats(-8, 8))))
    label = (score + np.random.default_rng(0).normal(0, 2, 30) > 0).astype(np.int64)
    p = Calibration(fit_calibration(kind, score, label))(score)
    assert (np.diff(p) >= -1e-12).all()
    assert ((p >= 0) & (p <= 1)).all()


@pytest.fixture(scope="module")
def with_hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training rows also come without `age` and `plan`; other rows without an age are few and all leave."""
    folder = tmp_path_factory.mktemp("hidden")
    train = frame(3000, 1)
    train.loc[train["age"].isna(), "label"] = "leaves"
    train.to_parquet(folder / "train.parquet")
    frame(4000, 2).to_parquet(folder / "valid.parquet")
    served = train.assign(age=np.nan, plan=None, hidden_case="unknown entity", hidden_rank=np.arange(3000) / 3000)
    served.to_parquet(folder / "train_hidden-0.parquet")
    return folder


def log_loss(truth: Any, probability: Any) -> float:
    return float(-np.log(np.where(truth, probability, 1 - probability)).mean())


@pytest.mark.parametrize(("model", "share"), [(LightGBMConfig, 1.0), (LogisticConfig, 0.3)])
def test_rows_that_are_served_without_features_get_their_share_of_positives(
    with_hidden: Path, tmp_path: Path, model: Any, share: float
) -> None:
    test = frame(4000, 9)
    truth = (test["label"] == "leaves").to_numpy()
    served = columns(test.assign(age=np.nan, plan=None))

    def trained(hide_share: float) -> tuple[Any, Any]:
        out = tmp_path / str(hide_share)
        engine = engine_of(out, train(with_hidden, out, model(hide_share=hide_share))["engine"])
        return engine.predict(served)[:, 1], engine.predict(columns(test))[:, 1]

    (blind, plain), (taught, known) = trained(0.0), trained(share)
    assert abs(taught.mean() - truth.mean()) < 0.05
    assert blind.mean() > truth.mean() + 0.15
    low, high = np.quantile(test["amount"], [0.1, 0.9])
    assert taught[test["amount"] > high].mean() > taught[test["amount"] < low].mean() + 0.1
    assert log_loss(truth, known) < log_loss(truth, plain) + 0.01


def test_a_rising_input_never_lowers_the_score(dataset: Path, tmp_path: Path) -> None:
    engine = engine_of(tmp_path / "out", train(dataset, tmp_path / "out", LightGBMConfig(rising=("amount",)))["engine"])
    rows = frame(200, 4)
    answers = np.stack([engine.predict(columns(rows.assign(amount=a)))[:, 1] for a in np.linspace(0, 400, 80)])
    assert (np.diff(answers, axis=0) >= 0).all()
    assert (answers[-1] > answers[0]).all()


@pytest.mark.parametrize("name", ["plan", "colour"])
def test_a_rising_input_must_be_a_number_of_the_model(dataset: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(PlatformError, match=f"model.rising names '{name}'") as caught:
        train(dataset, tmp_path / "out", LightGBMConfig(rising=("amount", name)))
    assert "amount, age" in str(caught.value.detail)


def test_the_default_of_an_input_is_learned_from_as_it_is_served(tmp_path: Path) -> None:
    """A missing age is served as 60, so that training must see 60 as well."""
    data = frame(3000, 1)
    for name, rows in (("train", data), ("valid", frame(2000, 2))):
        rows.to_parquet(tmp_path / f"{name}.parquet")
        rows.fillna({"age": 60.0}).to_parquet(tmp_path / f"filled-{name}.parquet")
    inputs = [INPUTS[0], INPUTS[1].model_copy(update={"default": 60.0}), INPUTS[2]]
    filled = tmp_path / "filled"
    filled.mkdir()
    for name in ("train", "valid"):
        (tmp_path / f"filled-{name}.parquet").rename(filled / f"{name}.parquet")
    models = []
    for at, (folder, asked) in enumerate([(tmp_path, inputs), (filled, INPUTS)]):
        out = tmp_path / f"out-{at}"
        train_tabular(
            folder, asked, CLASSES, LightGBMConfig(rounds=20), CostConfig(), 3, out, out / "c", lambda *_, **__: None
        )
        models.append((out / "model.txt").read_text())
    assert models[0] == models[1]
