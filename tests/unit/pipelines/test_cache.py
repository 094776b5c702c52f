"""What a cache key is made of: code, libraries, the task's own files; recipes share what they can."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.endpoints import Endpoints
from pipelines import code_version
from pipelines.parameters import parameters_of
from pipelines.run import Run
from pipelines.task import GateConfig
from pipelines.tasks import get_task, load_config, recipe_config
from pipelines.values import data_part, store_stamp


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of a source tree whose version is asked for."""
    for name in (
        "contracts/a.py",
        "pipelines/steps/b.py",
        "pipelines/evaluation/e.py",
        "pipelines/pages/card.html",
        "pipelines/data/d.py",
        "pipelines/io/i.py",
        "pipelines/settings.py",
        "pipelines/formatting.py",
        "pipelines/task.py",
        "pipelines/tasks/toy/x.py",
        "pipelines/tasks/other/y.py",
        "feature_repo/stores/s.py",
        "feature_repo/toy.py",
        "services/s.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(code_version, "_ROOT", tmp_path)
    code_version.code_version.cache_clear()
    yield tmp_path
    code_version.code_version.cache_clear()


def fresh(task: str) -> str:
    code_version.code_version.cache_clear()
    return code_version.code_version(task)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("contracts/a.py", True),
        ("pipelines/steps/b.py", True),
        ("pipelines/evaluation/e.py", True),
        ("pipelines/formatting.py", True),
        ("pipelines/pages/card.html", True),
        ("pipelines/data/d.py", True),
        ("pipelines/io/i.py", True),
        ("pipelines/settings.py", True),
        ("pipelines/task.py", True),
        ("pipelines/tasks/toy/x.py", True),
        ("feature_repo/stores/s.py", True),
        ("feature_repo/toy.py", True),
        ("feature_repo/toy_views.py", True),
        ("pipelines/tasks/other/y.py", False),
        ("services/s.py", False),
        ("pipelines/tasks/toy/README.md", False),
        ("pipelines/steps/b.pyc", False),
    ],
)
def test_code_version_follows_what_makes_a_tasks_artifacts(tree: Path, file: str, changes: bool) -> None:
    before = fresh("toy")
    (tree / file).write_text("2")
    assert (fresh("toy") != before) == changes


@pytest.mark.parametrize(
    "line",
    [
        "from pipelines.tasks.other import y",
        "from pipelines.tasks.other.y import Trained",
        "import pipelines.tasks.other.y",
        "from ..other import y",
        "def train():\n    from pipelines.tasks.other.y import Trained",
        "from pipelines.tasks.third import Base",
    ],
)
def test_code_version_follows_what_a_task_takes_from_another(tree: Path, line: str) -> None:
    (tree / "pipelines/tasks/third").mkdir()
    (tree / "pipelines/tasks/third/__init__.py").write_text("from pipelines.tasks.other import y")
    (tree / "pipelines/tasks/toy/x.py").write_text(line)
    for name in ("y.py", "sample.csv"):  # what it reads there counts too
        before = fresh("toy")
        (tree / "pipelines/tasks/other" / name).write_text("2")
        assert fresh("toy") != before, name


def test_code_version_follows_a_tasks_recipes_and_no_others(tree: Path) -> None:
    for name in ("mine", "deeper", "others"):
        (tree / "pipelines/recipes" / name).mkdir(parents=True)
        (tree / "pipelines/recipes" / name / "recipe.py").write_text("1")
    (tree / "pipelines/tasks/toy/config.py").write_text("from pipelines.recipes.mine.recipe import Mine")
    (tree / "pipelines/recipes/mine/recipe.py").write_text(
        "def train():\n    from pipelines.recipes.deeper import recipe"
    )
    for name, changes in (("mine", True), ("deeper", True), ("others", False)):
        before = fresh("toy")
        with (tree / "pipelines/recipes" / name / "recipe.py").open("a") as file:
            file.write("\n2")
        assert (fresh("toy") != before) == changes, name


def test_code_version_does_not_follow_what_other_tasks_import(tree: Path) -> None:
    (tree / "services/s.py").write_text("1")
    (tree / "pipelines/tasks/other/y.py").write_text("import services.s")
    before = fresh("toy")
    (tree / "services/s.py").write_text("2")
    assert fresh("toy") == before


