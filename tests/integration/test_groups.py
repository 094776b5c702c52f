"""Tasks of several steps in real processes: their cache, a kill in the middle, and runs that name the task only."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import read_bundle
from contracts.endpoints import Endpoints
from contracts.registry import Registry
from pipelines.io.record import read_run, read_steps
from pipelines.resources import Placement
from pipelines.run import Run
from pipelines.steps.calls import ORDER
from pipelines.workflows import compile_workflows
from tests.launcher import Launcher
from tests.toy.toy_task import toy_frame

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
STEPS = [step for step in ORDER["full"] if step != "materialise"]  # the toy task has no features
TASK = "prepare_train_judge"


@dataclass(frozen=True)
class Platform:
    """Addresses that the processes share, and the workflows compiled for it."""

    endpoints: Endpoints
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT / "tests" / "toy"), str(ROOT)])
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": path,
            "FAIRLEAD_ENDPOINTS": self.endpoints.model_dump_json(),
        }

    def launcher(self, store: Path, tasks: str = "few", workflow: str = "full", **environment: str) -> Launcher:
        return Launcher(self.folder / tasks / f"{workflow}.yaml", store, {**self.environment, **environment})


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, with_tables: Callable[[Path], Path]) -> Platform:
    folder = tmp_path_factory.mktemp("platform")
    for tasks in ("few", "groups"):
        compile_workflows(folder / tasks, Placement(cluster=True, image="registry/pipelines:1", tasks=tasks))
    home = with_tables(folder / "home")
    return Platform(Endpoints(home=str(home)).resolved(), folder)


@pytest.fixture(scope="module")
def first(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    """A run that names nothing but the task."""
    launcher = platform.launcher(tmp_path_factory.mktemp("first"))
    launcher.run({"task": "toy"})
    return launcher


def seen(events: list[dict[str, Any]], kind: str) -> list[str]:
    return [event["step"] for event in events if event["event"] == kind]


def result_of(launcher: Launcher, task: str = TASK) -> dict[str, Any]:
    ends = [event for event in launcher.events[task] if event["event"] == "step_finished"]
    assert ends[-1]["step"] == "register"
    return dict(ends[-1]["result"])


def test_a_run_of_one_task_makes_what_the_local_run_makes(
    platform: Platform, first: Launcher, tmp_path: Path, with_tables: Callable[[Path], Path]
) -> None:
    assert seen(first.events[TASK], "step_started") == seen(first.events[TASK], "step_finished") == STEPS
    result = result_of(first)
    assert (result["name"], result["champion"], result["gate_passed"]) == ("toy", True, True)
    asked = Run(task="toy", run_id="toy-here", endpoints=Endpoints(home=str(with_tables(tmp_path))))
    command = [sys.executable, "-m", "pipelines", "run", asked.model_dump_json()]
    done = subprocess.run(command, env=platform.environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    ours = read_bundle(result["path"])
    theirs = read_bundle(Registry(Endpoints(home=str(tmp_path))).resolve("toy@champion").path)
    same = [name for name in ours.document.files if name.startswith(("model/", "golden", "baseline", "seen"))]
    assert len(same) >= 4
    assert {name: ours.document.files[name] for name in same} == {name: theirs.document.files[name] for name in same}
    assert ours.document.metrics == theirs.document.metrics
    lineages = [bundle.document.lineage.model_dump(exclude={"run", "created"}) for bundle in (ours, theirs)]
    assert lineages[0] == lineages[1]


def test_a_run_that_nobody_named_has_a_name(platform: Platform, first: Launcher) -> None:
    lineage = read_bundle(result_of(first)["path"]).document.lineage
    assert re.fullmatch(r"toy-\d{8}-\d{6}-[0-9a-f]{4}", lineage.run)
    assert lineage.source == "built-in"


NODE = f"full-x.root.{TASK.replace('_', '-')}.executor"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a pod of the next run is told of it, and where its record is."""
    root = str(tmp_path_factory.mktemp("runs"))
    return {"FAIRLEAD_RECORD": root, "FAIRLEAD_KFP_RUN": "0f3c-77", "FAIRLEAD_POD": "pod-1"}


