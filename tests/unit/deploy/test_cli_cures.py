"""A cure that is printed is pasted as it stands, and the command goes on or is accepted."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from pipelines.settings import setting
from pipelines.task import dump_config
from pipelines.tasks import get_task, recipe_config

RUN = """
import json, pathlib, sys
asked = json.loads(sys.argv[1])
at = asked["config"]
wanted, fix = json.loads({wanted!r}), {fix!r}
for key in wanted[0].split("."):
    at = at.get(key, {{}})
met = at == wanted[1]
error = None if met else {{"headline": "not so", "fix": fix, "code": "bad_data"}}
folder = pathlib.Path(asked["endpoints"]["runs"]) / asked["run_id"]
folder.mkdir(parents=True, exist_ok=True)
document = {{"asked": asked, "status": "succeeded" if met else "failed", "steps": {{}}, "error": error, "result": None}}
(folder / "run.json").write_text(json.dumps(document))
print(json.dumps({{"event": "run_finished" if met else "run_failed", "error": error}}))
sys.exit(not met)
"""  # a workflow that ends well once a setting has a value


def commands(text: str) -> list[list[str]]:
    """The commands of ours in what was printed, without the program's name."""
    cure = " ".join(text.rpartition("Fix: ")[2].split("\n"))
    return [shlex.split(found)[1:] for found in re.findall(r"fairlead (?:'[^']*'|\"[^\"]*\"|[^;'\"])+", cure)]


@pytest.mark.parametrize(
    ("key", "value", "fix"),
    [
        ("data.drop", ["a b", "c'd", "e;f"], "leave it out: {}; if known before: --set data.allow_leakage=[x]"),
        ("data.columns.amount", "Amount (EUR), net", "say which one it is: {}"),
        ("gate.primary", "f1", "choose one of these, such as: {}"),
        ("cost.false_negative", 5.0, "give a number, or one of these columns: {}"),
        ("data.delimiter", ";", "{}"),
        ("data.header", False, "{}; or write a header"),
    ],
)
def test_a_run_goes_on_when_its_cure_is_pasted(fairlead, workflow, key, value, fix) -> None:
    fix = fix.format(setting(key, value))
    workflow(RUN.format(wanted=json.dumps([key, value]), fix=fix))
    failed = fairlead("run", "fraud")
    assert failed.code == 1
    said = fairlead(*commands(failed.err)[0])
    assert said.code == 0, said.err
    assert f"Changed  {key} is " in said.out


@pytest.mark.parametrize(
    "typed",
    [
        ("run", "fraud", "--resume", "fraud-1", "--set", "data.drop=[a b]", "--no-cache"),
        ("run", "--resume", "fraud-2", "--set", "data.drop=[a b]"),
        ("run", "fraud", "--set", "recipe=logistic"),
        ("run", "fraud", "--recipe", "logistik"),
        ("run", "fraud", "--recipe", "nothing", "--set", "data.drop=[a b]"),
        ("runs", "nothing"),
        ("runs", "fraud"),
        ("models", "nothing"),
        ("models", "fraud"),
        ("serve", "nothing"),
        ("score", "nothing", "--source", "."),
        ("features", "materialise", "nothing"),
        ("promote", "Churn v2 (draft)"),
    ],
)
def test_a_command_is_accepted_when_its_cure_is_pasted(fairlead, workflow, write_run, typed) -> None:
    workflow(RUN.format(wanted=json.dumps(["data.header", True]), fix=""))
    config = json.loads(dump_config(recipe_config(get_task("fraud"))))
    write_run("fraud-1", config=config)
    write_run("fraud-2", config=config, status="refused")
    refused = fairlead(*typed)
    assert refused.code == 1
    cures = commands(refused.err)
    assert cures
    for cure in cures:
        said = fairlead(*cure)
        assert said.code == 0, (cure, said.err)


def test_an_option_that_is_proposed_wins_over_the_one_that_was_typed(fairlead, tmp_path, workflow) -> None:
    (tmp_path / "scores").mkdir()
    refused = fairlead("score", "nothing", "--source", ".", "--out", "scores")
    (cure,) = commands(refused.err)
    assert cure[-2:] == ["--out", "FOLDER"]
    assert "no model 'nothing'" in fairlead(*cure).err
