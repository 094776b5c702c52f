"""Plans for a cluster: corrected by what its own runs took."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.cluster.cluster_settings import Cluster, Profile
from deploy.cli.cluster_runs import access, lookup
from deploy.cli.training import plan_places as places
from pipelines import planned
from pipelines.run import Run
from tests.unit.pipelines.test_planned import a_plan, record


def test_runs_of_a_cluster_correct_plans_for_it_and_none_of_this_machine(
    toy: Any, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = Endpoints(home=str(tmp_path / "home")).resolved()
    run = Run(run_id="toy-1", task="toy", recipe="tree", config=json.loads(toy_config()), endpoints=where)
    planned.write_plan(run.where, planned.key_of(run), a_plan(run))
    listed = [record(run, name, 5.0, 1.5) for name in ("toy-3", "toy-2")]
    listed[0]["started"] = "2026-02-02T00:00:00.000+00:00"
    listed[0]["recipe"] = listed[1]["recipe"] = run.config["recipe"]
    more = {**listed[0], "run_id": "toy-1", "recipe": "another"}
    asked = list[str]()

    def look(_: Any, found: Any) -> dict[str, Any]:
        asked.append(found)
        return next(one for one in listed if one["run_id"] == found)

    monkeypatch.setattr(access, "open_access", lambda profile: None)
    monkeypatch.setattr(lookup, "list_runs", lambda *_: [*listed, more])
    monkeypatch.setattr(lookup, "find_run", lambda _, name: name)
    monkeypatch.setattr(lookup, "look_at", look)
    records = places.cluster_records(Profile(cluster=Cluster()), run, lambda text: None)
    assert asked == ["toy-3", "toy-2"], "of this recipe, the newest first"
    found = planned.wrong_before(run.where, "toy", "tree", records, planned.CLUSTER)
    assert [(one["run"], one["place"]) for one in found] == [("toy-2", "cluster"), ("toy-3", "cluster")]
    assert planned.correction(found, "seconds") == pytest.approx(2.5)
    planned.write_plan(run.where, planned.key_of(run), a_plan(run, wrong=found, made="2026-03-01"))
    assert planned.wrong_before(run.where, "toy", "tree", [], planned.CLUSTER) == found
    assert planned.wrong_before(run.where, "toy", "tree", []) == [], "a pod may be faster or slower than this machine"

    def away(*_: Any) -> Any:
        raise PlatformError("Kubeflow does not answer", fix="see", code="kfp")

    said = list[str]()
    monkeypatch.setattr(lookup, "list_runs", away)
    assert places.cluster_records(Profile(cluster=Cluster()), run, said.append) == []
    assert said == ["-- runs of the cluster correct nothing: Kubeflow does not answer"]
