"""Records of earlier versions are read as what a run is asked, and runs of theirs can go on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.endpoints import Endpoints
from deploy.cli.cluster_runs.run_document import asked_of
from deploy.cli.cluster_runs.submit import parameters
from deploy.cli.runs.resume import resumed
from deploy.cli.runs.workflow import RunOptions
from pipelines.io.record import read_run, write_run
from pipelines.run import Placing, Run, shown
from pipelines.tasks import get_task, recipe_config
from pipelines.values import as_document
from tests.late import Late

api = Late("kfp_server_api")

CONFIG = as_document(recipe_config(get_task("news")))
STORED: dict[str, Any] = {
    "run_id": "news-20260102-030405-9f3c", "task": "news", "recipe": "linear", "config": CONFIG, "source": "s3://b/x.csv",
    "settings": {"resources.train.memory": "8Gi"}, "kfp_run": "3f0c", "workflow": "full-x7k2p", "code_version": "ab.cd",
    "image": "", "nonce": "n-1", "promote": False, "started": "2026-01-02T03:04:05.000+00:00", "schedule": "",
    "steps": ["ingest", "validate"], "by": "ann", "placing": {"train_gpus": 2},
}  # fmt: skip
LOCAL: dict[str, Any] = {
    "run_id": "news-1", "workflow": "full", "task": "news", "recipe": "linear", "config": CONFIG, "source": "",
    "settings": {}, "endpoints": Endpoints(home="/h").resolved().model_dump(), "nonce": "", "promote": True,
    "dataset": "", "model": "", "out": "", "status": "failed", "pid": 1, "steps": {},
    "error": None, "result": None, "attempt": 1,
}  # fmt: skip
EACH = {  # the parameters of a pipeline with a task for each step, as they were
    "task": "news", "config": json.dumps(CONFIG), "data_config": "{}", "train_config": "{}", "endpoints": "{}",
    "source": "s3://b/x.csv", "code_version": "ab.cd", "store": "", "nonce": "n-1", "checkpoints": "s3://b/c",
    "run": "news-20260102-030405-9f3c", "promote": False, "spread": "",
}  # fmt: skip


def kubeflow(given: dict[str, Any]) -> Any:
    config = api.V2beta1RuntimeConfig(parameters=given)
    return api.V2beta1Run(run_id="3f0c", display_name="x", created_at=datetime.now(UTC), runtime_config=config)


@pytest.mark.parametrize(("given", "record"), [(EACH, STORED), (EACH, None), ({"task": "news"}, STORED)])
def test_a_record_of_an_earlier_version_says_what_its_run_was_asked(
    given: dict[str, Any], record: dict[str, Any] | None
) -> None:
    asked = asked_of(kubeflow(given), record)
    for name in ("run_id", "task", "recipe", "config", "source", "nonce", "promote", "code_version"):
        assert asked[name] == STORED[name], name
    assert asked["workflow"] == "full"
    if record:
        assert (asked["by"], asked["steps"], asked["placing"]) == ("ann", ["ingest", "validate"], {"train_gpus": 2})


@pytest.mark.parametrize("tasks", ["few", "each"])
def test_a_run_of_an_earlier_version_goes_on(tasks: str, tmp_path: Any) -> None:
    where = Endpoints(home=str(tmp_path))
    options = RunOptions(overrides=["seed=9", f"workflow.tasks={tasks}"], placing=Placing(train_nodes=2))
    again = resumed(where, {**asked_of(kubeflow(EACH), STORED), "status": "failed"}, options)
    assert (again.run_id, again.config["seed"], again.nonce, again.promote) == (STORED["run_id"], 9, "n-1", False)
    assert again.settings == {"resources.train.memory": "8Gi", "workflow.tasks": tasks}
    assert again.placing == Placing(train_gpus=2, train_nodes=2)
    given = parameters(again)
    assert (given["task"], given["run"]) == ("news", STORED["run_id"])
    assert ("train_context" in given) == (tasks == "each")


def test_a_run_of_this_machine_is_read_from_either_form() -> None:
    old = Run.model_validate(shown(LOCAL))
    assert old == Run.model_validate(shown({"run_id": "news-1", "asked": old.document(), "status": "failed"}))
    assert (old.run_id, old.recipe, old.config, old.where.home) == ("news-1", "linear", CONFIG, "/h")
    assert shown(LOCAL) == LOCAL


def test_a_record_keeps_what_is_asked_below_one_name(tmp_path: Any) -> None:
    write_run(str(tmp_path), "3f0c", Run(run_id="r", task="news", placing=Placing(train_nodes=2)), {"by": "ann"})
    document = json.loads((tmp_path / "3f0c" / "run.json").read_text())
    assert document["asked"] == {"run_id": "r", "task": "news", "placing": {"train_nodes": 2}}
    assert (read_run(str(tmp_path), "3f0c") or {})["task"] == "news"
