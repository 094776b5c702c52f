"""A source and settings with one fault after another: each cure is pasted as it was printed, until there is a model."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluation.classification import METRICS
from tests.shell import Shell

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, with_tables: Callable[[Path], Path]) -> Shell:
    return Shell(with_tables(tmp_path_factory.mktemp("cures") / "home"))


@pytest.fixture(scope="module")
def articles(shell: Shell) -> Path:
    """The shipped sample, with a column that is spelled otherwise and one that gives the label away."""
    sample = resources.files("pipelines.tasks.news").joinpath("sample.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(sample.splitlines()))
    file = shell.home.parent / "my articles.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "Category", "title", "content", "decided later", "desk"])
        for row in rows:
            given = row["category"]
            writer.writerow([row["id"], given, row["title"], row["content"], f"about {given}", given.upper()])
    return file


def follow(shell: Shell, typed: list[str], most: int = 8) -> tuple[dict[str, Any], list[str]]:
    """Paste cures until a command succeeds; its report, and the code and key of each fault on the way."""
    faults = []
    for _ in range(most):
        done = shell.run(*typed, "--json")
        document = json.loads(done.stdout)
        if done.returncode in (0, 3):
            return document, faults
        error = document["error"]
        cure = re.search(r"fairlead (?:'[^']*'|\"[^\"]*\"|[^;'\"])+", error["fix"])
        assert cure, error
        faults.append(error["code"])
        typed = shlex.split(cure[0])[1:]
    raise AssertionError(f"no end of faults: {faults}")


@pytest.fixture(scope="module")
def cured(shell: Shell, articles: Path) -> tuple[dict[str, Any], list[str]]:
    """The report of a run that had several faults, and these."""
    settings = ["split.valid_share=0.5", "split.test_share=0.5", "gate.primary=f1:nothing", "data.drop=[unknown]"]
    typed = ["run", "news", "--source", str(articles), *(word for item in settings for word in ("--set", item))]
    return follow(shell, typed)


def test_a_run_with_five_faults_becomes_a_model_by_pasting_its_cures(
    shell: Shell, cured: tuple[dict[str, Any], list[str]]
) -> None:
    report, faults = cured
    assert faults == ["bad_schema", "leakage", "bad_config", "bad_config"]
    assert len(shell.json("runs")) == 1
    config = report["config"]
    assert config["data"]["columns"] == {"category": "Category"}
    assert config["data"]["drop"] == ["unknown", "decided later", "desk"]
    assert report["gate"]["passed"] in (True, False)
    assert report["steps"]["train"]["status"] == "cached"  # another measure of the gate trains nothing again
    assert report["attempt"] == len(faults) + 1


def test_a_step_whose_cached_output_is_damaged_is_made_again_by_pasting_the_cure(
    shell: Shell, articles: Path, cured: tuple[dict[str, Any], list[str]]
) -> None:
    split = cured[0]["config"]["split"]
    settings = ["data.columns.category=Category", "data.drop=[unknown, decided later, desk]", "gate.primary=accuracy"]
    settings += [f"split.{name}={split[name]}" for name in ("valid_share", "test_share")]
    typed = ["run", "news", "--source", str(articles), *(word for item in settings for word in ("--set", item))]
    for file in (shell.home / "data" / ".steps" / "train").rglob("train.json"):
        file.write_text(file.read_text()[:-20])
    report, faults = follow(shell, [*typed, "--set", "gate.champion_tolerance=0.3"])
    assert faults == ["missing_artifact"]
    assert {step["status"] for step in report["steps"].values()} == {"finished"}


def test_a_scoring_goes_on_into_its_folder_by_pasting_the_cure(shell: Shell, articles: Path) -> None:
    source = shell.home.parent / "semicolons.csv"
    with articles.open(newline="", encoding="utf-8") as given, source.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, delimiter=";").writerows(csv.reader(given))
    document, faults = follow(shell, ["score", "news:1", "--source", str(source), "--out", "my scores"])
    assert len(faults) == 1
    assert document["rows"] == 200
    assert (shell.home.parent / "my scores" / "summary.json").is_file()


def test_a_text_task_of_two_classes_is_measured_as_one_of_many_is(shell: Shell) -> None:
    sample = resources.files("pipelines.tasks.news").joinpath("sample.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(sample.splitlines()))
    two = sorted({row["category"] for row in rows})[:2]
    source = shell.home.parent / "two.csv"
    with source.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row["category"] in two)
    runs = len(shell.json("runs"))
    refused = shell.run("run", "news", "--source", str(source), "--set", "gate.primary=nothing", "--json")
    assert len(shell.json("runs")) == runs  # nothing was started
    error = json.loads(refused.stdout)["error"]
    assert error["headline"] == "gate.primary 'nothing' is not measured for task news"
    report, faults = follow(shell, shlex.split(error["fix"].partition(": ")[2])[1:])
    assert faults == []
    assert {*METRICS, *(f"f1:{name}" for name in two)} <= set(report["metrics"])
    measured = {check["metric"]: check["value"] for check in report["gate"]["checks"]}
    assert measured["macro_f1"] == report["metrics"]["macro_f1"] > 0.6
