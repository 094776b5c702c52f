"""Registration: the bundle with its card is published whatever the gate said; only what passed is promoted."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.audit import AuditLog
from contracts.bundle import read_bundle
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.cost import VARIABLE, Prices, priced, told
from pipelines.data import left_out
from pipelines.formatting import number
from pipelines.io.files import write_json
from pipelines.io.record import PLACE, RUN, Record
from pipelines.pages.card import _html
from pipelines.resources import Resources
from pipelines.run import ASKED
from pipelines.run import Run as Asked
from pipelines.steps import register as step


class FakeRegistry:
    """Notes what is asked of the registry."""

    calls: list[Any]

    def __init__(self, endpoints: Any) -> None:
        pass

    def publish(self, bundle: Any, run_id: str) -> Any:
        self.calls.append(("publish", bundle.digest[:8], run_id))
        return SimpleNamespace(name="toy", version="4", path=str(bundle.path))

    def set_alias(self, ref: str, alias: str) -> None:
        self.calls.append(("alias", ref, alias))

    def promote(self, ref: str) -> None:
        self.calls.append(("promote", ref))


@pytest.fixture
def publish(
    candidate: Path, toy_config: Callable[..., str], endpoints: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Any], list[Any], dict[str, Any]]]:
    """Register with a gate decision; gives the result, the registry's calls and what was tracked."""

    def run(
        passed: bool = True, promote: bool = True, gone: Any = None, search: Any = None, **compared: Any
    ) -> tuple[dict[str, Any], list[Any], dict[str, Any]]:
        tracked: dict[str, Any] = {}

        def track(
            where: Any, experiment: str, name: str, params: Any, metrics: Any, curves: Any, folder: Path, tags: Any
        ) -> Any:
            files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
            tracked.update(params=params, metrics=metrics, curves=curves, files=files, tags=tags, name=name)
            return "run-9", "#/experiments/1/runs/run-9"

        source = candidate / "candidate"
        if gone is not None or search is not None:
            source = Path(shutil.copytree(source, tmp_path / "candidate"))
            evaluation = json.loads((source / "evaluation.json").read_text())
            (source / "evaluation.json").write_text(json.dumps(evaluation | {"left_out": gone, "search": search}))
        FakeRegistry.calls = []
        monkeypatch.setattr(step, "Registry", FakeRegistry)
        monkeypatch.setattr(step, "track_run", track)
        monkeypatch.setattr(step, "track_nested", lambda where, *told: tracked.update(nested=told))
        check = {"metric": "roc_auc", "rule": "at least", "value": 0.87, "limit": 0.6, "passed": passed} | compared
        reasons = [] if passed else ["roc_auc is 0.87, must be at least 0.99"]
        decision = {"passed": passed, "checks": [check], "champion": None, "reasons": reasons}
        (tmp_path / "gate.json").write_text(json.dumps(decision))
        arguments = (str(source), str(tmp_path / "gate.json"), endpoints, "toy-1", promote)
        config = toy_config(rollout={"step_samples": 7}, loop={"runs_per_week": 5})
        result = step.register("toy", config, *arguments, str(tmp_path / "out.json"))
        assert json.loads((tmp_path / "out.json").read_text()) == result
        return result, FakeRegistry.calls, tracked

    return run


def test_what_passed_becomes_challenger_and_champion(publish: Any, endpoints: str) -> None:
    result, calls, _ = publish()
    assert [c[0] for c in calls] == ["publish", "alias", "promote"]
    assert calls[1:] == [("alias", "toy:4", "challenger"), ("promote", "toy:4")]
    assert (result["gate_passed"], result["champion"], result["version"]) == (True, True, "4")
    noted = AuditLog.of(Endpoints.model_validate_json(endpoints)).read()[-1]
    assert (noted.actor, noted.action, noted.subject) == ("run:toy-1", "promote", "toy:4")


@pytest.mark.parametrize(("passed", "promote"), [(False, True), (True, False), (False, False)])
def test_nothing_else_becomes_champion_but_all_is_published(publish: Any, passed: bool, promote: bool) -> None:
    result, calls, _ = publish(passed, promote)
    assert [c[0] for c in calls] == ["publish", "alias"]
    assert (result["gate_passed"], result["champion"]) == (passed, False)
    assert read_bundle(result["path"]).document.gate.passed == passed