@pytest.fixture(scope="module")
def next_one(
    platform: Platform, first: Launcher, record: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Launcher:
    """Another run that names nothing but the task, with its record."""
    again = platform.launcher(tmp_path_factory.mktemp("next"), **record, FAIRLEAD_NODE=f"{NODE}(0)")
    again.run({"task": "toy", "promote": False})
    return again


def test_the_next_run_takes_four_steps_from_the_cache(first: Launcher, next_one: Launcher) -> None:
    events = next_one.events[TASK]
    assert seen(events, "step_cached") == STEPS[1:5]
    assert seen(events, "step_finished") == ["ingest", "gate", "register"]
    before = {event["step"]: event["result"] for event in first.events[TASK] if event["event"] == "step_finished"}
    assert all(event["result"] == before[event["step"]] for event in events if event["event"] == "step_cached")
    assert result_of(next_one)["metrics"] == result_of(first)["metrics"]
    assert result_of(next_one)["champion"] is False
    _same_page(first, next_one)


def _same_page(first: Launcher, again: Launcher) -> None:
    """What Kubeflow's page shows is there when the steps come from the cache."""
    made = {name: value for name, value in first.metadata[TASK].items() if name in ("metrics", "classes")}
    assert made["metrics"]["average_precision"] > 0
    assert "confusionMatrix" in made["classes"]
    assert {name: again.metadata[TASK][name] for name in made} == made
    for launcher in (first, again):
        shown = launcher.store / TASK.replace("_", "-")
        assert "Gate: **passed**" in (shown / "gate").read_text()
        assert "<html" in (shown / "card").read_text()
        assert "<html" in (shown / "data_report").read_text()


def test_what_a_setting_changes_runs_again(platform: Platform, first: Launcher, tmp_path: Path) -> None:
    lenient = platform.launcher(tmp_path)
    lenient.run({"task": "toy", "settings": "gate.champion_tolerance=0.5", "promote": False})
    assert seen(lenient.events[TASK], "step_cached") == ["validate", "build_dataset", "train"]


def started(launcher: Launcher, arguments: Mapping[str, Any], folder: Path) -> subprocess.Popen[str]:
    """The container's command of the only task, in a process of its own."""
    (name,) = launcher.spec["root"]["dag"]["tasks"]
    task = launcher.spec["root"]["dag"]["tasks"][name]
    declared = launcher.spec["root"]["inputDefinitions"]["parameters"]
    given = {key: declared[key].get("defaultValue") for key in declared} | dict(arguments)
    document = launcher.executor_input(name, task, given, folder)
    environment = {**launcher.environment, "PATH": f"{Path(sys.executable).parent}:{launcher.environment['PATH']}"}
    return subprocess.Popen(
        launcher.command(name, document), env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_pod_that_was_killed_goes_on_behind_what_is_done(platform: Platform, tmp_path: Path) -> None:
    asked = {"task": "toy", "settings": "seed=77,model.rounds=20,model.pause=0.1", "promote": False}
    process = started(platform.launcher(tmp_path), asked, tmp_path / "one")
    assert process.stdout is not None
    for line in process.stdout:
        if '"progress"' in line and '"step": "train"' in line and json.loads(line)["done"] >= 3:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    again = platform.launcher(tmp_path)
    again.run(asked)
    assert seen(again.events[TASK], "step_cached") == ["validate", "build_dataset"]
    assert seen(again.events[TASK], "step_finished") == ["ingest", "train", "evaluate", "gate", "register"]
    parameters = read_bundle(result_of(again)["path"]).document.parameters
    assert parameters["resumed_after"] >= 2, "the training goes on from its checkpoint"


def test_training_in_a_task_of_its_own_is_asked_the_same_by_every_run(platform: Platform, tmp_path: Path) -> None:
    asked, texts = {"task": "toy", "settings": "seed=8"}, []
    for name in ("one", "two"):
        launcher = platform.launcher(tmp_path / name, "groups")
        launcher.store.mkdir()
        launcher.run({**asked, "run": f"toy-{name}", "promote": False})
        texts.append(launcher.outputs["prepare"]["training"])
        steps = [event for task in ("prepare", "train", "judge") for event in launcher.events[task]]
        assert seen(steps, "step_finished") == (STEPS if name == "one" else ["ingest", "gate", "register"])
        assert read_bundle(result_of(launcher, "judge")["path"]).document.lineage.run == f"toy-{name}"
        assert "<html" in (launcher.store / "prepare" / "data_report").read_text()
    assert texts[0] == texts[1], "so that Kubeflow's own cache answers it"
    assert "toy-one" not in texts[0]


def test_a_dataset_version_that_is_there_is_trained_on(platform: Platform, tmp_path: Path) -> None:
    made = platform.launcher(tmp_path / "a", workflow="ingestion")
    made.store.mkdir()
    made.run({"task": "toy", "settings": "seed=9"})
    version = made.events["prepare"][-1]
    assert version["step"] == "validate"
    (ingested,) = (
        event["result"] for event in made.events["prepare"] if event.get("step") == "ingest" and "result" in event
    )
    training = platform.launcher(tmp_path / "b", workflow="training")
    training.store.mkdir()
    training.run({"task": "toy", "settings": "seed=9", "dataset": ingested["version"], "promote": False})
    assert seen(training.events[TASK], "step_finished") == ["build_dataset", "train", "evaluate", "gate", "register"]
    assert read_bundle(result_of(training)["path"]).document.lineage.data_version == ingested["version"]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"recipe": "tre"}, "unknown_recipe"),
        ({"settings": "model.round=3"}, "bad_config"),
        ({"config": "{"}, "bad_config"),
        ({"code_version": "0123456789abcdef.00000000"}, "other_code"),
    ],
)
def test_what_cannot_be_is_said_by_the_first_step(
    platform: Platform, asked: dict[str, str], code: str, tmp_path: Path
) -> None:
    launcher = platform.launcher(tmp_path)
    with pytest.raises(AssertionError):
        launcher.run({"task": "toy", **asked})
    assert [event["event"] for event in launcher.events[TASK]] == ["step_started", "step_failed"]
    assert launcher.events[TASK][-1]["step"] == "ingest"
    assert launcher.events[TASK][-1]["error"]["code"] == code


