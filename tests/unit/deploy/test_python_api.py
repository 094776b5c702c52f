"""`import fairlead`: the same answers as the command line, for programs and notebooks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fairlead
from contracts.audit import AuditLog
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.terminal.advice import as_arguments
from fairlead.tables import Html, Listing, bar, html_table, stairs, text_table
from tests.monitor_log import Log
from tests.unit.deploy.test_cli_promotion import FakeRegistry

ROOT = Path(__file__).parents[3]


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name.startswith("on") for name, _ in attrs)
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import fairlead, sys; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    for heavy in ("typer", "rich", "pydantic", "numpy", "pandas", "mlflow", "kfp", "IPython", "deploy", "pipelines"):
        assert f"'{heavy}'" not in done.stdout


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in fairlead.__all__:
        assert getattr(fairlead, name).__doc__, name


@given(st.text(max_size=20), st.text(max_size=20))
def test_text_of_others_is_no_html_of_ours(name: str, value: str) -> None:
    found = Tags(html_table([{name: value}]))
    assert set(found.tags) == {"table", "thead", "tbody", "tr", "th", "td"}


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.one_of(st.none(), st.floats(), st.text(max_size=5)))))
def test_a_table_of_text_has_a_line_for_its_head_and_each_row(rows: list[dict[str, Any]]) -> None:
    shown = text_table([{key: str(value).replace("\n", " ") for key, value in row.items()} for row in rows])
    assert len(shown.split("\n")) == len(rows) + 1


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1e9))
def test_a_bar_stays_in_its_place(value: float, most: float) -> None:
    found = bar(value, most)
    assert isinstance(found, Html)
    for left, width in re.findall(r'<rect x="([\d.]+)" y="1" width="([\d.]+)"', found):
        assert 0 <= float(left) <= float(left) + float(width) <= 160.1
    assert bool(found) == bool(most)


def test_a_plot_of_a_rollout_begins_at_the_left_and_ends_at_the_right() -> None:
    found = stairs([(10.0, 0.0), (20.0, 50.0), (30.0, 100.0)])
    assert 'd="M0.0,90.0H210.0V45.0H420.0V0.0"' in found
    assert stairs([(1.0, 1.0)]) == ""


def test_a_listing_is_a_sequence_a_table_and_a_frame() -> None:
    made = Listing([1, 2, 3], lambda number: {"number": number, "plot": bar(number, 3)}, title="numbers")
    assert (made[0], len(made[1:]), list(made)) == (1, 2, [1, 2, 3])
    assert repr(made).splitlines() == ["numbers", "number", "1", "2", "3"]
    assert "svg" in Tags(made._repr_html_()).tags
    assert list(made.frame()["number"]) == [1, 2, 3]
    assert repr(Listing([], dict, ["none yet"])) == "none yet"


@pytest.mark.parametrize(
    ("fix", "said"),
    [
        ("start it: fairlead serve MODEL, or correct --url", "start it: fairlead serve MODEL, or correct url="),
        ("fairlead run fraud --source a.csv", "fairlead run fraud --source a.csv"),
        ("correct --set data.header=true", "correct settings=data.header=true"),
        ("use one of these keys", "use one of these keys"),
    ],
)
def test_a_cure_names_arguments_and_leaves_commands_as_they_are(fix: str, said: str) -> None:
    assert as_arguments(fix) == said


def test_an_error_in_a_notebook_is_its_headline_and_its_cure(home: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        fairlead.get_run("nothing")
    assert caught.value._render_traceback_() == [f"PlatformError: {caught.value}"]
    assert "Fix: fairlead runs" in str(caught.value)


def test_the_home_of_a_folder_above_is_used_from_every_folder_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.delenv("FAIRLEAD_HOME")
    (tmp_path / "project" / ".fairlead").mkdir(parents=True)
    below = tmp_path / "project" / "notebooks" / "mine"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert fairlead.home() == tmp_path / "project" / ".fairlead"


def test_runs_are_those_of_the_command_line(
    write_run: Callable[..., Path], fairlead_command: Callable[..., Any]
) -> None:
    write_run("fraud-1", status="succeeded", result={"name": "fraud", "version": "3"}, started="2026-01-03")
    write_run("fraud-2", error={"headline": "no <column>", "detail": "d", "fix": "--set data.header=true"})
    found = fairlead.runs()
    assert [run.run_id for run in found] == [run["run_id"] for run in fairlead_command("runs", "--json").json]
    assert (found[0].model, found[0].status) == ("fraud:3", "succeeded")
    failed = fairlead.get_run("fraud-2")
    assert "fairlead run --resume fraud-2 --set data.header=true" in failed.error
    assert "no &lt;column&gt;" in failed._repr_html_()
    assert failed.steps.rows() == [{"step": "ingest", "status": "finished", "seconds": 1.5}]


@pytest.fixture
def fairlead_command(home: Path, call: Callable[..., Any]) -> Callable[..., Any]:
    return call


EVENTS = """
import json, pathlib, sys
asked = json.loads(sys.argv[1])
print(json.dumps({"event": "step_started", "step": "ingest"}))
print(json.dumps({"event": "step_finished", "step": "ingest", "seconds": 1.5}))
folder = pathlib.Path(asked["endpoints"]["home"]) / "runs" / asked["run_id"]
folder.mkdir(parents=True)
(folder / "run.json").write_text(json.dumps({**asked, "status": "succeeded"}))
print(json.dumps({"event": "run_finished"}))
"""


def test_a_run_shows_its_steps_and_knows_what_it_was_asked(
    home: Path, workflow: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    workflow(EVENTS)
    made = fairlead.run("fraud", recipe="logistic", settings={"split.train_days": 14, "seed": 3}, cache=False)
    assert "ok ingest" in capsys.readouterr().out
    config = made.document["config"]
    assert (made.recipe, config["split"]["train_days"], config["seed"]) == ("logistic", 14, 3)
    assert made.document["nonce"] == made.run_id
    fairlead.run("fraud", progress=False)
    assert capsys.readouterr().out == ""


def test_a_setting_that_is_none_is_refused_before_anything_starts(home: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        fairlead.run("fraud", settings={"split.trian_days": 1})
    assert "trian_days" in str(caught.value)
    assert "train_days" in caught.value.detail
    assert not (home / "runs").exists()


def test_models_and_their_differences_are_those_of_the_command_line(
    home: Path, fairlead_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.registry.Registry", FakeRegistry)
    assert [model.ref for model in fairlead.models("fraud")] == ["fraud:3", "fraud:2", "fraud:1"]
    found = fairlead.compare("fraud:1", "fraud:2")
    told = fairlead_command("compare", "fraud:1", "fraud:2", "--json").json
    assert json.loads(json.dumps(found.document)) == told
    assert found.metrics["average_precision"]["difference"] == pytest.approx(0.05)
    assert found.frame().loc[0, "difference"] == pytest.approx(0.05)
    assert any("test rows" in line for line in found.reservations)
    assert "svg" in Tags(found._repr_html_()).tags
    with pytest.raises(PlatformError) as caught:
        fairlead.models("nothing")
    assert caught.value.code == "unknown_model"


def test_the_champion_changes_and_it_is_noted(
    home: Path, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.registry.Registry", FakeRegistry)
    assert fairlead.promote("fraud:1").ref == "fraud:1"
    assert fairlead.rollback("fraud").ref == "fraud:1"
    found = fairlead.audit("fraud:1")
    assert [entry.action for entry in found] == ["promote", "rollback"]
    assert [row["to"] for row in found.rows()] == ["fraud:1", "fraud:1"]
    assert AuditLog.of(endpoints).verify().intact


ANSWER = {
    "label": "fraud",
    "probability": 0.9,
    "probabilities": {"ok": 0.1, "fraud": 0.9},
    "id": "a",
    "threshold": 0.5,
    "reasons": [
        {"feature": "amount", "value": 310.5, "contribution": 0.4},
        {"feature": "<hour>", "value": 2.0, "contribution": -0.1},
    ],
    "flags": ["new_entity"],
}


def test_predictions_show_what_the_command_shows_and_keep_the_rest() -> None:
    found = fairlead.Predictions("fraud:3", (ANSWER, {**ANSWER, "reasons": [], "flags": []}))
    first, second = found._shown()
    assert list(first) == ["row", "label", "probability", "notes"]
    assert first["notes"] == "amount=310.50 (+0.40), <hour>=2.00 (-0.10), new_entity"
    assert second["notes"] == "-"
    assert found[0]["id"] == "a"
    assert list(found.frame()["threshold"]) == [0.5, 0.5]
    page = found.reasons(0)._repr_html_()
    assert "&lt;hour&gt;" in page
    assert Tags(page).tags.count("svg") == 2
    assert "explain=True" in repr(found.reasons(1))


def test_an_endpoint_that_is_down_is_said_with_what_to_do(home: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        fairlead.predict("fraud", {"amount": 1.0}, url="http://127.0.0.1:9")
    assert caught.value.code == "no_endpoint"
    assert "no answer from http://127.0.0.1:9/predict" in str(caught.value)
    assert "fairlead serve MODEL, or correct url=" in caught.value.fix


def test_no_rows_are_no_question(home: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        fairlead.predict("fraud", [])
    assert caught.value.code == "bad_input"


def test_a_service_that_was_not_started_has_no_address() -> None:
    found = fairlead.serve("fraud")
    with pytest.raises(PlatformError) as caught:
        _ = found.url
    assert "fraud is not served now" in str(caught.value)
    assert "not served now" in found._repr_html_()
    found.stop()  # nothing to end


def test_drift_is_a_table_with_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path, metrics={"accuracy": 0.6})
    for name, value in (("HOME", tmp_path), ("PREDICTIONS", log.folder), ("ARTIFACTS", log.artifacts)):
        monkeypatch.setenv(f"FAIRLEAD_{name}", str(value))
    with pytest.raises(PlatformError) as caught:
        fairlead.monitor("m")
    assert caught.value.code == "no_predictions"
    log.now()
    log.write(40, rate=20, colour={"chars": 5})
    found = fairlead.monitor("m")
    assert found.drifted == ("colour",)
    (version,) = found.document["versions"]
    rows = {row["input"]: row["verdict"] for row in found.inputs(version).rows()}
    assert rows["colour"] == "changed"
    assert rows["size"] == "-"
    assert "colour" in repr(found)
    assert "svg" in Tags(found._repr_html_()).tags


def test_without_rollouts_and_features_it_says_how_to_get_them(home: Path) -> None:
    assert "rollouts=True" in repr(fairlead.rollouts())
    assert "fairlead.run(TASK)" in repr(fairlead.features())
    with pytest.raises(PlatformError) as caught:
        fairlead.rollouts("fraud")
    assert caught.value.code == "no_rollout"


def test_a_search_is_a_run_that_is_told_to_search(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    one = {"number": 0, "state": "tried", "values": {"roc_auc": 0.9}, "settings": {"model.c": 1.0}}
    found = {"trials": [one], "best": {"settings": {"model.c": 1.0}}, "verdict": "there is little to gain here"}

    def run(task: str, **given: Any) -> fairlead.Run:
        asked.update(given, task=task)
        return fairlead.Run({"run_id": "credit-1", "status": "succeeded", "search": found})

    monkeypatch.setattr(fairlead.planning, "run", run)
    made = fairlead.search("credit", recipe="logistic", trials=5, metrics=["roc_auc"], settings={"seed": 3})
    told = {"search.trials": 5, "search.workers": 1, "search.metrics": ["roc_auc"], "seed": 3}
    assert asked["settings"] == told
    assert made.best == {"model.c": 1.0}
    assert "there is little to gain here" in repr(made.trials)
    assert made.trials.frame()["roc_auc"].tolist() == [0.9]


def test_a_federation_is_a_run_by_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    sites = [{"name": "site-1", "rows": 40.0, "rounds": 3, "late": 0, "refused": ""}]

    def run(task: str, **given: Any) -> fairlead.Run:
        asked.update(given, task=task)
        return fairlead.Run({"run_id": "credit-1", "status": "succeeded", "federation": {"sites": sites}})

    monkeypatch.setattr(fairlead.planning, "run", run)
    made = fairlead.federate("credit", clients=4, split_by="purpose", settings={"federation.rounds": 3})
    told = {"federation.clients": 4, "federation.split": "purpose", "federation.rounds": 3}
    assert (asked["settings"], asked["recipe"]) == (told, "logistic")
    assert made.sites.frame()["rows"].tolist() == [40.0]


def test_a_plan_is_a_table_of_bands() -> None:
    band = {"low": 1.0, "likely": 2.0, "high": 3.0}
    train = {"seconds": band, "memory_peak": {key: value * 2**30 for key, value in band.items()}}
    learning = [{"rows": 1000, "low": 0.7, "likely": 0.8, "high": 0.9}]
    document = {"train": train, "metric": "roc_auc", "learning": learning, "need": 2**31, "limit": 2**32}
    plan = fairlead.Plan(document)
    assert plan.fits
    assert "roc_auc, 1,000 rows" in repr(plan)
    assert "It fits here." in plan._repr_html_()
    assert "it does not fit here" in repr(fairlead.Plan({**document, "limit": 2**31}))