def test_the_last_trials_of_a_search_are_tracked_below_the_run(publish: Any) -> None:
    trials = [
        {"number": n, "settings": {"model.c": n}, "values": {"recall:a": 0.5}, "state": "tried", "within": True}
        for n in range(203)
    ]
    said = {"verdict": "there is little to gain here", "counts": {"tried": 203}, "sampler": "tpe", "seconds": 9.0}
    one = {"valid": {"recall:a": 0.5}, "settings": {"model.c": 3}}
    found = {"workers": 1, "metrics": ["recall:a"], "default": one, "best": one, "space": {}, "front": [3]}
    result, _, tracked = publish(search={**said, **found, "trials": trials})
    experiment, parent, children = tracked["nested"]
    assert (experiment, parent, tracked["tags"]["search"]) == ("toy", "run-9", said["verdict"])
    assert [name for name, *_ in children] == [f"trial {n}" for n in range(3, 203)]
    assert children[0][1:] == ({"model.c": 3}, {"valid.recall.a": 0.5}, "tried")
    assert "There is little to gain here" in (Path(result["path"]) / "card.html").read_text()


def test_the_bundle_is_whole_and_knows_its_run(publish: Any) -> None:
    result, _, _ = publish()
    bundle = read_bundle(result["path"])
    assert bundle.digest == result["digest"]
    assert bundle.document.lineage.run == "toy-1"
    assert (bundle.document.rollout.step_samples, bundle.document.loop.runs_per_week) == (7, 5)
    assert {"card.html", "data.html", "golden.jsonl", "baseline.json", "evaluation.json", "model/model.onnx"} <= set(
        bundle.document.files
    )
    assert {"candidate.json", "answers.npy"}.isdisjoint(bundle.document.files)


PRICES = Prices(currency="CHF", core_hour=0.04, gib_hour=0.01, gpu_hour=2.0)
TOOK = {"seconds": 3600.0, "cpu_seconds": 1800.0, "memory_peak": 2**31}


def card_of(result: dict[str, Any]) -> str:
    return (Path(result["path"]) / "card.html").read_text()


def test_the_card_says_what_the_steps_took_and_what_that_cost_then(publish: Any, endpoints: str) -> None:
    steps = {"ingest": {"status": "cached"}, "train": {"status": "finished", **TOOK}, "register": {"status": "running"}}
    asked = Asked(run_id="toy-1", task="toy").document()
    file = Endpoints.model_validate_json(endpoints).path("runs") / "toy-1" / "run.json"
    write_json(file, {"run_id": "toy-1", ASKED: asked, "steps": steps})
    with priced(PRICES.model_dump()):
        result, _, tracked = publish()
    card = card_of(result)
    assert "<td>train</td>" in card
    assert "From the cache, so of an earlier run: ingest." in card
    assert "0.04 CHF for a core hour" in card
    assert datetime.now(UTC).date().isoformat() in card
    expected = {"core_hours": 0.5, "gib_hours": 2.0, "gpu_hours": 0.0, "cost_CHF": 0.5 * 0.04 + 2 * 0.01}
    assert {name: tracked["metrics"][name] for name in expected} == pytest.approx(expected)
    assert VARIABLE not in os.environ
    result, _, tracked = publish()  # the hours are facts, whoever pays
    assert "<td>train</td>" in card_of(result)
    assert "At the prices" not in card_of(result)
    assert "cost_CHF" not in tracked["metrics"]


