"""A run whose features pods of Ray compute, which its step makes: equal rows though they and their head are lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contracts import storage
from contracts.endpoints import Endpoints
from pipelines.data_engines import VARIABLE
from pipelines.run import Placing, Run
from pipelines.task import dump_config
from pipelines.tasks import get_task, recipe_config
from tests.e2e.spaces import apply, kubectl, need_image, space_of_steps
from tests.e2e.test_cluster_run import reach_storage, step_pod

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
IMAGE = "ghcr.io/fairlead/pipelines:0.1.0-torch"  # it has Ray too
STEP, WORKFLOW = "prepare-train-judge", "full-abcde"
WORKERS = ("-l", "app.kubernetes.io/component=data-workers")
SETTINGS = {"gate.max_latency_ms": 500}  # this machine has much else to do
ENGINE = {"data.engine": "ray", "data.workers": 2, "data.memory": "1Gi"}
WHERE = Endpoints(home="/tmp/fairlead", **{name: f"s3://fairlead/{name}" for name in ("data", "artifacts", "features")})
# In the pod of the step: the process without which there is no Ray.
_LOSE_HEAD = """
import os, pathlib
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    if b"gcs_server" in (entry / "cmdline").read_bytes().split(b"\\0")[0]:
        os.kill(int(entry.name), 9)
        print("killed")
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    with space_of_steps("workers") as name:
        yield name


def test_pods_of_ray_give_the_rows_of_one_process_though_they_and_their_head_are_lost(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_image(IMAGE)
    config = dump_config(recipe_config(get_task("fraud"), "logistic", SETTINGS))
    apply(namespace, step_of_run(namespace, config, tmp_path))
    expected = by_one_process(config, tmp_path / "here")

    told_until(namespace, at_work("materialise"))
    lost = names_of_workers(namespace)  # what is left is done by pods that the Job makes in their place
    kubectl("-n", namespace, "delete", "pod", *lost, "--grace-period=0", "--force")
    told_until(namespace, at_work("build_dataset"))
    inside = ("exec", f"step-{STEP}", "-c", "main", "--", "python", "-c", _LOSE_HEAD)
    assert kubectl("-n", namespace, *inside).split() == ["killed"]
    told = told_until(namespace, lambda event: event["event"] == "step_finished" and event["step"] == "build_dataset")

    assert [one for one in told if "the head of Ray was lost" in one.get("message", "")]
    reach_storage(namespace, monkeypatch)
    for name, rows in expected.items():
        (file,) = [
            item.uri for item in storage.listing("s3://fairlead/data") if item.uri.endswith(f"out/{name}.parquet")
        ]
        here = tmp_path / f"{name}.parquet"
        here.write_bytes(storage.read_bytes(file))
        pd.testing.assert_frame_equal(pd.read_parquet(here), rows, check_exact=True)
    assert not [item.uri for item in storage.listing("s3://fairlead/data/.parts")]
    left = kubectl("-n", namespace, "get", "jobs,networkpolicies", "-o", "name").split()
    assert not [name for name in left if "/data-" in name], "they end with the step"


def step_of_run(namespace: str, config: str, folder: Path) -> Any:
    """The pod that prepares, trains and judges, as the command line and Kubeflow make it, with smaller workers."""
    run = Run(task="fraud", config=json.loads(config), settings=ENGINE, placing=Placing(image=IMAGE), endpoints=WHERE)
    asked = {"task": "fraud", "config": config, "endpoints": WHERE.model_dump_json()}
    pod = step_pod(namespace, STEP, asked, folder, tasks="few", run="", asked=run)
    pod["metadata"]["labels"]["workflows.argoproj.io/workflow"] = WORKFLOW
    pod["spec"] |= {"serviceAccountName": "pipeline-runner", "automountServiceAccountToken": True}
    (main,) = pod["spec"]["containers"]
    main["resources"]["requests"] = {"cpu": "100m", "memory": "256Mi"}
    (engine,) = [item for item in main["env"] if item["name"] == VARIABLE]
    told = json.loads(engine["value"])
    told["pods"]["cpu"] = "200m"  # a node of two cores has all of them
    engine["value"] = json.dumps(told)
    return pod


def by_one_process(config: str, folder: Path) -> dict[str, pd.DataFrame]:
    """The training set of the same rows without an engine."""
    from pipelines.steps.build_dataset import build_dataset
    from pipelines.steps.ingest import ingest
    from pipelines.steps.materialise import materialise
    from pipelines.steps.validate import validate

    data, clean, features, made = (str(folder / name) for name in ("data", "clean", "features.json", "made"))
    where = Endpoints(home=str(folder)).resolved()
    version = ingest("fraud", config, "", data, str(folder / "manifest"))
    validate("fraud", config, str(folder / "manifest"), clean)
    materialise("fraud", config, clean, version, where.model_dump_json(), features)
    build_dataset("fraud", config, clean, features, made)
    return {name: pd.read_parquet(Path(made) / f"{name}.parquet") for name in ("train", "valid", "test")}


def at_work(step: str) -> Callable[[dict[str, Any]], bool]:
    """Whether workers have done a first piece of a step's work."""
    return lambda event: event.get("step") == step and "workers" in event


def told_until(namespace: str, found: Callable[[dict[str, Any]], bool], most: float = 240) -> list[dict[str, Any]]:
    """The events of the step's pod, once one of them is what was waited for."""
    until = time.monotonic() + most
    while True:
        log = kubectl("-n", namespace, "logs", f"step-{STEP}", check=False)
        events = [json.loads(line) for line in log.splitlines() if line.startswith('{"event"')]
        if any(map(found, events)):
            return events
        if time.monotonic() > until or any(event["event"] == "step_failed" for event in events):
            pytest.fail(log[-3000:] + kubectl("-n", namespace, "get", "pods,jobs,events"))
        time.sleep(0.3)


def names_of_workers(namespace: str) -> list[str]:
    return kubectl("-n", namespace, "get", "pods", *WORKERS, "-o", "jsonpath={.items[*].metadata.name}").split()
