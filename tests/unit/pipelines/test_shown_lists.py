"""A recommender with a ranker is compared with the champion by lists that were shown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.evaluation.shown_lists import METRIC, UNTIL, click_gains, judged_by_lists, parameters_of

ITEMS = [f"i{at}" for at in range(6)]


class Model:
    """Orders items by fixed worths, whatever the history."""

    def __init__(self, worth: list[float], ranked: bool) -> None:
        self.ranker = SimpleNamespace(spec=SimpleNamespace(looked=[1.0, 0.7, 0.5])) if ranked else None
        self.spec, self.worth, self.asked = SimpleNamespace(history=5), np.array(worth), list[list[int]]()

    def history(self, codes: list[int]) -> tuple[Any, Any]:
        return np.array(codes, dtype=np.int64), None

    def relevance(self, recent: Any, items: Any) -> Any:
        self.asked.append(recent.tolist())
        return self.worth[items]


def bundle(worth: list[float], ranked: bool = False, until: float = 0.0) -> Any:
    document = SimpleNamespace(parameters={UNTIL: until})
    places = {item: at for at, item in enumerate(ITEMS[: len(worth)])}
    return SimpleNamespace(document=document, engine=SimpleNamespace(model=Model(worth, ranked), places=places))


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """200 lists of three of six items, of which the later ones of `ITEMS` are clicked more often."""
    monkeypatch.setattr("contracts.engines.load_engine", lambda bundle, threads: bundle.engine)
    rng, rows = np.random.default_rng(1), []
    for number in range(200):
        for place, at in enumerate(rng.permutation(6)[:3].tolist(), start=1):
            clicked = bool(rng.random() < 0.15 * at)
            rows.append((f"l{number:03d}", f"u{number % 40}", ITEMS[at], place, clicked, 1_000.0 + number, "test"))
    shown = pd.DataFrame(rows, columns=["list", "user", "item", "place", "clicked", "time", "part"])
    shown.to_parquet(tmp_path / "impressions.parquet")
    taken = pd.DataFrame({"user": ["u0"], "item": [""], "label": ["i3"], "seconds": [5.0]})
    for name in ("train", "valid"):
        taken.to_parquet(tmp_path / f"{name}.parquet")
    return tmp_path


RIGHT, WRONG = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]


def test_who_puts_clicks_higher_is_better_and_the_interval_says_so(dataset: Path) -> None:
    pair, said = judged_by_lists(bundle(RIGHT, True), bundle(WRONG), dataset)
    assert pair is not None
    assert pair.candidate > pair.champion + 0.1
    assert pair.interval is not None
    assert pair.interval[0] > 0
    assert (pair.rows, "200 lists" in said) == (200, True)
    other, _ = judged_by_lists(bundle(WRONG, True), bundle(RIGHT), dataset)
    assert other is not None
    assert (other.candidate, other.champion) == (pair.champion, pair.candidate)


def test_an_item_that_a_model_does_not_know_stands_last(dataset: Path) -> None:
    pair, _ = judged_by_lists(bundle(RIGHT, True), bundle(RIGHT[:5]), dataset)
    assert pair is not None
    assert pair.candidate > pair.champion, "the best item is not in the champion's catalogue"


def test_both_are_asked_with_what_was_taken_before_each_list(dataset: Path) -> None:
    ours, its = bundle(RIGHT, True), bundle(WRONG)
    judged_by_lists(ours, its, dataset)
    assert ours.engine.model.asked == its.engine.model.asked
    assert ours.engine.model.asked[0] == [3]
    assert ours.engine.model.asked[1] == []


def test_lists_of_a_time_that_the_champion_has_learned_of_do_not_judge_it(dataset: Path) -> None:
    pair, _ = judged_by_lists(bundle(RIGHT, True), bundle(WRONG, until=1_099.0), dataset)
    assert pair is not None
    assert pair.rows == 100
    none, said = judged_by_lists(bundle(RIGHT, True), bundle(WRONG, until=5_000.0), dataset)
    assert none is None
    assert "less than 50 clicks" in said


def test_two_retrievers_are_compared_by_the_primary_metric(dataset: Path) -> None:
    assert judged_by_lists(bundle(RIGHT), bundle(WRONG), dataset) == (None, "")
    (dataset / "impressions.parquet").unlink()
    none, said = judged_by_lists(bundle(RIGHT), bundle(WRONG, True), dataset)
    assert none is None
    assert "impressions.source" in said


def test_the_gate_refuses_by_lists_whatever_ndcg_says(dataset: Path) -> None:
    from pipelines.evaluation import comparison
    from pipelines.task import GateConfig

    def named(worth: list[float], ranked: bool = False) -> Any:
        found = bundle(worth, ranked)
        found.document.signature = SimpleNamespace(output=SimpleNamespace(problem="ranking"))
        return found

    settings = GateConfig(primary="ndcg")
    check, notes = comparison.compare(named(WRONG, True), named(RIGHT), "r:1", dataset, {}, settings)
    assert check is not None
    assert (check.metric, check.passed, check.against) == (METRIC, False, "r:1")
    assert METRIC in comparison.describe(check)
    assert len(notes) == 1
    check, _ = comparison.compare(named(RIGHT, True), named(WRONG), "r:1", dataset, {}, settings)
    assert check is not None
    assert check.passed


def test_gains_fall_with_the_rank_and_weights_with_the_look() -> None:
    clicked = np.array([True, False, True])
    found = click_gains(np.array([1.0, 3.0, 2.0]), np.zeros(3, int), np.arange(3), clicked, np.array([1.0, 0.5]))
    assert found[0] == pytest.approx([0.5, 1 / np.log2(3)])
    assert (found[1].tolist(), parameters_of(np.array([1.0, 7.0]))) == ([1.0, 2.0], {UNTIL: 7.0})
