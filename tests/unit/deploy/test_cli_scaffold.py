"""new-task writes a task that is complete, tidy and touches nothing that exists."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import deploy
from contracts.errors import PlatformError
from contracts.problems import OURS
from contracts.settings import load
from deploy.cli.profiles.deployment import Deployment
from deploy.cli.project.scaffold import combinations, write_task

ROOT = Path(deploy.__file__).parents[1]
LONGEST = "a_name_of_24_characters_"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folders that a new task is written to, with a feature definition and the values of another model."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("contracts", "pipelines/tasks", "pipelines/training", "feature_repo", "deploy/env/local/models"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / Path(folder).parts[0] / "__init__.py").touch()
    (tmp_path / "feature_repo" / "entities.py").write_text("customer = 1\n")
    (tmp_path / "deploy" / "env" / "local" / "models" / "other.yaml").write_text("model: other\nport: 3017\n")
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("problem", "modality"), combinations())
def test_a_new_task_edits_no_existing_file(project, problem, modality) -> None:
    before = contents(project)
    written = write_task("churn", problem, modality, project)
    after = contents(project)
    assert {name: after[name] for name in before} == before
    assert {str(file.relative_to(project)) for file in written} == set(after) - set(before)
    config = {"config.py"} if modality == "tabular" else set()
    assert {file.name for file in written if file.parent.name == "churn"} == {
        "__init__.py", "data.py", "README.md", *config,
    }  # fmt: skip
    assert not [file for file in written if "$" in file.read_text()]
    assert not list(project.glob(".new-task-*"))


@pytest.mark.parametrize("name", ["ab", "churn", LONGEST])
def test_what_is_written_passes_the_linter(project, name) -> None:
    for problem, modality in combinations():  # of the same length as `name`, and of its first letter
        write_task(f"{name[:1]}{problem[0]}{modality[1]}{name[3:]}", problem, modality, project)
    ours = 'lint.isort.known-first-party=["contracts", "pipelines", "feature_repo"]'  # most of it is not here
    for arguments in (["check", "--config", ours], ["format", "--diff"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."], cwd=project, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_its_values_are_valid_and_its_port_is_free(project) -> None:
    write_task("churn", "classification", "tabular", project)
    values = load(Deployment, project / "deploy/env/local/models/churn.yaml", environ={})
    assert (values.model, values.modality, values.port) == ("churn@champion", "tabular", 3018)


@pytest.mark.parametrize(
    "name", ["", "a", "Churn", "1churn", "my-task", "class", "match", "../x", LONGEST + "x", "a b"]
)
def test_a_bad_name_is_refused(project, name) -> None:
    before = contents(project)
    with pytest.raises(PlatformError, match="not a task name"):
        write_task(name, "classification", "tabular", project)
    assert contents(project) == before


@pytest.mark.parametrize("taken", ["pipelines/tasks/churn.py", "feature_repo/churn.py", "pipelines/tasks/churn/x.py"])
def test_a_name_that_is_taken_is_refused(project, taken) -> None:
    (project / taken).parent.mkdir(exist_ok=True)
    (project / taken).write_text("mine\n")
    before = contents(project)
    with pytest.raises(PlatformError, match="the name churn is taken"):
        write_task("churn", "classification", "text", project)
    assert contents(project) == before


@pytest.mark.parametrize(
    ("problem", "modality", "cure"),
    [
        ("classification", "video", "--problem classification --modality"),
        ("embedding", "tabular", "--problem embedding --modality text"),
        ("ranking", "text", "--modality text"),
    ],
)
def test_a_combination_without_templates_lists_those_that_there_are(project, problem, modality, cure) -> None:
    with pytest.raises(PlatformError) as caught:
        write_task("churn", problem, modality, project)
    assert caught.value.detail.count("--problem") == len(combinations()) == 13
    assert cure in caught.value.fix


def test_every_problem_has_a_template() -> None:
    one_task = {"ranking", "answering"}  # for any items, and any documents
    assert {problem for problem, _ in combinations()} == set(OURS) - one_task


def test_another_folder_than_a_project_is_refused(tmp_path) -> None:
    with pytest.raises(PlatformError, match="not a project folder"):
        write_task("churn", "classification", "tabular", tmp_path)


@pytest.fixture
def importable(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project's tasks can be imported beside the real ones."""
    import pipelines.tasks

    monkeypatch.setattr(pipelines.tasks, "__path__", [*pipelines.tasks.__path__, str(project / "pipelines" / "tasks")])
    yield project
    for name in [name for name in sys.modules if name.startswith("pipelines.tasks.new_")]:
        del sys.modules[name]