def test_what_was_refused_is_where_the_error_says(platform: Platform, tmp_path: Path) -> None:
    source = tmp_path / "parcels.csv"
    frame = toy_frame(200)
    frame["distance"] = frame["distance"].astype(object)
    frame.loc[frame.index[:60], "distance"] = "?"
    frame.to_csv(source, index=False)
    launcher = platform.launcher(tmp_path / "run")
    with pytest.raises(AssertionError):
        launcher.run({"task": "toy", "source": str(source)})
    error = launcher.events[TASK][-1]["error"]
    assert error["code"] == "too_many_bad_rows"
    lines = Path(error["context"]["quarantine"]).read_text().splitlines()
    assert len(lines) == 61
    assert lines[1].startswith("1,distance,?")
    assert str(error["context"]["quarantine"]) in error["fix"]


def test_a_run_leaves_its_record_and_keeps_its_name(
    platform: Platform, next_one: Launcher, record: dict[str, str], tmp_path: Path
) -> None:
    name = _recorded(next_one, record, attempt=1)["run_id"]
    launcher = platform.launcher(tmp_path, **record, FAIRLEAD_NODE=f"{NODE}(1)")  # as a pod that is started again
    launcher.run({"task": "toy", "promote": False})
    about = _recorded(launcher, record, attempt=2)
    assert about["run_id"] == name
    assert re.fullmatch(r"toy-\d{8}-\d{6}-0f3c", name)
    assert (about["task"], about["recipe"], about["promote"]) == ("toy", "tree", False)


def _recorded(launcher: Launcher, record: dict[str, str], attempt: int) -> dict[str, Any]:
    """The record of a run whose pod has run `attempt` times, after a look at it."""
    root, run = record["FAIRLEAD_RECORD"], record["FAIRLEAD_KFP_RUN"]
    about = read_run(root, run)
    assert about is not None
    assert read_bundle(result_of(launcher)["path"]).document.lineage.run == about["run_id"]
    steps = read_steps(root, run)
    assert {name: step["status"] for name, step in steps.items()} == {
        step: "finished" if step in ("ingest", "gate", "register") else "cached" for step in STEPS
    }
    assert {step["attempt"] for step in steps.values()} == {attempt}
    return about