def test_a_renamed_file_and_another_library_change_the_version(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fresh("toy")
    (tree / "pipelines/steps/b.py").rename(tree / "pipelines/steps/c.py")
    renamed = fresh("toy")
    assert renamed != before
    monkeypatch.setattr(code_version, "version", lambda name: "99")
    code, libraries = fresh("toy").split(".")
    assert code == renamed.split(".")[0]
    assert libraries != renamed.split(".")[1]


def test_recipes_that_differ_in_the_model_share_their_data(toy: Any, toy_config: Callable[..., str]) -> None:
    base = data_part(toy, load_config(toy, toy_config()))
    other = load_config(toy, toy_config(model={"rounds": 3}, gate={"primary": "brier"}))
    assert data_part(toy, other) == base
    assert data_part(toy, load_config(toy, toy_config(data={"delimiter": ";"}))) != base


def test_training_is_not_asked_again_for_what_only_the_gate_reads(
    toy: Any, toy_config: Callable[..., str], endpoints: str
) -> None:
    gate = {"primary": "brier", "thresholds": [], "champion_tolerance": 0.5, "max_latency_ms": 1, "max_bundle_mb": 1}
    changed = {"gate": gate, "rollout": {"step_samples": 3}, "loop": {"approval": True}}
    base, other = (_given(toy_config(**change), endpoints) for change in ({}, changed))
    assert other["evaluate_context"] != base["evaluate_context"]
    assert other["train_context"] == base["train_context"]
    model = _given(toy_config(model={"rounds": 3}), endpoints)
    assert model["train_context"] != base["train_context"]
    assert model["build_dataset_context"] == base["build_dataset_context"]


def test_training_that_chooses_by_the_gates_measure_keeps_it() -> None:
    task = get_task("news")
    keys = {"gate.primary": "accuracy", "gate.int8_tolerance": 0.5, "gate.max_latency_ms": 1.0}
    seen = {}
    for int8 in (True, False):
        config = recipe_config(task, "transformer", {**keys, "model.int8": int8})
        seen[int8] = config.training_part().gate
    assert (seen[True].primary, seen[True].int8_tolerance, seen[True].max_latency_ms) == ("accuracy", 0.5, 50.0)
    assert seen[False] == GateConfig()


def _given(config: str, endpoints: str, **asked: Any) -> dict[str, Any]:
    where = Endpoints.model_validate_json(endpoints)
    run = Run(run_id="r-1", task="toy", config=json.loads(config), endpoints=where, **asked)
    return parameters_of(run, each=True)


def test_only_a_nonce_makes_a_run_unlike_others(toy: Any, toy_config: Callable[..., str], endpoints: str) -> None:
    assert json.loads(_given(toy_config(), endpoints)["train_context"])["nonce"] == ""
    assert json.loads(_given(toy_config(), endpoints, nonce="r-1")["train_context"])["nonce"] == "r-1"


def test_training_needs_a_known_dataset_version(
    toy: Any, toy_config: Callable[..., str], endpoints: str, tmp_path: Path
) -> None:
    from contracts.errors import PlatformError
    from pipelines.steps.ingest import ingest

    root = Endpoints.model_validate_json(endpoints).path("data")
    made = ingest("toy", toy_config(), "", str(root), str(tmp_path / "m.json"))
    with pytest.raises(PlatformError, match="no dataset version 'nope'") as caught:
        _given(toy_config(), endpoints, workflow="training", dataset="nope")
    assert made in caught.value.detail
    given = _given(toy_config(), endpoints, workflow="training", dataset=made)
    assert json.loads(given["evaluate_context"])["source"] == "built-in"
    assert json.loads(Path(given["dataset"]).read_text())["version"] == made


def test_deleted_feature_stores_make_materialise_run_again(
    toy: Any, toy_config: Callable[..., str], endpoints: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = Endpoints.model_validate_json(endpoints)
    config = load_config(toy, toy_config())
    assert store_stamp(toy, where, config) == ""  # no features, nothing to lose
    monkeypatch.setattr(type(toy), "feature_service", "toy_v1")
    first = store_stamp(toy, where, config)
    where.path("online").write_text("")  # what the first run leaves
    assert store_stamp(toy, where, config) == first
    where.path("online").unlink()
    second = store_stamp(toy, where, config)
    assert second != first
    where.path("online").write_text("")
    shutil.rmtree(where.path("features"))
    assert store_stamp(toy, where, config) not in ("", first, second)
