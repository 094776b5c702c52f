"""Evaluation measures the exported model and makes a candidate that a bundle can be written from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.bundle import BundleDocument, Golden, write_bundle
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.problems.classification import ClassificationOutput
from pipelines.evaluation.scoring import columns_of, provisional
from pipelines.pages.card import render_card
from pipelines.steps import evaluate as step
from pipelines.steps.gate import gate

LINEAGE = json.dumps({"code_version": "code", "data_version": "0" * 16, "source": "built-in"})
UNDECIDED = {"passed": False, "checks": [], "champion": None, "reasons": []}


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "candidate" / "evaluation.json").read_text())


def test_every_metric_has_an_interval_around_it(candidate: Path) -> None:
    found = result(candidate)
    assert found["rows"] == 120
    for name in ("average_precision", "roc_auc", "recall", "cost", "ece"):
        low, high = found["intervals"][name]
        assert low < high
    low, high = found["intervals"]["roc_auc"]
    assert 0.7 < low < found["metrics"]["roc_auc"] < high < 1


def test_slices_have_metrics_rows_and_intervals(candidate: Path) -> None:
    found = result(candidate)
    assert set(found["slices"]) == {"kind:box", "kind:letter", "kind:pallet"}
    assert sum(values["rows"] for values in found["slices"].values()) == found["rows"]
    low, high = found["slice_intervals"]["kind:box"]
    assert low <= found["slices"]["kind:box"]["average_precision"] <= high


@pytest.fixture(scope="module")
def evaluated(
    built: Path, knowing_toy: Callable[[], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("hidden")
    dataset = folder / "dataset"
    shutil.copytree(built / "dataset", dataset)
    test = pd.read_parquet(dataset / "test.parquet").assign(distance=np.nan, hidden_rank=0.5)
    view = {"name": "road", "join_keys": [{"name": "parcel", "dtype": "string"}], "ttl_seconds": 60}
    view["features"] = [{"name": "distance", "dtype": "float64"}]
    (dataset / "features.json").write_text(json.dumps({"project": "toy", "views": [view]}))
    for at, case in enumerate(("unknown entity", "stale")):
        test[:50].assign(hidden_case=case).to_parquet(dataset / f"test_hidden-{at}.parquet")
    with knowing_toy() as config:
        step.evaluate("toy", config, str(dataset), str(built / "model"), LINEAGE, str(folder / "candidate"))
    return folder


@pytest.fixture
def hidden(toy: Any, evaluated: Path) -> Path:
    """The candidate of a data set whose test rows also come without the feature `distance`; only to be read."""
    return evaluated


def test_rows_without_features_are_slices_of_their_own(hidden: Path, candidate: Path) -> None:
    found = result(hidden)
    whole = result(candidate)
    assert set(found["slices"]) - set(whole["slices"]) == {"features:unknown entity", "features:stale"}
    values = found["slices"]["features:unknown entity"]
    assert values["rows"] == 50
    assert values["roc_auc"] < 0.8 < whole["metrics"]["roc_auc"]  # the distance is what tells most
    low, high = found["slice_intervals"]["features:stale"]
    assert low <= values["average_precision"] <= high
    assert found["metrics"] == whole["metrics"]
    document = json.loads((hidden / "candidate" / "candidate.json").read_text())
    assert document["slices"]["features:unknown entity"] == values


@pytest.mark.parametrize(("limit", "passed"), [(0.99, False), (0.01, True)])
def test_the_gate_holds_the_quality_without_features(
    hidden: Path, toy_config: Callable[..., str], endpoints: str, tmp_path: Path, limit: float, passed: bool
) -> None:
    rule = {"metric": "features:unknown entity:roc_auc", "minimum": limit}
    config = toy_config(gate={"thresholds": [rule]})
    dataset, candidate = (str(hidden / name) for name in ("dataset", "candidate"))
    assert gate("toy", config, dataset, candidate, endpoints, str(tmp_path / "decision.json")) == passed


def test_the_card_says_what_is_served_without_features(hidden: Path) -> None:
    fields = json.loads((hidden / "candidate" / "candidate.json").read_text())
    fields |= {"gate": UNDECIDED, "lineage": {**fields["lineage"], "created": "2026-01-01T00:00:00Z"}}
    html = render_card(hidden / "candidate", fields, "toy")
    assert "<strong>features: stale</strong>. All features are older than their time to live" in html
    assert "No parcel is known: the features of road are missing" in html
    assert "flagged not_found:road" in html


def test_golden_examples_are_what_the_model_answers(candidate: Path) -> None:
    folder = candidate / "candidate"
    fields = json.loads((folder / "candidate.json").read_text())
    engine = load_engine(provisional(folder, fields))
    goldens = [Golden.model_validate_json(line) for line in (folder / "golden.jsonl").read_text().splitlines()]
    assert len(goldens) == 20
    expected = np.array([g.expected for g in goldens])
    assert np.ptp(expected[:, 1]) > 0.3  # over the range of scores
    bundle = provisional(folder, fields)
    columns = columns_of(pd.DataFrame([g.inputs for g in goldens]), bundle.document.signature.inputs)
    assert engine.predict(columns) == pytest.approx(expected, abs=1e-9)
    assert all(isinstance(g.inputs["stops"], int) for g in goldens)


def test_the_candidate_becomes_a_bundle(candidate: Path, tmp_path: Path) -> None:
    fields = json.loads((candidate / "candidate" / "candidate.json").read_text())
    fields |= {"gate": UNDECIDED, "lineage": {**fields["lineage"], "created": "2026-01-01T00:00:00Z"}}
    bundle = write_bundle(candidate / "candidate", tmp_path, fields)
    output = bundle.document.signature.output
    assert isinstance(output, ClassificationOutput)
    assert output.classes == ["no", "yes"]
    assert bundle.document.lineage.seed == 7
    BundleDocument.model_validate(bundle.document.model_dump())


def test_baseline_describes_every_input_and_the_scores(candidate: Path) -> None:
    found = json.loads((candidate / "candidate" / "baseline.json").read_text())
    assert {name: kind["kind"] for name, kind in found["inputs"].items()} == {
        "distance": "number",
        "stops": "number",
        "kind": "category",
    }
    assert sum(found["inputs"]["distance"]["shares"]) == pytest.approx(1)
    assert sum(found["inputs"]["kind"]["shares"].values()) == pytest.approx(1)
    assert sum(found["scores"]["yes"]["shares"]) == pytest.approx(1)
    assert found["rows"] > 0
    assert {name: kind["kind"] for name, kind in found["answer"].items()} == {"answer": "number", "label": "category"}


def test_plots_are_drawn(candidate: Path) -> None:
    plots = candidate / "candidate" / "plots"
    drawn = {"precision_recall", "calibration", "confusion_matrix", "scores", "learning_curve"}
    names = drawn | {"importance", "dependence"}
    assert {p.stem for p in plots.iterdir()} == names
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in plots.iterdir())


def test_the_same_model_gives_the_same_artifacts(
    candidate: Path, toy_config: Callable[..., str], tmp_path: Path
) -> None:
    again = tmp_path / "candidate"
    step.evaluate("toy", toy_config(), str(candidate / "dataset"), str(candidate / "model"), LINEAGE, str(again))
    for file in sorted(p for p in again.rglob("*") if p.is_file()):
        before = candidate / "candidate" / file.relative_to(again)
        if file.name == "evaluation.json":
            first, second = json.loads(before.read_text()), json.loads(file.read_text())
            assert {k: v for k, v in first.items() if k != "latency_ms"} == {
                k: v for k, v in second.items() if k != "latency_ms"
            }
        elif file.name not in ("candidate.json", "data.html"):  # have the lineage
            assert file.read_bytes() == before.read_bytes(), file.name


def test_several_classes_have_the_metrics_of_two_and_plots_of_their_own(
    candidate: Path,
    toy: Any,
    toy_config: Callable[..., str],
    endpoints: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Three:
        def predict(self, columns: Any) -> Any:
            rows = len(columns["distance"])
            return np.tile([0.2, 0.3, 0.5], (rows, 1))

        def explain(self, columns: Any, top: int) -> Any:
            raise PlatformError("no reasons", code="not_explainable")

    monkeypatch.setattr(step, "load_engine", lambda *_, **__: Three())
    model = tmp_path / "model"
    shutil.copytree(candidate / "model", model)
    trained = json.loads((model / "train.json").read_text())
    trained |= {"output": {"problem": "classification", "classes": ["maybe", "no", "yes"]}, "decision": None}
    (model / "train.json").write_text(json.dumps(trained))
    config = toy_config()  # whose gate is that of a task of two classes
    out = tmp_path / "candidate"
    step.evaluate("toy", config, str(candidate / "dataset"), str(model), LINEAGE, str(out))
    found = json.loads((out / "evaluation.json").read_text())
    assert found["metrics"]["accuracy"] == pytest.approx(40 / 120)
    assert found["metrics"]["f1:yes"] == pytest.approx(0.5)
    assert set(result(candidate)["metrics"]) == set(found["metrics"]) - {"f1:maybe"}
    assert {"average_precision", "macro_f1", "roc_auc"} <= set(found["intervals"])
    assert set(found["slice_intervals"]) == {"kind:box", "kind:letter", "kind:pallet"}
    decision = tmp_path / "decision.json"
    assert not gate("toy", config, str(candidate / "dataset"), str(out), endpoints, str(decision))
    values = {check["metric"]: check["value"] for check in json.loads(decision.read_text())["checks"]}
    assert values["roc_auc"] == 0.5  # all rows have one answer
    assert values["kind:box:recall"] == pytest.approx(0.5)
    assert {p.stem for p in (out / "plots").iterdir()} == {
        "calibration",
        "class_f1",
        "confusion_matrix",
        "learning_curve",
    }


def test_a_model_that_does_not_answer_probabilities_is_refused(
    candidate: Path, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        def predict(self, columns: Any) -> Any:
            return np.full((len(columns["distance"]), 2), 0.9)

    monkeypatch.setattr(step, "load_engine", lambda *_, **__: Wrong())
    with pytest.raises(PlatformError, match="does not answer as a classification does"):
        step.evaluate("toy", toy_config(), str(candidate / "dataset"), str(candidate / "model"), LINEAGE, str(tmp_path))


def test_missing_values_become_the_inputs_default_as_at_serving(toy: Any) -> None:
    frame = pd.DataFrame({"distance": [np.nan, 1.0], "stops": [np.nan, 2], "kind": [None, "box"]})
    columns = columns_of(frame, toy.inputs(None))
    assert np.isnan(columns["distance"][0])
    assert columns["stops"].tolist() == [0, 2]
    assert columns["kind"].tolist() == ["", "box"]