def test_on_a_cluster_the_card_says_what_pods_asked_for(
    publish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(str(tmp_path / "records"), "kfp-1")
    record.write_step("train", "finished", started="", seconds=3600.0, cpu=1800.0)
    record.close()
    for name, value in {
        PLACE: record.root,
        RUN: "kfp-1",
        VARIABLE: told(PRICES, {"train": Resources(cpu="2")}),
    }.items():
        monkeypatch.setenv(name, value)
    result, _, tracked = publish()
    assert "What its run took" in card_of(result)
    assert tracked["metrics"]["core_hours"] == 2.0


def test_a_card_without_a_record_of_its_run_says_nothing_of_cost(publish: Any) -> None:
    result, _, tracked = publish()
    assert "What its run took" not in card_of(result)
    assert "core_hours" not in tracked["metrics"]


@pytest.mark.parametrize(
    ("rows", "interval", "shown"),
    [
        (812, [-0.02, 0.12], "Difference 0.05, 95 % interval -0.02 to 0.12; 812 rows compared, 3 left out"),
        (None, None, "Difference 0.05; no rows compared, 3 left out"),
    ],
)
def test_the_comparison_with_the_champion_is_in_the_card_and_tracked(
    publish: Any, rows: int | None, interval: Any, shown: str
) -> None:
    result, _, tracked = publish(
        against="toy:3", difference=0.05, interval=interval, rows_compared=rows, rows_left_out=3
    )
    card = (Path(result["path"]) / "card.html").read_text()
    assert shown in card
    assert f"champion toy:3, {'same rows' if rows else 'as recorded'}" in card
    found = {name: value for name, value in tracked["metrics"].items() if name.startswith("champion.")}
    ends = {"champion.difference.roc_auc.low": -0.02, "champion.difference.roc_auc.high": 0.12} if interval else {}
    assert found == {"champion.difference.roc_auc": 0.05} | ends


def test_rows_left_out_are_in_the_card_the_result_and_mlflow(publish: Any) -> None:
    _, _, tracked = publish()
    assert (tracked["metrics"]["rows_left_out"], "left_out.json" in tracked["files"]) == (0, True)
    group = {"step": "validate", "reason": "note: byte 0xe9 is not UTF-8", "rows": 4, "where": "/q.csv"}
    found = left_out.document(200, [group], left_out.losers("validate", {"a": 100, "b": 100}, {"a": 20}))
    result, _, tracked = publish(gone=found)
    card = (Path(result["path"]) / "card.html").read_text()
    for line in left_out.in_words(found):
        assert f"<p>{line}</p>" in card
    assert result["left_out"] == found
    assert (tracked["metrics"]["rows_read"], tracked["metrics"]["rows_left_out"]) == (200, 4)
    assert json.loads(tracked["tags"]["mlflow.loggedArtifacts"]) == [{"path": "left_out.json", "type": "table"}]


def test_the_card_needs_no_other_file_and_shows_what_matters(publish: Any) -> None:
    result, _, _ = publish(passed=False)
    card = (Path(result["path"]) / "card.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", card)
    assert card.count("data:image/png;base64,") == 7
    assert "<code>data.html</code> of the bundle" in card
    for text in (
        "Will the parcel be late?",
        "refused",
        "roc_auc is 0.87, must be at least 0.99",
        "Average precision",
        "95 % interval",
        "pallet",
        "distance",
        "curl -s http://localhost:3000/predict",
        "built-in",
    ):
        assert text in card, text


def test_the_run_is_tracked_with_curves_plots_and_slices(publish: Any) -> None:
    _, _, tracked = publish()
    assert tracked["name"] == "toy-1"
    assert tracked["params"]["rounds"] == 15
    assert tracked["metrics"]["slice.kind.box.average_precision"] > 0
    assert len(tracked["curves"]) == 15
    assert {"card.html", "data.html", "plots/calibration.png"} <= set(tracked["files"])
    assert tracked["tags"]["gate"] == "passed"


def test_a_candidate_that_is_gone_is_an_error_with_a_cure(toy: Any, endpoints: str, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="missing or damaged"):
        step.register("toy", "{}", str(tmp_path), str(tmp_path / "gate.json"), endpoints, "r", True, "out")


def test_readme_text_is_escaped_in_the_card() -> None:
    html = _html("Use **this** for <b>x</b>:\n\n- `one`\n- two\n\n| a | b |")
    assert html == (
        "<p>Use <strong>this</strong> for &lt;b&gt;x&lt;/b&gt;:</p>\n<ul><li><code>one</code></li><li>two</li></ul>"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (1234567, "1,234,567"), (0.123456, "0.1235"), (12345.678, "12,345.7"), (True, "True")],
)
def test_numbers_in_the_card_are_for_people(value: Any, shown: str) -> None:
    assert number(value) == shown
