"""A number, and several labels a row: each from a CSV file to a champion with a card, and batch scores."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from contracts.bundle import Bundle
from contracts.engines import load_engine
from contracts.registry import Registry
from pipelines.evaluation.multilabel import label_matrix
from pipelines.evaluation.scoring import columns_of
from pipelines.steps.batch_score import batch_score
from pipelines.steps.register import register
from pipelines.training.labels import best_threshold
from pipelines.training.numbers import conformal_margin
from tests import packages
from tests.chain import Chain

ROWS = 1500
HOUSES = Path(__file__).parents[2] / "toy" / "houses_task.py"


def houses() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    area, place = rng.uniform(20, 200, ROWS).round(1), rng.choice(["city", "hill", "lake"], ROWS)
    price = area * np.where(place == "city", 5.0, 3.0) + rng.normal(0, 20, ROWS)
    words = {"big": area > 120, "view": place != "city", "dear": price > 500}
    return pd.DataFrame(
        {
            "house": [f"H{at:05d}" for at in range(ROWS)],
            "area": area,
            "place": place,
            "price": price.round(2),
            "words": ["|".join(word for word in words if words[word][at]) for at in range(ROWS)],
        }
    )


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = "price = houses_task:PRICE\nwords = houses_task:WORDS"
    packages.install(tmp_path / "site", "houses", {"houses_task.py": HOUSES.read_text()}, {"tasks": tasks})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "houses_task", raising=False)  # of another test's folder


def publish(task: str, frame: pd.DataFrame, home: Path, tables: Path) -> tuple[Chain, Bundle]:
    source = home / "houses.csv"
    home.mkdir()
    frame.to_csv(source, index=False)
    chain = Chain(task=task, home=home / "home", source=str(source))
    shutil.copy(tables, chain.home)
    chain.dataset()
    chain.candidate()
    ends = chain.endpoints.model_dump_json()
    assert chain.call("gate", chain.path("dataset"), chain.path("candidate"), ends, chain.path("gate.json"))
    candidate, gate, out = (str(chain.path(name)) for name in ("candidate", "gate.json", "registered.json"))
    register(task, chain.config, candidate, gate, ends, "run", True, out)
    return chain, Registry(chain.endpoints).fetch(task)


def scored(chain: Chain, source: pd.DataFrame, out: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    rows = out.with_suffix(".csv")
    source.to_csv(rows, index=False)
    summary = batch_score(chain.task, str(rows), chain.endpoints.model_dump_json(), str(out))
    return summary, parquet.read_table(out / "part-00000.parquet").to_pandas()


def test_a_number_becomes_a_champion_with_an_interval(tmp_path: Path, registry_tables: Path) -> None:
    frame = houses()
    chain, bundle = publish("price", frame, tmp_path / "price", registry_tables)
    output: Any = bundle.document.signature.output
    assert (output.problem, output.coverage, output.unit) == ("regression", 0.8, "thousand")
    metrics = bundle.document.metrics
    assert metrics["mae"] < 20
    assert 0.7 <= metrics["coverage"] <= 0.9
    assert "place:city" in bundle.document.slices
    test = pd.read_parquet(chain.path("dataset") / "test.parquet")
    answers = load_engine(bundle).predict(columns_of(test, bundle.document.signature.inputs))
    assert np.abs(answers[:, 0] - test["label"]).mean() == pytest.approx(metrics["mae"])
    assert len(list(bundle.golden())) >= 15
    card = (bundle.path / "card.html").read_text()
    assert "Answers a number in thousand, and the interval of 80% of the true values." in card
    assert "True values in their interval" in card
    assert {file.stem for file in (bundle.path / "plots").iterdir()} >= {"predicted_and_true", "residuals"}
    summary, rows = scored(chain, frame[["area", "place"]].head(50), tmp_path / "scores")
    assert summary["values"]["minimum"] == rows["value_predicted"].min()
    assert (rows["low_predicted"] <= rows["value_predicted"]).all()
    assert (rows["value_predicted"] <= rows["high_predicted"]).all()


def test_several_labels_become_a_champion_with_thresholds(tmp_path: Path, registry_tables: Path) -> None:
    frame = houses()
    chain, bundle = publish("words", frame, tmp_path / "words", registry_tables)
    output: Any = bundle.document.signature.output
    assert output.labels == ["big", "dear", "view"]
    assert bundle.document.metrics["micro_f1"] > 0.9
    assert bundle.document.metrics["f1:view"] > 0.95
    assert "Gives each label from its probability on: big" in (bundle.path / "card.html").read_text()
    summary, rows = scored(chain, frame[["area", "place"]].head(300), tmp_path / "scores")
    said = label_matrix(["|".join(words) for words in rows["labels_predicted"]], output.labels)
    assert summary["labels"] == dict(zip(output.labels, said.sum(axis=0).tolist(), strict=True))
    assert (said == label_matrix(frame["words"].head(300), output.labels)).mean() > 0.95


def test_the_margin_of_an_interval_holds_the_share_that_is_asked_for() -> None:
    true = np.arange(99.0)
    low, high = np.full(99, 40.0), np.full(99, 58.0)
    margin = conformal_margin(true, low, high, 0.9)
    assert np.mean((low - margin <= true) & (true <= high + margin)) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(
    ("probability", "true", "threshold"),
    [([0.9, 0.6, 0.4, 0.1], [1, 1, 0, 0], 0.5), ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 0.3), ([0.2, 0.1], [0, 0], 0.5)],
)
def test_the_threshold_of_a_label_is_where_its_f1_is_best(
    probability: list[float], true: list[int], threshold: float
) -> None:
    assert best_threshold(np.array(probability), np.array(true) > 0) == pytest.approx(threshold)
