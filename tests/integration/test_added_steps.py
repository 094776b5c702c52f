"""Steps that a task of another package adds change what later ones get, on this machine and on a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import read_bundle
from contracts.endpoints import Endpoints
from pipelines.io.record import read_run
from pipelines.run import Run
from tests.launcher import Launcher
from tests.packages import install

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
STEPS = ["ingest", "validate", "first", "build_dataset", "halve", "train", "note", "evaluate", "gate", "register"]
TASK = '''
import json
import shutil

import pandas as pd

from pipelines.task import AddedStep
from pipelines.tasks.toy import TASK as TOY

ROWS = 300


def first(config, given, out, checkpoints, progress):
    """Keep the first rows of the clean ones."""
    shutil.copytree(given["validate"], out, dirs_exist_ok=True)
    (part,) = sorted(out.glob("part-*.parquet"))
    frame = pd.read_parquet(part).head(ROWS)
    frame.to_parquet(part, index=False)
    return {"rows": len(frame)}


def halve(config, given, out, checkpoints, progress):
    """Leave every second row of training out."""
    shutil.copytree(given["build_dataset"], out, dirs_exist_ok=True)
    frame = pd.read_parquet(out / "train.parquet").iloc[::2]
    frame.to_parquet(out / "train.parquet", index=False)
    progress(1, 1)
    return {"rows": len(frame)}


def note(config, given, out, checkpoints, progress):
    """Write into the model's parameters how many rows the data set has."""
    shutil.copytree(given["train"], out, dirs_exist_ok=True)
    document = json.loads((out / "train.json").read_text())
    document["parameters"]["noted_rows"] = len(pd.read_parquet(given["build_dataset"] / "train.parquet"))
    (out / "train.json").write_text(json.dumps(document))


class Halved(type(TOY)):
    name = "halved"
    steps = {
        "first": AddedStep(after="validate", work=first),
        "halve": AddedStep(after="build_dataset", work=halve),
        "note": AddedStep(after="train", work=note, takes=("build_dataset",)),
    }