def test_the_tabular_sample_goes_to_a_split_that_has_every_input(importable, tmp_path) -> None:
    write_task("new_churn", "classification", "tabular", importable)
    task = importlib.import_module("pipelines.tasks.new_churn").TASK
    config = task.recipes[task.default_recipe]
    table = next(task.default_source(config))
    assert table.column_names == [column.name for column in task.columns]
    assert table.slice(0, 5).equals(next(task.default_source(config)).slice(0, 5)), "the same seed gives other data"
    from pyarrow import parquet

    parquet.write_table(table, tmp_path / "part-00000.parquet")
    task.write_features(tmp_path, tmp_path / "features", lambda *args: None)
    history = parquet.read_table(tmp_path / "features" / "new_churn_history.parquet").to_pandas()
    first = history.sort_values("known_at").drop_duplicates("customer_id")
    assert (first["past_rows"] == 1).all()
    frame = table.to_pandas().assign(past_rows=1, past_mean_calls=0.5, past_mean_charge=float("nan"))
    parts = task.split(frame, config)
    assert sum(map(len, parts.values())) == len(frame)
    for part in parts.values():
        assert {"id", "label", "slice_plan", *(item.name for item in task.inputs(config))} <= set(part.columns)
        assert set(part["label"]) == {"no", "yes"}


def test_no_row_of_a_tabular_task_moves_towards_the_test(importable) -> None:
    write_task("new_churn", "classification", "tabular", importable)
    task = importlib.import_module("pipelines.tasks.new_churn").TASK
    config = task.recipes[task.default_recipe]
    frame = next(task.default_source(config)).to_pandas()
    frame = frame.assign(past_rows=1, past_mean_calls=0.5, past_mean_charge=1.0)
    frame["event_time"] = frame["event_time"].dt.floor("30D")  # many rows of the same moment

    def place(rows: pd.DataFrame, seed: int) -> dict[str, int]:
        parts = task.split(rows, dataclasses.replace(config, seed=seed))
        return {key: at for at, name in enumerate(("train", "valid", "test")) for key in parts[name]["id"]}

    before = place(frame, 7)
    assert place(frame.sample(frac=1, random_state=3), 8) == before
    newer = frame.assign(
        row_id="N" + frame["row_id"].str[1:], event_time=frame["event_time"].max() + pd.Timedelta(days=1)
    )
    for count in (1, 100, len(frame)):
        after = place(pd.concat([newer[:count], frame]), 7)
        assert all(after[key] <= at for key, at in before.items())


def test_the_text_sample_has_all_categories_in_every_part(importable) -> None:
    write_task("new_tickets", "classification", "text", importable)
    task = importlib.import_module("pipelines.tasks.new_tickets").TASK
    config = task.recipes[task.default_recipe]
    parts = task.split(next(task.default_source(config)).to_pandas(), config)
    assert {name: part["label"].nunique() for name, part in parts.items()} == {"train": 3, "valid": 3, "test": 3}


def test_new_task_says_what_it_wrote(fairlead, project) -> None:
    said = fairlead("new-task", "churn", "--root", str(project), "--json")
    assert "pipelines/tasks/churn/__init__.py" in said.json["files"]
    assert "fairlead run churn2" in fairlead("new-task", "churn2", "--root", str(project)).out
