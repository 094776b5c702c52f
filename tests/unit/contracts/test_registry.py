"""The registry on a real MLflow with SQLite: nothing is promoted around the gate, rollback really rolls back."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from contracts.bundle import Bundle
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.registry import Registry, parse_ref
from contracts.registry_file import open_file
from contracts.tracking import check_experiment, track_nested, track_run

Make = Callable[..., Bundle]
REFUSED = {"passed": False, "checks": [], "reasons": ["roc_auc 0.5 is below 0.7"]}


@pytest.fixture
def registry(tmp_path: Path, registry_tables: Path) -> Registry:
    shutil.copy(registry_tables, tmp_path / "mlflow.db")
    return Registry(Endpoints(home=str(tmp_path)))


def test_asking_a_registry_that_is_not_there_makes_none(tmp_path: Path) -> None:
    assert not Registry(Endpoints(home=str(tmp_path))).names()
    assert not (tmp_path / "mlflow.db").exists()


def test_publishing_twice_gives_one_version(registry: Registry, make_bundle: Make) -> None:
    first = registry.publish(make_bundle(), run_id="")
    assert registry.publish(make_bundle()) == first
    assert [v.version for v in registry.versions("churn")] == ["1"]
    assert first.metrics == {"roc_auc": 0.8}


def test_references_resolve_to_versions(registry: Registry, make_bundle: Make) -> None:
    registry.publish(make_bundle())
    registry.publish(make_bundle(recipe="other"))
    registry.promote("churn:1")
    registry.set_alias("churn:2", "challenger")
    assert registry.resolve("churn").version == registry.resolve("churn@champion").version == "1"
    assert registry.resolve("churn@challenger").version == registry.resolve("churn:2").version == "2"


@pytest.mark.parametrize("ref", ["nobody", "churn:9", "churn@nobody", "churn"])
def test_an_unknown_reference_lists_what_there_is(registry: Registry, make_bundle: Make, ref: str) -> None:
    registry.publish(make_bundle())
    with pytest.raises(PlatformError) as caught:
        registry.resolve(ref)
    assert caught.value.code == "unknown_model"
    assert "churn" in caught.value.detail


@pytest.mark.parametrize("ref", ["", "a b", "churn:x", "churn:1@champion", "churn';--"])
def test_what_is_no_reference_is_refused(ref: str) -> None:
    with pytest.raises(PlatformError):
        parse_ref(ref)


def test_the_gate_cannot_be_walked_around(registry: Registry, make_bundle: Make) -> None:
    registry.publish(make_bundle(gate=REFUSED))
    for attempt in (
        lambda: registry.promote("churn:1"),
        lambda: registry.promote("churn:1", override="   "),
        lambda: registry.set_alias("churn:1", "champion"),
    ):
        with pytest.raises(PlatformError) as caught:
            attempt()
        assert caught.value.code == "gate"
    assert registry.versions("churn")[0].aliases == ()


def test_an_edited_registry_tag_does_not_open_the_gate(registry: Registry, make_bundle: Make) -> None:
    registry.publish(make_bundle(gate=REFUSED))
    registry._client.set_model_version_tag("churn", "1", "gate", "passed")
    with pytest.raises(PlatformError, match="the gate refused"):
        registry.promote("churn:1")


def test_an_override_is_recorded_with_its_reason(registry: Registry, make_bundle: Make) -> None:
    registry.publish(make_bundle(gate=REFUSED))
    assert registry.promote("churn:1", override="agreed with risk").override.endswith("agreed with risk")


def test_rollback_returns_to_the_previous_champion(registry: Registry, make_bundle: Make) -> None:
    for recipe in ("one", "two", "three"):
        registry.publish(make_bundle(recipe=recipe))
    for version in ("1", "2", "3", "3"):
        registry.promote(f"churn:{version}")
    assert registry.rollback("churn").version == "2"
    assert registry.rollback("churn").version == "1"
    with pytest.raises(PlatformError, match="nothing to roll churn back to"):
        registry.rollback("churn")
    assert registry.resolve("churn").version == "1"


def test_a_damaged_bundle_is_neither_promoted_nor_fetched(registry: Registry, make_bundle: Make) -> None:
    bundle = make_bundle()
    registry.publish(bundle)
    (bundle.path / "model" / "model.txt").write_text("tree!\n")
    for attempt in (registry.promote, registry.fetch):
        with pytest.raises(PlatformError) as caught:
            attempt("churn:1")
        assert caught.value.code == "bad_bundle"


def test_a_swapped_bundle_is_noticed_by_its_digest(registry: Registry, make_bundle: Make) -> None:
    bundle = make_bundle()
    registry.publish(bundle)
    other = make_bundle(recipe="other")
    shutil.rmtree(bundle.path)
    shutil.copytree(other.path, bundle.path)
    for read in (registry.fetch, registry.document):
        with pytest.raises(PlatformError, match="bundle refused"):
            read("churn:1")


def test_what_a_bundle_says_of_itself_needs_no_other_of_its_files(registry: Registry, make_bundle: Make) -> None:
    bundle = make_bundle()
    registry.publish(bundle)
    shutil.rmtree(bundle.path / "model")
    assert registry.document("churn:1") == bundle.document


def test_a_run_keeps_parameters_metrics_curves_and_files(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "plots"
    folder.mkdir()
    (folder / "curve.png").write_bytes(b"png")
    run_id, page = track_run(
        registry.endpoints, "churn", "first", {"rounds": 3}, {"auc": 0.7}, [{"loss": 2.0}, {"loss": 1.0}], folder
    )
    run = registry._client.get_run(run_id)
    assert run.data.params == {"rounds": "3"}
    assert run.data.metrics == {"auc": 0.7, "curve.loss": 1.0}
    assert [m.value for m in registry._client.get_metric_history(run_id, "curve.loss")] == [2.0, 1.0]
    assert [f.path for f in registry._client.list_artifacts(run_id)] == ["curve.png"]
    assert run.info.status == "FINISHED"
    assert page.endswith(f"/runs/{run_id}")


def test_trials_of_a_search_are_runs_below_the_run(registry: Registry) -> None:
    """As MLflow's pages nest them: by the tag of the parent."""
    parent, _ = track_run(registry.endpoints, "churn", "first", {}, {})
    done = ("trial 0", {"model.c": 0.1, "note": "x" * 600}, {"valid.roc_auc": 0.8}, "tried")
    track_nested(registry.endpoints, "churn", parent, [done, ("trial 1", {"model.c": 9.0}, {}, "failed")])
    client = registry._client
    experiment = client.get_experiment_by_name("churn").experiment_id
    found = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{parent}'", order_by=["attributes.run_name"]
    )
    assert [run.info.run_name for run in found] == ["trial 0", "trial 1"]
    assert [run.info.status for run in found] == ["FINISHED", "FAILED"]
    assert [run.data.tags["trial"] for run in found] == ["tried", "failed"]
    assert [run.data.metrics for run in found] == [{"valid.roc_auc": 0.8}, {}]
    assert [run.data.params["model.c"] for run in found] == ["0.1", "9.0"]
    assert found[0].data.params["note"] == "x" * 500
    assert len(client.search_runs([experiment])) == 3