TASK = Halved()
'''


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, with_tables: Callable[[Path], Path]) -> dict[str, str]:
    """A package with the task, installed for child processes."""
    folder = tmp_path_factory.mktemp("package")
    install(folder, "halved", {"halved.py": TASK}, {"tasks": "halved = halved:TASK"})
    path = os.pathsep.join([str(ROOT / "tests" / "toy"), str(ROOT), str(folder)])
    home = Endpoints(home=str(with_tables(folder / "home"))).resolved().model_dump_json()
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "FAIRLEAD_ENDPOINTS": home}


def pipelines(environment: dict[str, str], *words: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pipelines", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"event"')]


COMPILE = """
import sys
from pipelines.__main__ import main

for tasks, *words in (["few"], ["each", "--task", "halved"], ["groups", "--task", "halved"]):
    main(["compile", "--tasks", tasks, "--out", f"{sys.argv[1]}/{tasks}", *words])
"""


@pytest.fixture(scope="module")
def compiled(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workflows of each kind of pods, in folders of their names."""
    folder = tmp_path_factory.mktemp("compiled")
    subprocess.run([sys.executable, "-c", COMPILE, str(folder)], env=environment, check=True, stdout=subprocess.DEVNULL)
    return folder


def launcher(environment: dict[str, str], made: Path, folder: Path, **more: str) -> Launcher:
    (folder / "store").mkdir()
    return Launcher(made / "full.yaml", folder / "store", {**environment, **more})


def steps(events: list[dict[str, Any]], kind: str = "step_finished") -> list[str]:
    return [event["step"] for event in events if event["event"] == kind]


def checked(events: list[dict[str, Any]]) -> dict[str, Any]:
    """That every step got what the one before it made; returns what each of them said."""
    said: dict[str, Any] = {
        event["step"]: event.get("result") for event in events if "result" in event and "step" in event
    }
    built = said["build_dataset"]["rows"]
    assert (said["first"]["rows"], sum(built.values())) == (300, 300)
    assert said["halve"] == {"rows": (built["train"] + 1) // 2}
    parameters = read_bundle(said["register"]["path"]).document.parameters
    assert parameters["noted_rows"] == said["halve"]["rows"]
    return said


def test_they_run_on_this_machine_and_come_from_the_cache(
    environment: dict[str, str], tmp_path: Path, with_tables: Callable[[Path], Path]
) -> None:
    one = Run(run_id="one", task="halved", endpoints=Endpoints(home=str(with_tables(tmp_path))))
    events = pipelines(environment, "run", one.model_dump_json())
    assert events[0]["steps"] == steps(events) == STEPS
    checked(events)
    state = json.loads((tmp_path / "runs" / "one" / "run.json").read_text())
    assert list(state["steps"]) == STEPS
    assert state["steps"]["halve"]["status"] == "finished"
    again = pipelines(environment, "run", one.having(run_id="two").model_dump_json())
    assert steps(again, "step_cached") == ["validate", "first", "build_dataset", "halve", "train", "note", "evaluate"]


def test_in_one_pod_of_a_pipeline_for_any_task(
    environment: dict[str, str], compiled: Path, tmp_path: Path, with_tables: Callable[[Path], Path]
) -> None:
    own = {"FAIRLEAD_ENDPOINTS": Endpoints(home=str(with_tables(tmp_path / "home"))).resolved().model_dump_json()}
    record = {"FAIRLEAD_RECORD": str(tmp_path / "record"), "FAIRLEAD_KFP_RUN": "kfp1", "FAIRLEAD_NODE": "full-x1.root"}
    made = launcher(environment, compiled / "few", tmp_path, **own, **record)
    made.run({"task": "halved"})
    (events,) = made.events.values()
    assert steps(events) == STEPS
    checked(events)
    about = read_run(str(tmp_path / "record"), "kfp1")
    assert about is not None
    assert about["steps"] == STEPS


ARGUMENTS = """
import json, os
from contracts.endpoints import Endpoints
from pipelines.parameters import parameters_of
from pipelines.run import Run
from pipelines.tasks import get_task, recipe_config
from pipelines.values import as_document

where = Endpoints.model_validate_json(os.environ["FAIRLEAD_ENDPOINTS"])
config = as_document(recipe_config(get_task("halved")))
print(json.dumps(parameters_of(Run(task="halved", config=config, endpoints=where), each=True)))
"""


def test_in_a_pod_for_each_step(environment: dict[str, str], compiled: Path, tmp_path: Path) -> None:
    """And a run that nobody named has one name in all of them: a schedule gives every pod the same parameters."""
    record = {"FAIRLEAD_RECORD": str(tmp_path / "record"), "FAIRLEAD_KFP_RUN": "3f0c2a52-8f9e"}
    made = launcher(environment, compiled / "each", tmp_path, **record)
    command = [sys.executable, "-c", ARGUMENTS]
    made.run(json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout))
    assert [steps(events) for events in made.events.values()] == [[step] for step in STEPS]
    assert {"added", "added_2", "added_3"} < set(made.events)
    said = checked([event for events in made.events.values() for event in events])
    known = read_run(record["FAIRLEAD_RECORD"], record["FAIRLEAD_KFP_RUN"])
    lineage = read_bundle(said["register"]["path"]).document.lineage
    assert known is not None
    assert re.fullmatch(r"halved-\d{8}-\d{6}-3f0c", lineage.run)
    assert known["run_id"] == lineage.run


def test_in_pods_of_groups(environment: dict[str, str], compiled: Path, tmp_path: Path) -> None:
    groups = launcher(environment, compiled / "groups", tmp_path)
    groups.run({"task": "halved"})
    assert {name: steps(events) for name, events in groups.events.items()} == {
        "prepare": STEPS[:5],
        "train": STEPS[5:7],
        "judge": STEPS[7:],
    }
    said = checked([event for events in groups.events.values() for event in events])
    again = Launcher(groups.file, tmp_path / "again", groups.environment)
    again.store.mkdir()
    again.run({"task": "halved", "promote": False})
    assert steps(again.events["train"], "step_cached") == ["train", "note"]
    assert checked([event for events in again.events.values() for event in events])["halve"] == said["halve"]
