"""A private model from data to gate: what it costs is kept and judged, and nothing of its bundle shows a row."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.privacy_ledger import PrivacyLedger
from pipelines.checks.base import Candidate
from pipelines.checks.privacy import CHECK
from pipelines.evaluation.made_up import made_up
from pipelines.evaluation.membership import attack, bound
from pipelines.io.files import read_json
from pipelines.run import Run
from pipelines.steps import build_dataset, evaluate, ingest, train, validate
from pipelines.task import GateConfig, PrivacyBudget, dump_config
from pipelines.tasks import get_task, recipe_config
from pipelines.values import values_of

CANARY = 7777.125  # an income that one applicant has
SETTINGS = {"simulator.applications": 600, "model.training.epochs": 2, "privacy.epsilon": 2.0, "privacy.delta": 1e-4}


def setup(settings: dict[str, Any]) -> str:
    return dump_config(recipe_config(get_task("credit"), "network", {**SETTINGS, **settings}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 600 applications, one with the canary, a private model of it and its candidate."""
    folder = tmp_path_factory.mktemp("private")
    task, source = get_task("credit"), folder / "applications.csv"
    frame = next(iter(task.default_source(recipe_config(task, "network", SETTINGS)))).to_pandas()
    frame["income"] = np.where(np.arange(len(frame)) % 50 == 0, CANARY, frame["income"])
    frame.dropna(axis=1, how="all").to_csv(source, index=False)
    config = setup({})
    ingest.ingest("credit", config, str(source), str(folder / "data"), str(folder / "manifest.json"))
    validate.validate("credit", config, str(folder / "manifest.json"), str(folder / "clean"))
    build_dataset.build_dataset("credit", config, str(folder / "clean"), "", str(folder / "dataset"))
    learn(folder, config, "model")
    lineage = json.dumps({"code_version": "c", "data_version": "d", "source": "s"})
    given = (str(folder / "dataset"), str(folder / "model"), lineage, str(folder / "candidate"))
    evaluate.evaluate("credit", config, *given)
    return folder


def where(folder: Path) -> Endpoints:
    return Endpoints(home=str(folder / "home")).resolved()


def learn(folder: Path, config: str, out: str, ledger: str | None = None) -> None:
    told = where(folder).model_dump_json() if ledger is None else ledger
    places = (str(folder / "dataset"), str(folder / f"{out}-checkpoints"), str(folder / out))
    train.train("credit", config, *places, ledger=told)


def judged(folder: Path, **budget: Any) -> Any:
    return CHECK.find(
        Candidate(
            task="credit",
            folder=folder / "candidate",
            dataset=folder / "dataset",
            evaluation=read_json(folder / "candidate" / "evaluation.json"),
            settings=GateConfig(privacy=PrivacyBudget(delta=1e-4, **budget)),
            endpoints=where(folder),
        )
    )


def test_a_training_is_charged_to_its_version_of_the_data(made: Path) -> None:
    version = read_json(made / "manifest.json")["version"]
    told = read_json(made / "model" / "train.json")["privacy"]
    (charge,) = PrivacyLedger(where(made)).charges(version)
    assert (charge.task, charge.recipe, charge.id) == ("credit", "network", told["charge"])
    assert charge.epsilon == told["epsilon"] <= 2.0
    assert [one.as_dict() for one in charge.releases] == told["releases"]
    assert PrivacyLedger(where(made)).charges("another") == []


def test_the_gate_adds_up_what_the_ledger_knows(made: Path) -> None:
    (check,) = judged(made, epsilon=8.0).checks
    assert check.passed
    assert check.value == pytest.approx(2.0, rel=0.1)
    ledger, version = PrivacyLedger(where(made)), read_json(made / "manifest.json")["version"]
    (first,) = ledger.charges(version)
    second = ledger.charge(replace(first, recipe="other"))
    try:
        (both,) = judged(made, epsilon=2.5).checks
        assert not both.passed
        assert check.value < both.value < 2 * check.value
    finally:
        ledger.give_back(second)
    assert judged(made, epsilon=None).checks == ()


def test_the_gate_refuses_a_model_whose_training_no_ledger_knows(made: Path, tmp_path: Path) -> None:
    evaluation = read_json(made / "candidate" / "evaluation.json")
    about: dict[str, Any] = {"task": "credit", "folder": made, "dataset": made, "endpoints": where(tmp_path)}
    found = CHECK.find(Candidate(evaluation=evaluation, settings=GateConfig(), **about))
    assert [check.passed for check in found.checks] == [False]
    assert "ledger does not know" in found.notes[0]
    plain = {**evaluation, "privacy": None}
    asked = GateConfig(privacy=PrivacyBudget(required=True))
    assert not CHECK.find(Candidate(evaluation=plain, settings=asked, **about)).checks[0].passed
    assert CHECK.find(Candidate(evaluation=plain, settings=GateConfig(), **about)).checks == ()


def test_a_training_beyond_the_budget_is_refused_before_it_begins_and_not_charged(made: Path) -> None:
    before = PrivacyLedger(where(made)).charges()
    with pytest.raises(PlatformError) as err:
        learn(made, setup({"gate.privacy.epsilon": 2.5}), "second")
    assert err.value.code == "privacy_budget"
    assert "the budget is 2.5" in err.value.detail
    assert not (made / "second" / "train.json").exists()
    assert PrivacyLedger(where(made)).charges() == before


def test_a_training_without_a_ledger_or_in_several_pods_is_refused(made: Path) -> None:
    with pytest.raises(PlatformError) as err:
        learn(made, setup({}), "third", ledger="")
    assert err.value.code == "no_ledger"
    with pytest.raises(PlatformError, match="by one process"):
        train.train("credit", setup({}), str(made / "dataset"), "c", "o", distributed_job="{}")


