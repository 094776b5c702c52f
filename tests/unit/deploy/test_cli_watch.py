"""fairlead watch: what it refuses, what people say to it, which runs it asks, and what it sees and exports."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from contracts import storage
from contracts.audit import AuditLog
from contracts.bundle import Bundle
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.lease import Lease
from contracts.loop_policy import LoopPolicy
from contracts.rollout_policy import RolloutPolicy
from deploy.cli.loop.hands import ProfileHands
from deploy.cli.loop.planned_run import plan, source_of
from deploy.cli.loop.runs import ClusterRuns, LocalRuns
from deploy.cli.loop.sources import look_at_source
from deploy.cli.loop.watch import Watch, WatchOptions, loop_place
from deploy.cli.profiles.loading import load_endpoints, load_profile
from services.controller.run_metrics import RunMetrics
from services.controller.state import States, WatchState
from services.rollout.state import new_rollout
from services.rollout.store import Served, Store
from tests.argo import Scenario, grouped
from tests.kfp_stand_in import StandIn
from tests.s3_folder import FolderClient
from tests.unit.deploy.test_cli_promotion import FakeRegistry, document

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
DOCUMENT = document(
    recipe="lightgbm",
    loop={"cooldown_hours": 6},
    lineage={"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "x", "run": "fraud-1"},
)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.registry.Registry", FakeRegistry)
    monkeypatch.setattr(FakeRegistry, "fetch", lambda *_: Bundle(Path("/nowhere"), DOCUMENT, "0" * 64))


@pytest.fixture
def states(endpoints: Endpoints) -> States:
    return States(loop_place(endpoints))


def known(**fields: Any) -> WatchState:
    return WatchState(model="fraud", task="fraud", since=NOW, **fields)


def test_one_look_shows_state_reason_and_the_runs_of_the_week(fairlead: Callable[..., Any], registry: None) -> None:
    said = fairlead("watch", "--once")
    assert [line.split() for line in said.out.splitlines() if "fraud" in line] == [
        ["fraud", "watching", "no", "report", "of", "the", "monitor", "-", "0/3"]
    ]
    (line,) = fairlead("watch", "fraud", "--once", "--set", "loop.runs_per_week=7", "--json").json
    assert (line["policy"]["cooldown_hours"], line["policy"]["runs_per_week"]) == (6, 7)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "loop.cooldown_hours=0"], "loop.cooldown_hours: got 0; Input should be greater than 0"),
        (["--set", "loop.on_drfit=1"], "loop.on_drfit: got 1; Extra inputs are not permitted"),
        (["--set", "split.train_days=3"], "--set split.train_days: not of the loop's policy"),
        (["approve"], "which model?"),
        (["approve", "fraud"], "it was never watched"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    fairlead: Callable[..., Any], registry: None, words: list[str], said: str
) -> None:
    found = fairlead("watch", *words, "--once")
    assert (found.code, said in found.err) == (1, True)


def test_a_champion_whose_bundle_cannot_be_read_is_said_once_and_the_others_are_watched(
    home: Path, registry: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = PlatformError("bundle refused: s3://b/1", detail="news: not permitted", fix="", code="bad_bundle")

    def document(self: FakeRegistry, ref: str) -> Any:
        raise newer

    monkeypatch.setattr(FakeRegistry, "document", document)
    monkeypatch.setattr(FakeRegistry, "resolve", lambda self, ref: self._version("2"))
    watch = Watch("local", ["fraud"], WatchOptions())
    assert [watch.one_pass(), watch.one_pass()] == [[], []]
    said = capsys.readouterr().err
    assert said.count("fraud:2 is not watched: bundle refused") == 1
    assert "news: not permitted" in said


def test_a_model_that_is_not_there_and_a_registry_without_champions_are_named(fairlead: Callable[..., Any]) -> None:
    assert "no model 'fraud'" in fairlead("watch", "fraud", "--once").err
    assert "no model to watch" in fairlead("watch", "--once").err


def test_a_watch_of_all_models_may_come_before_the_first_one(
    endpoints: Endpoints, registry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, shown = Watch("local", [], WatchOptions(interval=1)), list[tuple[int, str]]()
    names: list[str] = []

    def show(lines: list[Any], told: str) -> None:
        shown.append((len(lines), told))
        if names:
            raise KeyboardInterrupt
        names.append("fraud")

    monkeypatch.setattr("deploy.cli.loop.watch.time.sleep", lambda seconds: None)
    monkeypatch.setattr(FakeRegistry, "names", lambda self: names)
    watch.check()
    with pytest.raises(KeyboardInterrupt):
        watch.follow(show)
    assert shown == [(0, "no model to watch: none has a champion: tried again at the next pass"), (1, "")]
    with pytest.raises(PlatformError, match="not a policy"):
        Watch("local", [], WatchOptions(overrides=["loop.cooldown_hours=0"])).check()


def test_a_second_watch_does_nothing_while_one_acts(
    fairlead: Callable[..., Any], registry: None, states: States
) -> None:
    assert Lease(f"{states.place}/lease", 600).take()
    said = fairlead("watch", "--once")
    assert (said.code, "another watch acts for these models" in said.err) == (1, True)
    assert states.read("fraud") is None


def test_a_pass_that_fails_for_a_model_is_said_and_changes_nothing(endpoints: Endpoints, registry: None) -> None:
    folder = Path(AuditLog.of(endpoints).place)
    folder.parent.mkdir(parents=True)
    state = States(loop_place(endpoints))
    state.write(known(pending=({"id": "a", "word": "end_run", "subject": "fraud"},)))
    (folder.parent / ".loop" / "fraud" / "state.json").write_text("{half")
    (line,) = Watch("local", ["fraud"], WatchOptions(once=True)).one_pass()
    assert line.error.startswith("the state of fraud cannot be read")


def test_a_log_whose_folder_is_away_ends_nothing(endpoints: Endpoints, registry: None) -> None:
    log = endpoints.path("predictions")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("not a folder")
    (line,) = Watch("local", ["fraud"], WatchOptions(once=True)).one_pass()
    assert (line.state.phase, "Not a directory" in line.error) == ("watching", True)


def test_a_watch_goes_on_when_a_store_was_away_and_stands_by_while_another_acts(
    endpoints: Endpoints, registry: None, states: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, shown = Watch("local", ["fraud"], WatchOptions(interval=1)), list[tuple[int, str]]()
    monkeypatch.setattr("deploy.cli.loop.watch.time.sleep", lambda seconds: None)

    answers = iter([PlatformError("the storage is away"), False, True, True, KeyboardInterrupt()])

    def take() -> Any:
        answer = next(answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(watch.lease, "take", take)
    with pytest.raises(KeyboardInterrupt):
        watch.follow(lambda lines, told: shown.append((len(lines), told.partition(" (")[0])))
    assert shown == [
        (0, "the storage is away: tried again at the next pass"),
        (1, "another watch acts"),
        (1, ""),
    ]
    assert states.read("fraud") is not None


def test_approval_and_resuming_are_noted_and_only_where_they_are_waited_for(
    fairlead: Callable[..., Any], endpoints: Endpoints, states: States
) -> None:
    states.write(known(phase="asking", asked=NOW, reason="amount drifts"))
    assert "waits for no word to resume" in fairlead("watch", "resume", "fraud").err
    assert "the run is approved at its next pass" in fairlead("watch", "approve", "fraud").out
    assert states.said("fraud", "approve") is not None
    assert states.said("fraud", "resume") is None
    (entry,) = AuditLog.of(endpoints).read()
    assert (entry.action, entry.subject, entry.reason) == ("approve", "fraud", "amount drifts")


def test_a_run_asks_what_the_run_of_the_champion_asked_and_promotes_nothing(
    endpoints: Endpoints, tmp_path: Path
) -> None:
    folder = endpoints.path("runs") / "fraud-1"
    folder.mkdir(parents=True)
    asked = {"task": "fraud", "config": {"recipe": "lightgbm", "seed": 11}, "nonce": "fraud-1", "schedule": "nightly"}
    (folder / "run.json").write_text(json.dumps({"run_id": "fraud-1", "asked": asked}))
    runs = LocalRuns(endpoints)
    policy = LoopPolicy(source=str(tmp_path), settings={"split": {"train_days": 30}}, cooldown_hours=6)
    run = plan(endpoints, runs, DOCUMENT, policy, "fraud-2", "local")
    assert (run.run_id, run.promote, run.nonce, run.schedule, run.source) == ("fraud-2", False, "", "", str(tmp_path))
    assert (run.config["seed"], run.config["split"]["train_days"]) == (11, 30)
    assert run.config["loop"]["cooldown_hours"] == 6
    assert source_of(runs, DOCUMENT, LoopPolicy()) == ""
    with pytest.raises(PlatformError, match=r"--set split\.train_dayz"):
        plan(endpoints, runs, DOCUMENT, LoopPolicy(settings={"split.train_dayz": 3}), "fraud-2", "local")
    with pytest.raises(PlatformError, match="source not found"):
        plan(endpoints, runs, DOCUMENT, LoopPolicy(source="nowhere"), "fraud-2", "local")


def test_without_a_record_of_that_run_the_recipe_of_the_task_is_taken(endpoints: Endpoints) -> None:
    run = plan(endpoints, LocalRuns(endpoints), DOCUMENT, LoopPolicy(), "fraud-2", "local")
    assert (run.task, run.recipe, run.run_id, run.promote) == ("fraud", "lightgbm", "fraud-2", False)


def hands_of(endpoints: Endpoints, runs: Any, prometheus: str = "") -> ProfileHands:
    made = ProfileHands(endpoints, States(loop_place(endpoints)), runs, "local", prometheus)
    made.champions["fraud"] = (FakeRegistry(endpoints).resolve("fraud:1"), DOCUMENT)
    return made


def test_a_run_whose_folder_is_there_is_not_started_again(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("deploy.cli.loop.runs.COMMAND", ("sh", "-c", f"echo it broke; echo x >> {tmp_path}/begun"))
    state, runs = known(run="fraud-2"), LocalRuns(endpoints)
    hands = hands_of(endpoints, runs)
    assert runs.look("fraud-2").said == "its folder is not there"  # type: ignore[union-attr]
    hands.start_run(LoopPolicy(), state, "fraud-2")
    runs._children["fraud-2"].wait()
    found = hands.observe(LoopPolicy(), state).run
    assert found is not None
    assert (found.status, found.said) == ("dead", "it never began: it broke")
    hands.start_run(LoopPolicy(), state, "fraud-2")
    assert LocalRuns(endpoints).look("fraud-2").status == "starting"  # type: ignore[union-attr]
    hands_of(endpoints, LocalRuns(endpoints)).start_run(LoopPolicy(), state, "fraud-2")
    assert (tmp_path / "begun").read_text() == "x\n"


def test_a_run_on_a_cluster_is_submitted_once_and_found_by_its_name(
    kubeflow: StandIn, cluster_profile: str, home: Path
) -> None:
    kubeflow.api.scenarios = [Scenario(tasks=grouped("prepare-train-judge"))] * 2
    document_ = DOCUMENT.model_copy(update={"task": "news", "recipe": "linear"})
    endpoints = load_endpoints(cluster_profile)
    name = "news-20261130-120000-abcd"
    for runs in (ClusterRuns(load_profile(cluster_profile)), ClusterRuns(load_profile(cluster_profile))):
        asked = plan(endpoints, runs, document_, LoopPolicy(), name, cluster_profile)
        runs.start(asked)
    assert [run.document["display_name"] for run in kubeflow.api.runs.values()] == [name]
    assert kubeflow.api.posted["runs"]["runtime_config"]["parameters"]["promote"] is False
    assert runs.asked(name).task == "news"  # type: ignore[union-attr]
    assert runs.look(name).status in ("waiting", "running", "succeeded")  # type: ignore[union-attr]
    assert runs.look("news-20261130-120000-ab") is None


def test_a_candidate_is_asked_for_where_the_model_is_served_with_rollouts(endpoints: Endpoints, registry: None) -> None:
    hands, store = hands_of(endpoints, LocalRuns(endpoints)), Store(endpoints.scratch("rollouts"))
    assert hands.observe(LoopPolicy(), known()).can_roll_out is False
    under_way = new_rollout("r", "fraud", "1", "2", "canary", RolloutPolicy(), time.time())
    store.write(Served(model="fraud", version="1", looked=time.time(), rollout=under_way))
    seen = hands.observe(LoopPolicy(), known())
    assert (seen.can_roll_out, seen.rollout) == (True, "fraud:2, starting")
    hands.start_rollout(LoopPolicy(rollout="shadow"), "fraud:2", "action-1", compared=True)
    ((_, request),) = store.asked("fraud")
    assert (request.id, request.command, request.candidate, request.strategy) == ("action-1", "start", "2", "shadow")
    assert (request.actor, request.policy) == ("controller", DOCUMENT.rollout)
    hands.start_rollout(LoopPolicy(), "fraud:2", "action-2", compared=False)
    _, (_, request) = store.asked("fraud")
    assert (request.policy.answers.judged, request.policy.errors.judged) == (False, True)


@pytest.mark.parametrize(
    ("record", "status", "said"),
    [
        ({"status": "running", "pid": 0}, "dead", "its process ended without a word"),
        ({"status": "failed", "error": {"headline": "no rows"}}, "failed", "no rows"),
        ({"status": "failed", "error": {"headline": "x", "code": "stopped"}}, "cancelled", "somebody ended it"),
        ({"status": "refused", "result": {"version": "2", "reasons": ["auc 0.1 < 0.2"]}}, "refused", "auc 0.1 < 0.2"),
        ({"status": "succeeded", "result": {"version": "2"}}, "succeeded", ""),
    ],
)
def test_how_a_run_stands_is_read_from_its_record(
    endpoints: Endpoints, record: dict[str, Any], status: str, said: str
) -> None:
    folder = endpoints.path("runs") / "fraud-2"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"run_id": "fraud-2", **record}))
    hands = hands_of(endpoints, LocalRuns(endpoints), prometheus="http://127.0.0.1:1")
    seen = hands.observe(LoopPolicy(on_new_data=True), known(run="fraud-2"))
    assert seen.run is not None
    assert (seen.run.status, seen.run.said) == (status, said)
    assert seen.alerts is None
    assert [text.partition(":")[0] for text in seen.silent] == [
        "Prometheus does not say what fires",
        "new data cannot be seen at the built-in data",
    ]


def test_a_source_is_known_by_its_files_and_counted_when_asked(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": list(range(40))}), tmp_path / "one.parquet")
    (tmp_path / ".hidden").write_text("x")
    first = look_at_source(str(tmp_path), True)
    (tmp_path / "two.csv").write_text("a\n1\n2\n")
    second = look_at_source(str(tmp_path), True)
    assert (first.rows, second.rows) == (40, 43)
    assert first.fingerprint != second.fingerprint
    assert look_at_source(str(tmp_path), False).rows is None
    for nowhere in ("", str(tmp_path / "none")):
        with pytest.raises(PlatformError, match=r"new data cannot be seen|no rows at"):
            look_at_source(nowhere, True)


def test_a_source_in_s3_is_known_by_a_listing_and_counted_by_the_ends_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "lake" / "rows").mkdir(parents=True)
    client = FolderClient(tmp_path)
    monkeypatch.setattr(storage, "_client", lambda: client)
    with pytest.raises(PlatformError, match="no rows at s3://lake/rows"):
        look_at_source("s3://lake/rows", False)
    parquet.write_table(pa.table({"a": list(range(40))}), tmp_path / "lake" / "rows" / "one.parquet")
    parquet.write_table(pa.table({"a": list(range(9))}), tmp_path / "lake" / "rows_of_others.parquet")
    (tmp_path / "lake" / "rows" / "_SUCCESS").write_text("")
    first = look_at_source("s3://lake/rows", False)
    assert client.read == []
    (tmp_path / "lake" / "rows" / "two.csv").write_text("a\n1\n2\n")
    second = look_at_source("s3://lake/rows", True)
    assert (first.rows, second.rows) == (None, 43)
    assert first.fingerprint != second.fingerprint == look_at_source("s3://lake/rows", False).fingerprint
    assert look_at_source("s3://lake/rows/two.csv", True).rows == 3


def test_metrics_are_of_the_latest_run_of_each_task() -> None:
    def run(at: int, status: str, **more: Any) -> dict[str, Any]:
        moment = f"2026-11-30T0{at}:00:00+00:00"
        return {"task": "fraud", "workflow": "full", "status": status, "started": moment, "finished": moment, **more}

    steps = {
        "validate": {"seconds": 2.5, "result": {"good": 90, "rows": 100}},
        "build_dataset": {"seconds": None, "result": {"rows": {"train": 60, "test": 30}}},
    }
    metrics, registry = RunMetrics(), CollectorRegistry()
    registry.register(metrics)
    records = [run(3, "dead", seconds=7.0, steps=steps), run(1, "succeeded"), run(2, "failed"), run(4, "running")]
    metrics.put([*records, {**run(5, "succeeded"), "workflow": "batch_scoring"}], {"fraud": NOW})
    text = generate_latest(registry).decode()
    samples = (
        'fairlead_run_consecutive_failures{task="fraud"} 2.0',
        'fairlead_run_duration_seconds{task="fraud"} 7.0',
        'fairlead_run_rows{step="build_dataset",task="fraud"} 90.0',
        'fairlead_run_rows{step="validate",task="fraud"} 90.0',
        'fairlead_step_duration_seconds{step="validate",task="fraud"} 2.5',
        'fairlead_run_last_timestamp_seconds{outcome="failed",task="fraud"}',
        'fairlead_model_trained_timestamp_seconds{model="fraud"}',
    )
    assert [sample for sample in samples if sample not in text] == []
