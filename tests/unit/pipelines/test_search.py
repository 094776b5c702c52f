"""A search inside a training: its space, its trials, what it finds and what the test rows say of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import PlatformError
from pipelines.evaluation import search_plots
from pipelines.groups import try_out
from pipelines.pages.card import render_card
from pipelines.search import found, run_search, study, trial
from pipelines.search.outcome import verdict
from pipelines.search.worker import Job, Worker
from pipelines.steps.evaluate import evaluate
from pipelines.steps.train import train
from pipelines.tasks import load_config

SPACE = {"model.rounds": {"low": 1, "high": 30, "log": True}}


class Inline:
    """In place of the processes of a search: its workers one after the other, in this process."""

    def __init__(self, job: Path, count: int, first: int = 0) -> None:
        self.job, self.count, self.first = job, count, first

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def running(self) -> bool:
        for index in range(self.first, self.first + self.count):
            Worker(Job.model_validate_json(self.job.read_text()), index).run()
        return False


@pytest.fixture
def searched(
    candidate: Path, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """A function that searches the toy task as the given settings say; gives the document of the search."""
    monkeypatch.setattr(run_search, "_Workers", Inline)
    monkeypatch.setattr(run_search, "_WAIT", 0.0)

    def search(folder: str = "one", **settings: Any) -> dict[str, Any]:
        config = toy_config(search={"trials": 6, "space": SPACE, "metrics": ["roc_auc"], **settings})
        place = str(tmp_path / "checkpoints" / folder)
        train("toy", config, str(candidate / "dataset"), place, str(tmp_path / "out"))
        document: dict[str, Any] = json.loads((tmp_path / "out" / "train.json").read_text())["search"]
        return document

    return search


# The trials


def test_an_inner_dataset_has_the_validation_rows_as_its_test_and_hides_them_from_training(
    candidate: Path, toy: Any, tmp_path: Path
) -> None:
    trial.inner_dataset(toy, candidate / "dataset", tmp_path / "inner")
    outer = {name: pd.read_parquet(candidate / "dataset" / f"{name}.parquet") for name in ("train", "valid", "test")}
    inner = {name: pd.read_parquet(tmp_path / "inner" / f"{name}.parquet") for name in ("train", "valid", "test")}
    assert list(inner["test"]["id"]) == list(outer["valid"]["id"])
    assert [*inner["train"]["id"], *inner["valid"]["id"]] == list(outer["train"]["id"])  # in time: the newest held back
    assert not set(inner["train"]["id"]) & set(inner["test"]["id"])
    assert len(inner["valid"]) == pytest.approx(0.15 * len(outer["train"]), abs=1)


def test_a_share_of_the_rows_is_always_the_same_and_part_of_a_larger_one(
    candidate: Path, toy: Any, tmp_path: Path
) -> None:
    ids = []
    for at, share in enumerate((0.2, 0.2, 0.5)):
        trial.inner_dataset(toy, candidate / "dataset", tmp_path / str(at), share)
        rows = [pd.read_parquet(tmp_path / str(at) / f"{name}.parquet")["id"] for name in ("train", "valid")]
        ids.append({*rows[0], *rows[1]})
    assert ids[0] == ids[1] < ids[2]
    assert 20 <= len(ids[0]) <= 60


def test_the_first_trial_is_the_recipe_and_the_best_is_trained_on_all_rows(
    searched: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    document = searched()
    assert document["trials"][0]["settings"] == {"model.rounds": 15}
    assert document["counts"]["tried"] == 6
    values = [one["values"]["roc_auc"] for one in document["trials"]]
    assert document["best"]["valid"]["roc_auc"] == max(values)
    assert document["default"]["valid"]["roc_auc"] == values[0]
    trained = json.loads((tmp_path / "out" / "train.json").read_text())
    chosen = document["best"]["settings"]["model.rounds"]
    assert trained["parameters"]["rounds"] == trained["parameters"]["searched.model.rounds"] == chosen
    assert document["best"]["command"] == f"--set model.rounds={chosen}"
    assert not (tmp_path / "checkpoints" / "one").exists()  # done: the next training starts afresh


def test_one_seed_gives_one_search(searched: Callable[..., dict[str, Any]]) -> None:
    tried = [[one["settings"] for one in searched(folder)["trials"]] for folder in ("one", "two")]
    assert tried[0] == tried[1]


def test_a_search_that_was_stopped_goes_on_with_its_trials(
    searched: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_search, "document", stopped)
    with pytest.raises(KeyboardInterrupt):
        searched(trials=4)
    monkeypatch.setattr(run_search, "document", found.document)
    before = study.counted
    seen: list[int] = []

    def counting(trials: Any) -> int:
        seen.append(before(trials))
        return seen[-1]

    monkeypatch.setattr(study, "counted", counting)
    assert searched(trials=4)["counts"]["tried"] == 4
    assert seen[0] == 4  # nothing was asked for again


def test_a_trial_that_fails_is_told_and_the_search_goes_on(
    toy: Any, searched: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = type(toy.recipes["tree"]).train

    def sometimes(self: Any, *given: Any) -> Any:
        if self.model.rounds < 15:
            raise ValueError("too few rounds")
        return own(self, *given)

    monkeypatch.setattr(type(toy.recipes["tree"]), "train", sometimes)
    document = searched(trials=12)
    assert document["counts"]["failed"] > 0
    assert document["counts"]["failed"] + document["counts"]["tried"] == 12
    assert all("too few rounds" in one["error"] for one in document["trials"] if one["state"] == "failed")
    assert document["best"]["settings"]["model.rounds"] >= 15


def test_a_search_in_which_every_trial_fails_stops_early_and_says_the_first_reason(
    toy: Any, searched: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def never(self: Any, *_: Any) -> Any:
        tried.append(self.model.rounds)
        raise ValueError("it cannot be")

    monkeypatch.setattr(type(toy.recipes["tree"]), "train", never)
    with pytest.raises(PlatformError, match="found nothing: 5 trials failed") as caught:
        searched(trials=50)
    assert len(tried) == 5
    assert "it cannot be" in str(caught.value.detail)


@pytest.mark.parametrize("pruner", ["auto", "none"])
def test_what_a_training_reports_ends_hopeless_trials(
    toy: Any, searched: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, pruner: str
) -> None:
    own, begun = type(toy.recipes["tree"]).train, []

    def reporting(self: Any, task: Any, dataset: Any, out: Any, checkpoints: Any, progress: Any) -> Any:
        begun.append(1)
        for epoch in range(6):
            progress(epoch, 6, loss=0.1 if len(begun) <= 6 else 5.0)
        return own(self, task, dataset, out, checkpoints, lambda *_, **__: None)

    monkeypatch.setattr(type(toy.recipes["tree"]), "train", reporting)
    monkeypatch.setattr(type(toy.recipes["tree"]), "reports", "loss")
    counts = searched(trials=9, pruner=pruner)["counts"]
    assert (counts["tried"], counts["ended early"]) == ((6, 3) if pruner == "auto" else (9, 0))


def test_limits_are_kept_and_named_when_nothing_keeps_them(searched: Callable[..., dict[str, Any]]) -> None:
    document = searched(at_least={"roc_auc": 0.5}, at_most={"bundle_mb": 5.0})
    assert all(one["within"] for one in document["trials"])
    assert set(document["trials"][0]["values"]) == {"roc_auc", "bundle_mb"}
    with pytest.raises(PlatformError, match="none of 6 trials keeps the limits: bundle_mb at most 1e-05"):
        searched("two", at_most={"bundle_mb": 1e-5})


def test_two_metrics_give_a_front(searched: Callable[..., dict[str, Any]]) -> None:
    document = searched(metrics=["roc_auc", "ece"], trials=10)
    points = {one["number"]: one["values"] for one in document["trials"]}
    assert document["front"]
    for number in document["front"]:
        mine = points[number]
        assert not any(o["roc_auc"] > mine["roc_auc"] and o["ece"] < mine["ece"] for o in points.values())
    assert document["best"]["valid"]["roc_auc"] == max(one["roc_auc"] for one in points.values())


def test_a_named_search_goes_on_with_more_trials_and_not_for_something_else(
    searched: Callable[..., dict[str, Any]],
) -> None:
    searched(name="mine", trials=3)
    document = searched(name="mine", trials=5)
    assert document["counts"]["tried"] == 5
    with pytest.raises(PlatformError, match="there is a search called 'toy/mine' already") as caught:
        searched(name="mine", trials=9, metrics=["average_precision"])
    assert "--name" in str(caught.value.fix)


def test_trials_of_two_parts_of_one_search_count_once(searched: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path}/trials.db"
    first = searched(storage=where, name="shared", workers=3, trials=7)
    again = searched("two", storage=where, name="shared", workers=2, trials=7)
    assert first["counts"]["tried"] == again["counts"]["tried"] == 7
    assert sorted(one["number"] for one in again["trials"]) == list(range(7))


def test_pods_share_the_trials_and_the_training_does_what_is_left(
    candidate: Path, toy: Any, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_search, "_Workers", Inline)
    monkeypatch.setattr(study, "SILENT", 0.1)
    monkeypatch.setenv("FAIRLEAD_SEARCH_PODS", "2")
    storage = f"sqlite:///{tmp_path}/trials.db"
    given = {"space": SPACE, "metrics": ["roc_auc"], "workers": 2, "storage": storage}
    dataset, asked = candidate / "dataset", toy_config(search={"trials": 6, **given})
    values = {"task": "toy", "train_config": json.loads(asked), "steps": str(tmp_path / "steps"), "nonce": ""}
    values |= {"checkpoints": "", "beside": "", "code_version": "1", "distributed_job": "", "hub": "", "ledger": ""}
    entry = tmp_path / "steps" / "build_dataset" / "key" / "at"
    shutil.copytree(dataset, entry / "out")
    (entry / "files.json").write_text("{}")
    text = json.dumps({"values": values, "artifacts": {"built": str(entry)}})
    few = load_config(toy, toy_config(search={"trials": 3, **given}))
    config, job = run_search.prepared(toy, few, dataset, tmp_path / "pod")
    run_search.made_study(toy, config, job, dataset)
    run_search.work_in_pod(job, config, 0)  # as a pod that ends early
    try_out({"values": text, "worker": 1})
    made = optuna.load_study(study_name=job.study, storage=storage)
    assert [one.user_attrs["worker"].rsplit(":", 1)[1] for one in made.trials] == ["0"] * 3 + ["1"] * 3
    lost = made.ask()  # one more than wanted, of a pod that is gone
    lost.set_user_attr(study.WORKER, "elsewhere:1:0")
    train("toy", asked, str(dataset), str(tmp_path / "checkpoints"), str(tmp_path / "out"))
    document = json.loads((tmp_path / "out" / "train.json").read_text())["search"]
    assert document["counts"] == {"tried": 6, "ended early": 0, "failed": 0, "lost and repeated": 0}


def test_of_two_pods_that_ask_for_the_last_trial_one_gives_it_back(tmp_path: Path) -> None:
    made = study.make_study(study.open_storage(str(tmp_path / "s.journal")), "s", ["maximize"], {}, "signed", 1.0)
    ask = made.ask
    beside = [1]

    def asked() -> Any:
        if beside and beside.pop():
            ask().set_user_attr(study.WORKER, "elsewhere:1:0")
        return ask()

    vars(made)["ask"] = asked
    assert study.ask(made, 1, "here:1:0", tmp_path / "lock", 1.0, look=False, others=2) is None
    assert study.counted(made.trials) == 1
    assert [one.state.name for one in made.trials] == ["RUNNING", "FAIL"]
    assert study.SPARE in made.trials[1].user_attrs


def test_time_that_is_up_starts_no_trial(searched: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(PlatformError, match="no trial was done in the time that was given"):
        searched(seconds=1e-9)


def test_a_storage_that_never_was_there_ends_the_search(searched: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(PlatformError, match="the storage of the search is away"):
        searched(storage="sqlite:////nowhere/at/all.db", patience=0.01)


# What it finds


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        ({"test": 0.02, "interval": [0.01, 0.03]}, "the search helps: +0.0200"),
        ({"test": 0.001, "interval": [0.0002, 0.002]}, "there is little to gain here: +0.0010"),
        ({"test": 0.01, "interval": [-0.01, 0.03]}, "which may be chance"),
        ({"test": -0.02, "interval": [-0.03, -0.01]}, "the search does harm"),
        ({"test": None, "interval": None}, "not defined on the test rows"),
    ],
)
def test_the_verdict_weighs_size_and_chance(gain: Any, said: str) -> None:
    assert said in verdict({"metric": "roc_auc", **gain}, 0.9)


class Point:
    """What is asked of a trial to be chosen."""

    def __init__(self, number: int, values: list[float]) -> None:
        self.number, self.values, self.constraints = number, values, {}


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30), st.floats(0, 0.5))
def test_what_is_chosen_is_on_the_front_and_within_the_tolerance(values: Any, tolerance: float) -> None:
    trials: Any = [Point(at, [*each]) for at, each in enumerate(values)]
    front = found._front(trials, [True, False])
    taken: Any = found.chosen(front, [True, False], tolerance)
    assert taken in front
    best = max(one.values[0] for one in trials)
    assert taken.values[0] >= best - tolerance
    assert not any(one.values[0] > taken.values[0] and one.values[1] < taken.values[1] for one in trials)
    if not tolerance:
        assert taken.values[0] == best


def test_test_rows_are_looked_at_once_and_the_card_shows_the_search(
    searched: Callable[..., dict[str, Any]], candidate: Path, tmp_path: Path, toy_config: Callable[..., str]
) -> None:
    document = searched(trials=10)
    assert "test" not in document["best"]
    shutil.copytree(candidate / "dataset", tmp_path / "dataset")
    lineage = json.dumps({"code_version": "c", "data_version": "d", "source": "built-in"})
    config = toy_config(search={"trials": 10, "space": SPACE, "metrics": ["roc_auc"]})
    evaluate("toy", config, str(candidate / "dataset"), str(tmp_path / "out"), lineage, str(tmp_path / "judged"))
    result = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    search = result["search"]
    assert search["best"]["test"]["roc_auc"] == result["metrics"]["roc_auc"]
    own = json.loads((candidate / "candidate" / "evaluation.json").read_text())["metrics"]["roc_auc"]
    assert search["default"]["test"]["roc_auc"] == pytest.approx(own)
    assert search["gain"]["test"] == pytest.approx(result["metrics"]["roc_auc"] - own)
    fields = json.loads((tmp_path / "judged" / "candidate.json").read_text())
    page = render_card(tmp_path / "judged", fields, "Will the parcel be late?")
    assert search["verdict"][1:] in page
    assert "<code>model.rounds</code>" in page
    assert "search history" in page


def test_plots_of_one_value_and_of_none_are_drawn(tmp_path: Path) -> None:
    one = {"number": 0, "values": {"mae": 1.0, "latency_ms": 2.0}, "within": True, "settings": {}}
    search = {
        "metrics": ["mae", "latency_ms"],
        "higher": [False, False],
        "trials": [one, {**one, "number": 1, "within": False}, {**one, "number": 2, "values": {}}],
        "importance": {},
        "front": [0],
        "default": {"valid": {}},
        "best": {"number": 0},
    }
    search_plots.draw(tmp_path, search)
    assert {file.name for file in tmp_path.iterdir()} == {"search_history.png", "search_front.png"}


def test_two_searches_of_one_name_at_a_time_share_their_trials_and_nothing_else(
    searched: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner: list[dict[str, Any]] = []

    class Between(Inline):
        """Another search begins, works and ends before this one has tried anything."""

        def running(self) -> bool:
            if not inner:
                inner.append({})
                inner.append(searched("other", name="both", trials=4))
            return super().running()

    monkeypatch.setattr(run_search, "_Workers", Between)
    document = searched("one", name="both", trials=6)
    assert inner[1]["counts"]["tried"] == 4
    assert document["counts"]["tried"] == 6
    assert document["trials"][:4] == inner[1]["trials"]


def test_trials_are_counted_only_where_there_may_be_enough_and_one_too_many_is_given_back(tmp_path: Path) -> None:
    made = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="s")
    counts: list[int] = []
    made.get_trials = lambda *a, **k: (counts.append(1), optuna.Study.get_trials(made, *a, **k))[1]
    last = -1
    for _ in range(3):
        trial = study.ask(made, 5, "here:1:0", tmp_path / "lock", 1.0, look=False, last=last)
        assert trial is not None
        study.complete(made, trial, [0.5])
        study.complete(made, trial, [0.7])  # told again, because the answer was lost
        last = trial.number
    assert len(counts) == 1
    for _ in range(3):  # others have asked meanwhile
        made.ask().set_user_attr(study.WORKER, "elsewhere:1:0")
    assert study.ask(made, 5, "here:1:0", tmp_path / "lock", 1.0, look=False, last=last) is None
    trials = optuna.Study.get_trials(made)
    assert [one.value for one in trials[:3]] == [0.5] * 3
    assert study.SPARE in trials[6].user_attrs
    assert study.counted(trials[:6]) == 6