def test_strengths_of_a_mitigation_are_not_tried_over_several_pods(made: Path) -> None:
    asked = setup({"privacy.epsilon": None, "mitigation.method": "adversarial", "mitigation.column": "sex"})
    with pytest.raises(PlatformError, match="a model for each strength in one pod"):
        train.train("credit", asked, str(made / "dataset"), "c", "o", distributed_job="{}")


def test_a_training_outside_a_run_which_nobody_pays_for_is_refused(made: Path, tmp_path: Path) -> None:
    task = get_task("credit")
    config = recipe_config(task, "network", SETTINGS)
    with pytest.raises(PlatformError, match="needs a ledger") as err:
        config.train(task, made / "dataset", tmp_path / "model", tmp_path / "checkpoints", lambda *_, **__: None)
    assert "plan without privacy.epsilon" in err.value.fix


def test_features_of_other_rows_cannot_be_learned_from_privately(tmp_path: Path) -> None:
    task = get_task("fraud")
    private = {"privacy.epsilon": 1.0, "cost.rule": "expected", "cost.false_negative": 60.0}
    config = recipe_config(task, "network", private)
    inputs = [item.model_dump() for item in task.inputs(config)]
    (tmp_path / "dataset.json").write_text(json.dumps({"inputs": inputs, "data_version": "v"}))
    with pytest.raises(PlatformError, match="made of other rows") as err:
        train.train("fraud", dump_config(config), str(tmp_path), "c", "o", ledger="{}")
    assert err.value.code == "not_private"


def test_no_byte_of_the_candidate_has_a_value_of_a_row_and_nothing_describes_rows(made: Path) -> None:
    names = {file.relative_to(made / "candidate").as_posix() for file in (made / "candidate").rglob("*")}
    assert not names & {"seen.bin", "baseline.json", "data.html"}
    assert not [name for name in names if name.endswith(".png")]
    told = [file for file in (made / "candidate").rglob("*") if file.is_file() and file.suffix != ".npy"]
    assert len(told) >= 4
    assert not [file.name for file in told if str(CANARY).encode() in file.read_bytes()]
    golden = [json.loads(line)["inputs"] for line in (made / "candidate" / "golden.jsonl").read_text().splitlines()]
    incomes = {row["income"] for row in golden}
    assert len(golden) > 5
    assert not incomes & set(np.concatenate([read(made, part) for part in ("train", "valid", "test")]))


def read(folder: Path, part: str) -> Any:
    import pandas as pd

    return pd.read_parquet(folder / "dataset" / f"{part}.parquet")["income"].to_numpy()


def test_the_card_says_what_was_promised_and_what_an_attack_found(made: Path) -> None:
    from pipelines.pages.card import render_card

    card = render_card(made / "candidate", read_json(made / "candidate" / "candidate.json"), "Credit")
    private = read_json(made / "candidate" / "evaluation.json")["privacy"]
    for words in ("Differentially private", private["accountant"], "Poisson", "Membership inference", "no attack can"):
        assert words in card
    assert "<h2>Plots" not in card


def test_only_private_runs_know_a_ledger_and_a_limit_of_the_budget_trains_anew_only_there() -> None:
    def told(**settings: Any) -> dict[str, Any]:
        config = recipe_config(get_task("credit"), "network", settings)
        return values_of(Run(run_id="r", task="credit", config=json.loads(dump_config(config)), endpoints=Endpoints()))

    plain, private = told(), told(**{"privacy.epsilon": 1.0})
    assert plain["ledger"] == ""
    assert private["ledger"]["tracking"]
    assert plain["data_config"] == private["data_config"]
    assert told(**{"gate.privacy.epsilon": 3.0})["train_config"] == plain["train_config"]


def test_a_ledger_that_was_never_written_is_empty(tmp_path: Path) -> None:
    assert PrivacyLedger(where(tmp_path)).charges() == []
    assert not (tmp_path / "home").exists()


def test_the_attack_finds_who_is_known_by_heart_and_nobody_in_chance() -> None:
    rng = np.random.default_rng(1)
    others = rng.exponential(1.0, 1000)
    known, chance = attack(rng.exponential(0.1, 1000), others, 1), attack(rng.exponential(1.0, 1000), others, 1)
    assert known["auc"] > 0.85
    assert known["found"] > 0.05
    assert chance["interval"][0] < 0.5 < chance["interval"][1]


def test_the_bound_on_attacks_grows_with_epsilon_and_is_the_guess_at_zero() -> None:
    found = [bound({"epsilon": epsilon, "delta": 1e-5}) for epsilon in (0.0, 0.5, 1.0, 3.0, 20.0)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(0.01, abs=1e-4)
    assert found[-1] <= 1


def test_made_up_rows_follow_what_is_declared() -> None:
    inputs = get_task("credit").inputs(recipe_config(get_task("credit"), "network"))
    columns = made_up(inputs, 1)
    for item in inputs:
        if item.categories:
            assert set(columns[item.name]) <= set(item.categories)
        elif item.minimum is not None:
            assert min(columns[item.name]) >= item.minimum


def test_rows_for_the_attack_are_drawn_from_all_and_each_once(tmp_path: Path) -> None:
    import pandas as pd

    from pipelines.evaluation import membership

    pd.DataFrame({"at": range(5000)}).to_parquet(tmp_path / "train.parquet")
    found = membership._some_rows(tmp_path / "train.parquet", np.random.default_rng(1))["at"]
    assert len(found) == membership.ROWS
    assert found.is_monotonic_increasing
    assert found.is_unique
    assert 2300 < found.mean() < 2700
