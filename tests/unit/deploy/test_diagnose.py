"""What ``fairlead diagnose`` and ``fairlead status`` tell of releases in which no pod fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from contracts.rollout_policy import RolloutPolicy
from deploy.cli.cluster.cluster_settings import Cluster, Profile
from deploy.cli.releases.diagnose import run_diagnose
from deploy.cli.releases.release_values import first_values
from deploy.cli.releases.unlogged import unlogged
from services.rollout.evidence import Verdict
from services.rollout.state import new_rollout
from services.rollout.store import Place, Served

PROFILE = Profile(predictions="s3://ours/predictions", cluster=Cluster())
OLD = {"model": {"name": "card_fraud", "version": "3"}, "storage": {"existingSecret": "fairlead-s3"}}


def test_a_release_that_logs_nowhere_is_told_with_the_values_that_a_new_one_would_have() -> None:
    found = unlogged("card-fraud", OLD, PROFILE, "cluster")
    assert found is not None
    assert found.said.startswith("card-fraud does not log its predictions")
    added = json.loads(found.fix.partition(".yaml: ")[2].partition(", then ")[0])
    new = first_values(PROFILE, features=False)
    assert added == {name: new[name] for name in ("config", "secrets")}
    assert "fairlead deploy card_fraud:3 --env cluster" in found.fix
    assert unlogged("card-fraud", OLD | added, PROFILE, "cluster") is None, "the fix ends it"


@pytest.mark.parametrize(
    ("values", "predictions"),
    [
        ({"config": {"predictions": {"folder": ""}}}, "s3://ours/predictions"),  # somebody wants it so
        ({"storage": {"embedded": True}}, "s3://ours/predictions"),  # the chart says where
        ({}, "/predictions"),  # of this machine, which no pod has
    ],
)
def test_nothing_is_told_where_nothing_is_amiss(values: dict[str, Any], predictions: str) -> None:
    profile = Profile(predictions=predictions, cluster=Cluster())
    assert unlogged("card-fraud", OLD | values, profile, "cluster") is None


@pytest.fixture
def namespace(programs: Any, tmp_path: Path) -> Any:
    """A namespace with one release whose keeper has written a text."""

    def with_state(text: str) -> None:
        maps = [{"metadata": {"name": "fraud-rollouts"}, "data": {"served.json": text}}]
        (tmp_path / "maps.json").write_text(json.dumps({"items": maps}))
        (tmp_path / "none.json").write_text('{"items": []}')
        released = [{"name": "fraud", "chart": "model-service-0.1.0", "status": "deployed", "revision": "1"}]
        programs("kubectl", f'case "$*" in *configmaps*) cat {tmp_path}/maps.json;; *) cat {tmp_path}/none.json;; esac')
        programs("helm", f"case \"$*\" in *values*) echo '{json.dumps(OLD)}';; *) echo '{json.dumps(released)}';; esac")

    (tmp_path / "far.yaml").write_text("predictions: s3://ours/predictions\ncluster: {prometheus: ''}\n")
    return with_state


def test_a_rollout_is_told_with_its_phase_its_reasons_and_its_evidence(
    namespace: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = Verdict(criterion="errors", says="worse", champion=0.0, candidate=0.2, worse=40, worse_needed=20)
    rollout = new_rollout("r", "fraud", "1", "2", "canary", RolloutPolicy(), 0.0).model_copy(
        update={"phase": "rolled_back", "reasons": ("fails more often",), "verdicts": (judged,)}
    )
    served = Served(model="fraud", version="1", places={"1": Place(source="s3://m/1", digest="1f")}, rollout=rollout)
    namespace(served.model_dump_json())
    run_diagnose(str(tmp_path / "far.yaml"), None, True)
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    (one,) = told["rollouts"]
    assert (one["rollout"]["phase"], one["rollout"]["reasons"]) == ("rolled_back", ["fails more often"])
    assert [(v["criterion"], v["says"]) for v in one["rollout"]["verdicts"]] == [("errors", "worse")]
    assert [remark["release"] for remark in told["remarks"]] == ["fraud"]
    run_diagnose(str(tmp_path / "far.yaml"), "fraud", False)
    page = capsys.readouterr().out
    for words in ("Nothing is wrong", "fraud:2, canary: rolled back", "fails more often", "does not log its"):
        assert words in page


def test_a_state_that_cannot_be_read_is_a_trouble_with_its_cure(
    namespace: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace('{"model": 3}')
    with pytest.raises(typer.Exit) as ended:
        run_diagnose(str(tmp_path / "far.yaml"), None, True)
    assert ended.value.exit_code == 1
    (trouble,) = json.loads(capsys.readouterr().out)["troubles"]
    assert (trouble["what"], trouble["state"]) == ("configmap/fraud-rollouts", "cannot be read")
    assert "remove its key served.json" in trouble["fix"]