def test_the_file_is_read_as_mlflow_reads_it(registry: Registry, make_bundle: Make, monkeypatch: Any) -> None:
    registry.publish(make_bundle())
    registry.publish(make_bundle(recipe="other"))
    registry.promote("churn:1")
    registry.set_alias("churn:2", "challenger")
    quick = registry.names(), registry.versions("churn"), registry.versions("nobody")
    monkeypatch.setattr("contracts.registry.open_file", lambda tracking: None)
    mlflow = Registry(registry.endpoints)
    assert (mlflow.names(), mlflow.versions("churn"), mlflow.versions("nobody")) == quick


def test_a_file_with_other_tables_is_left_to_mlflow(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE registered_models (name TEXT)")
    assert open_file(f"sqlite:///{file}") is None
    (tmp_path / "text.db").write_text("no database, but text of some length " * 40)
    assert open_file(f"sqlite:///{tmp_path}/text.db") is None
    assert open_file("http://127.0.0.1:5000") is None


def test_models_of_others_in_the_same_registry_do_not_disturb(registry: Registry, make_bundle: Make) -> None:
    client = registry._client
    client.create_registered_model("Churn v2 (draft)", tags={"owner": "somebody"})
    client.create_model_version("Churn v2 (draft)", source="/tmp", run_id=None)
    registry.publish(make_bundle())
    theirs = client.create_model_version("churn", source="/tmp", run_id=None)
    client.set_registered_model_alias("churn", "production", theirs.version)
    registry.publish(make_bundle(recipe="other"))
    assert registry.names() == ["churn"]
    assert [version.version for version in registry.versions("churn")] == ["3", "1"]
    assert registry.promote("churn:3").version == registry.resolve("churn").version == "3"
    for foreign in ("churn:2", "churn@production"):
        with pytest.raises(PlatformError) as caught:
            registry.resolve(foreign)
        assert caught.value.code == "unknown_model"
    assert client.get_registered_model("Churn v2 (draft)").tags == {"owner": "somebody"}


def test_a_deleted_experiment_is_named_and_its_cure_works(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    track_run(registry.endpoints, "churn", "first", {}, {})
    check_experiment(registry.endpoints, "churn")
    client = registry._client
    client.delete_experiment(client.get_experiment_by_name("churn").experiment_id)
    for attempt in (
        lambda: check_experiment(registry.endpoints, "churn"),
        lambda: track_run(registry.endpoints, "churn", "second", {}, {}),
    ):
        with pytest.raises(PlatformError) as caught:
            attempt()
        assert caught.value.code == "deleted_experiment"
    setting, program, *arguments = shlex.split(caught.value.fix.removeprefix("restore it: "))
    monkeypatch.setenv(*setting.split("=", 1))
    script, *_ = entry_points(group="console_scripts", name=program)  # of mlflow and of mlflow-skinny
    assert CliRunner().invoke(script.load(), arguments).exit_code == 0
    track_run(registry.endpoints, "churn", "second", {}, {})
