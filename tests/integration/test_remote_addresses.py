"""The steps of a run in processes that share nothing but S3 and an MLflow server, as the pods of a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from contracts import storage
from contracts.bundle import read_bundle
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.registry import Registry
from tests.launcher import Launcher
from tests.servers import mlflow_server, s3_server

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy"


@dataclass(frozen=True)
class Shared:
    """What the processes share: addresses, and the variables of their clients."""

    endpoints: Endpoints
    environment: dict[str, str]
    workflows: Path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    from pipelines.resources import Placement
    from pipelines.tasks import get_task
    from pipelines.workflows import compile_workflows

    folder = tmp_path_factory.mktemp("remote")
    placement = Placement(cluster=True, tasks="each", image="registry/pipelines:1")
    compile_workflows(folder / "workflows", placement, task=get_task("news"))  # which has no features either
    with s3_server(folder, "lake", "tracking") as s3, mlflow_server(folder, s3, "tracking") as server:
        patch = pytest.MonkeyPatch()
        for name, value in s3.items():
            patch.setenv(name, value)
        path = os.pathsep.join([str(TOY), str(ROOT)])
        environment = {**s3, "PATH": os.environ["PATH"], "PYTHONPATH": path}
        # A relative home: every step's scratch is in its own folder.
        places = {name: f"s3://lake/{name}" for name in ("data", "artifacts", "features", "predictions")}
        yield Shared(Endpoints(home="scratch", tracking=server, **places), environment, folder / "workflows")
        patch.undo()


def arguments(shared: Shared, run: str, workflow: str = "full", **changes: Any) -> dict[str, Any]:
    sys.path.insert(0, str(TOY))
    from toy_task import TASK

    from pipelines.steps.calls import contexts, graph, named_inputs
    from pipelines.values import as_document

    config = as_document(TASK.recipes["tree"])
    values = {
        "task": "toy",
        "config": config,
        "train_config": config,
        "data_config": config,
        "endpoints": shared.endpoints.model_dump(),
        "checkpoints": "s3://lake/data/.checkpoints",
        "steps": "s3://lake/data/.steps",
        "code_version": code_of_toy(),
        "run": run,
        "promote": True,
        **dict.fromkeys(("source", "store", "forgotten", "beside", "nonce", "hub", "ledger", "distributed_job"), ""),
        **changes,
    }
    steps = graph(workflow, TASK)
    told = {f"{step}_context": text for step, text in contexts(steps, values).items()}
    return {"task": "toy", **told, **{name: values[name] for name in named_inputs(steps)}}


def code_of_toy() -> str:
    from pipelines.code_version import code_version

    code_version.cache_clear()
    return code_version("toy")


@pytest.fixture(scope="module")
def first(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    launcher = Launcher(shared.workflows / "full.yaml", tmp_path_factory.mktemp("store"), shared.environment)
    launcher.run(arguments(shared, "toy-remote-1"))
    return launcher


def test_a_run_needs_no_shared_disk(shared: Shared, first: Launcher, tmp_path: Path) -> None:
    result = first.events["register"][-1]["result"]
    assert (result["name"], result["champion"], result["gate_passed"]) == ("toy", True, True)
    assert result["path"] == f"s3://lake/artifacts/toy/{result['digest'][:12]}"
    assert first.outputs["ingest"]["dataset"].startswith("s3://lake/data/toy/")
    here = Registry(shared.endpoints.model_copy(update={"home": str(tmp_path)}))
    version = here.resolve("toy@champion")
    assert version.path == result["path"]
    bundle = here.fetch("toy@champion")
    assert (bundle.digest, bundle.document.lineage.run) == (version.digest, "toy-remote-1")
    assert read_bundle(bundle.path).path.is_relative_to(tmp_path)


_LOST = """
import sys
from pipelines.steps import train
from pipelines.io import remote
remote._COPY_SECONDS = 0.1
train.train("toy", sys.argv[1], sys.argv[2], "s3://lake/lost", sys.argv[3])
"""


def test_a_training_whose_machine_is_lost_goes_on_from_its_checkpoint(
    shared: Shared, first: Launcher, tmp_path: Path
) -> None:
    from toy_task import TASK, ToyModel

    from pipelines.task import dump_config

    config = dump_config(replace(TASK.recipes["tree"], model=ToyModel(rounds=20, pause=0.1)))
    dataset = first.store / "build-dataset" / "dataset"
    command = [sys.executable, "-c", _LOST, config, str(dataset)]
    with subprocess.Popen([*command, str(tmp_path / "one")], env=shared.environment) as lost:
        until = time.monotonic() + 60
        while "done.txt" not in storage.list_names("s3://lake/lost") and time.monotonic() < until:
            time.sleep(0.05)
        lost.kill()
    done = int(storage.read_bytes("s3://lake/lost/done.txt"))
    subprocess.run([*command, str(tmp_path / "two")], env=shared.environment, check=True)
    assert json.loads((tmp_path / "two" / "train.json").read_text())["parameters"]["resumed_after"] == done > 0
    assert storage.list_names("s3://lake/lost") == [], "the next training starts afresh"


def test_artifacts_of_the_tracked_run_are_in_s3_by_the_server(first: Launcher) -> None:
    stored = [p for p in storage.list_names("s3://tracking/mlflow") if p]
    assert stored


def test_the_same_source_is_read_once_and_the_champion_is_compared_with(
    shared: Shared, first: Launcher, tmp_path: Path
) -> None:
    again = Launcher(shared.workflows / "full.yaml", tmp_path, shared.environment)
    again.run(arguments(shared, "toy-remote-2"))
    assert again.outputs["ingest"] == first.outputs["ingest"]
    assert not [e for e in again.events["ingest"] if e["event"] == "progress"]  # known by its fingerprint
    decision = json.loads((tmp_path / "gate" / "decision").read_text())
    assert decision["champion"] == "toy:1"


def test_a_source_in_s3_is_read_and_scored_from_there(shared: Shared, first: Launcher, tmp_path: Path) -> None:
    storage.write_bytes("s3://lake/incoming/rows.csv", b"distance,stops,kind\n10,0,box\n950,,pallet\n")
    platform = {"FAIRLEAD_ENDPOINTS": shared.endpoints.model_dump_json()}
    scoring = Launcher(shared.workflows / "batch_scoring.yaml", tmp_path, shared.environment | platform)
    scoring.run({"model": "toy@champion", "source": "s3://lake/incoming/rows.csv"})
    summary = json.loads((tmp_path / "batch-score" / "scores" / "summary.json").read_text())
    assert (summary["rows"], summary["labels"]) == (2, {"no": 1, "yes": 1})


def test_an_image_of_other_code_is_refused_before_anything_is_done(shared: Shared, tmp_path: Path) -> None:
    run = Launcher(shared.workflows / "ingestion.yaml", tmp_path, shared.environment)
    given = arguments(shared, "toy-other", "ingestion", code_version="0123456789abcdef.00000000")
    with pytest.raises(AssertionError, match="other code than the run was started with"):
        run.run(given)
    assert [event["event"] for event in run.events["ingest"]] == ["step_started", "step_failed"]
    assert run.events["ingest"][-1]["error"]["code"] == "other_code"


def test_a_bundle_damaged_in_s3_is_refused(shared: Shared, first: Launcher, tmp_path: Path) -> None:
    here = Registry(shared.endpoints.model_copy(update={"home": str(tmp_path)}))
    version = here.resolve("toy:1")
    golden = storage.join(version.path, "golden.jsonl")
    whole = storage.read_bytes(golden)
    storage.write_bytes(golden, whole + b"\n")
    try:
        with pytest.raises(PlatformError, match="bundle refused") as caught:
            here.fetch("toy:1")
        assert "golden.jsonl has sha256" in caught.value.detail
    finally:
        storage.write_bytes(golden, whole)
    assert here.fetch("toy:1").digest == version.digest  # the damaged copy is replaced


_ASKED = """
import sys
from contracts.endpoints import Endpoints
from contracts.registry import Registry
print(Registry(Endpoints(home=".", tracking=sys.argv[1])).names(), "feast" in sys.modules)
"""


def test_a_tracking_server_is_asked_without_feasts_headers(shared: Shared, first: Launcher, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ASKED, shared.endpoints.tracking]
    said = subprocess.run(command, env=shared.environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.split("\n")[-2] == "['toy'] False"


def test_a_tracking_server_that_is_gone_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="does not answer") as caught:
        Registry(Endpoints(home=str(tmp_path), tracking="http://127.0.0.1:1")).names()
    assert "FAIRLEAD_TRACKING" in caught.value.fix
