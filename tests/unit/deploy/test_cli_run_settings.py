"""Settings of a run on its way from the command line to the pods, and back into commands to paste."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.cluster_runs.step_resources import memory_before, of_pods, step_needs
from deploy.cli.runs.resume import plan_resume
from deploy.cli.runs.workflow import RunOptions, plan_run
from deploy.cli.terminal.advice import new_command
from pipelines.io.record import write_run
from pipelines.resources import STEPS
from pipelines.run import Placing, Run
from pipelines.runstate import RunState

ASKED = ["resources.train.memory=8Gi", "workflow.tasks=groups"]


def planned(home: Path, *overrides: str) -> Run:
    return plan_run(Endpoints(home=str(home)), "news", options=RunOptions(overrides=overrides))


def written(run: Run, status: str) -> None:
    """The run as its runner leaves it."""
    state = RunState(run.where.path("runs") / run.run_id, run, ())
    state.end(status)


def test_the_configuration_and_so_every_cache_key_is_the_same_with_them(tmp_path: Path) -> None:
    with_them, without = planned(tmp_path, "seed=5", *ASKED), planned(tmp_path, "seed=5")
    assert with_them.config == without.config
    assert with_them.settings == {"resources.train.memory": "8Gi", "workflow.tasks": "groups"}


def test_a_wrong_one_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"resources\.train\.memory"):
        planned(tmp_path, "resources.train.memory=many")


def test_a_run_that_is_resumed_keeps_them_and_may_change_them(tmp_path: Path) -> None:
    request = planned(tmp_path, *ASKED)
    written(request, "failed")
    again = plan_resume(request.where, request.run_id)
    assert again.settings == request.settings
    changed = plan_resume(
        request.where, request.run_id, RunOptions(overrides=["resources.train.memory=16Gi", "seed=9"])
    )
    assert changed.settings == {"resources.train.memory": "16Gi", "workflow.tasks": "groups"}
    assert changed.changed == {"resources.train.memory": "16Gi", "seed": 9}
    assert changed.config["seed"] == 9
    only = plan_resume(request.where, request.run_id, RunOptions(overrides=["resources.train.memory=16Gi"]))
    assert only.config == request.config


def test_a_command_to_paste_has_them(tmp_path: Path) -> None:
    request = planned(tmp_path, "resources.train.tolerations=gpu=yes:NoSchedule", *ASKED)
    words = shlex.split(new_command(request.document(), "local", {"resources.train.memory": "16Gi", "seed": 4}))
    given = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    again = planned(tmp_path, *given)
    assert again.settings == {**request.settings, "resources.train.memory": "16Gi"}
    assert again.config["seed"] == 4


def test_gpus_of_the_option_and_of_the_settings_are_the_same(tmp_path: Path) -> None:
    by_option = step_needs(planned(tmp_path).having(placing=Placing(train_gpus=2)), {})
    by_setting = step_needs(planned(tmp_path, "resources.train.gpus=2"), {})
    assert by_option["train"] == by_setting["train"]
    assert by_option["train"].gpus == 2
    several = of_pods(by_option, Placing(train_gpus=2, train_nodes=3))
    assert (several["train"].gpus, several["train"].memory) == (0, STEPS["train"].memory)
    assert several["train"].place() != several["evaluate"].place()


def test_a_task_may_say_what_its_steps_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.tasks import get_task

    task = get_task("news")
    monkeypatch.setattr(type(task), "resources", {"train": {"memory": "6Gi", "cpu": 2}}, raising=False)
    needs = step_needs(planned(tmp_path), {})
    assert (needs["train"].memory, needs["train"].cpu, needs["gate"].memory) == ("6Gi", "2", STEPS["gate"].memory)
    assert step_needs(planned(tmp_path, ASKED[0]), {})["train"].memory == "8Gi"
    monkeypatch.setattr(type(task), "resources", {"trane": {"memory": "6Gi"}})
    with pytest.raises(PlatformError, match=r"resources\.trane\.memory"):
        step_needs(planned(tmp_path), {})


def test_memory_of_the_run_before_is_asked_for_with_room(tmp_path: Path) -> None:
    root, request = str(tmp_path / "records"), planned(tmp_path)

    def record(kfp_run: str, peak: int | None, recipe: str = request.recipe) -> None:
        write_run(root, kfp_run, Run(task="news", recipe=recipe), {})
        said = {"step": "train", "status": "finished", "memory_peak": peak}
        (tmp_path / "records" / kfp_run / "train.json").write_text(json.dumps(said))

    assert memory_before(root, request.recipe, []) == {}
    assert memory_before(root, request.recipe, ["r-1"]) == {}
    record("r-1", 3 * 2**30)
    record("r-2", 4 * 2**30)
    record("r-3", None)
    record("r-4", 9 * 2**30, "other")
    before = memory_before(root, request.recipe, ["r-5", "r-4", "r-3", "r-1", "r-2"])
    assert before == {"train": 3 * 2**30}
    assert step_needs(request, before)["train"].memory == "4608Mi"
    assert step_needs(planned(tmp_path, ASKED[0]), before)["train"].memory == "8Gi"


def test_a_store_that_is_away_is_no_reason_not_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:1"), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(f"AWS_{name}", value)
    assert memory_before("s3://lake/data/.runs", "linear", ["r-1", "r-2"]) == {}
