"""``fairlead run --cron`` and ``fairlead schedules``, against the stand-in of Kubeflow Pipelines."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.io.record import open_record
from tests.kfp_stand_in import StandIn

ZONE = "CRON_SCHEDULE_TIMEZONE"


@pytest.fixture
def cluster(kubeflow: StandIn) -> StandIn:
    return kubeflow


@pytest.fixture
def profile(cluster: StandIn, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # Records of steps are looked for in the store, which is a folder of the test.
    monkeypatch.setattr("deploy.cli.schedules.schedule_state.record_root", lambda where: str(home / "records"))
    places = {name: f"s3://lake/{name}" for name in ("data", "artifacts", "features", "predictions")}
    settings = {"kfp": cluster.url, "storage": {"endpoint": "http://127.0.0.1:9"}, "image": "registry/pipelines:2"}
    file = home.parent / "profile.yaml"
    document = {**places, "tracking": "http://127.0.0.1:1", "online": "redis://127.0.0.1:1/0", "cluster": settings}
    file.write_text(yaml.safe_dump(document))
    return str(file)


def zone(cluster: StandIn, name: str) -> None:
    """The cluster's controller reads schedules in this zone."""
    container = {"name": "main", "env": [{"name": "OTHER", "value": "x"}, {"name": ZONE, "value": name}]}
    spec = {"template": {"spec": {"containers": [container]}}}
    metadata = {"name": "ml-pipeline-scheduledworkflow", "labels": {}}
    cluster.kubectl.objects.append({"kind": "Deployment", "metadata": metadata, "spec": spec})


def test_a_schedule_has_a_name_one_run_at_a_time_and_says_its_next_times(
    cluster: StandIn, profile: str, fairlead: Any
) -> None:
    said = fairlead("run", "news", "--set", "seed=5", "--profile", profile, "--cron", "0 3 * * *", "--json")
    assert said.code == 0, said.err
    made = cluster.api.posted["recurringruns"]
    assert (said.json["name"], made["display_name"], made["service_account"]) == ("news", "news", "pipeline-runner")
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == (1, True, "ENABLE")
    times = [datetime.fromisoformat(moment) for moment in said.json["next"]]
    assert [(t.hour, t.minute, str(t.tzinfo)) for t in times] == [(3, 0, "UTC")] * 3
    assert made["description"] == (
        f"fairlead run news --recipe linear --set seed=5 --profile {profile} --cron '0 3 * * *' --name news"
    )


@pytest.mark.parametrize("tasks", ["few", "each"])
def test_each_run_of_a_schedule_has_its_own_id_and_knows_its_schedule(
    cluster: StandIn, profile: str, fairlead: Any, tasks: str
) -> None:
    asked = ("--profile", profile, "--set", f"workflow.tasks={tasks}")
    fairlead("run", "news", *asked, "--cron", "0 3 * * *", "--name", "nightly")
    made = cluster.api.posted["recurringruns"]
    assert made["runtime_config"]["parameters"]["run"] == ""  # the pod makes one
    executors = made["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    pods = [{e["name"]: e["value"] for e in each["container"]["env"]} for each in executors.values()]
    assert {pod["FAIRLEAD_SCHEDULE"] for pod in pods} == {"nightly"}
    told = json.loads(pods[0]["FAIRLEAD_STEP_PRICES"])
    assert (told["prices"], told["asked"]["gate"]["cpu"]) == (None, "100m")
    record = open_record({**pods[0], "FAIRLEAD_RECORD": "/tmp", "FAIRLEAD_KFP_RUN": "r-1"})
    assert record is not None
    assert record.schedule == "nightly"
    fairlead("run", "news", *asked)
    executors = cluster.api.posted["runs"]["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    assert all("FAIRLEAD_SCHEDULE" not in str(each["container"]["env"]) for each in executors.values())


def test_a_name_is_taken_once(cluster: StandIn, profile: str, fairlead: Any) -> None:
    asked = ("run", "news", "--profile", profile, "--cron", "0 3 * * *", "--json")
    assert fairlead(*asked).code == 0
    error = fairlead(*asked).json["error"]
    assert (error["code"], error["headline"]) == ("exists", "there is a schedule news already")
    assert f"fairlead schedules delete --profile {profile} news" in error["fix"]
    assert len(cluster.api.recurring) == 1
    assert fairlead(*asked, "--name", "news-2").code == 0
    assert fairlead(*asked, "--name", "No name").json["error"]["code"] == "bad_name"


def test_a_time_is_of_the_clusters_zone_or_is_moved_to_it_or_is_refused(
    cluster: StandIn, profile: str, fairlead: Any
) -> None:
    zone(cluster, "Europe/Berlin")
    asked = ("run", "news", "--profile", profile, "--json", "--cron", "30 8 * * 1-5", "--name")
    said = fairlead(*asked, "own").json
    assert (said["timezone"], said["words"]) == ("Europe/Berlin", "Monday to Friday at 08:30")
    assert said["next"][0][16:].split("+")[1] in ("01:00", "02:00")
    same = fairlead(*asked, "paris", "--timezone", "Europe/Paris").json
    assert (same["timezone"], cluster.api.posted["recurringruns"]["trigger"]["cron_schedule"]["cron"]) == (
        "Europe/Paris",
        "0 30 8 * * 1-5",
    )
    error = fairlead(*asked, "tokyo", "--timezone", "Asia/Tokyo").json["error"]
    assert error["code"] == "timezone"
    assert "--set pipelines.schedules.timezone=Asia/Tokyo" in error["fix"]
    assert "--set 'loop.schedule=30 8 * * 1-5' --set loop.zone=Asia/Tokyo" in error["fix"], "the loop takes it"
    assert fairlead(*asked, "mars", "--timezone", "Mars").json["error"]["code"] == "bad_timezone"
    assert len(cluster.api.recurring) == 2


def test_a_zone_at_a_fixed_distance_is_moved_and_listed_as_it_was_asked(
    cluster: StandIn, profile: str, fairlead: Any
) -> None:
    asked = ("--cron", "0 3 * * mon", "--timezone", "Asia/Tokyo")
    assert fairlead("run", "news", "--profile", profile, *asked).code == 0
    assert cluster.api.posted["recurringruns"]["trigger"]["cron_schedule"]["cron"] == "0 0 18 * * 0"
    (listed,) = fairlead("schedules", "--profile", profile, "--json").json
    assert (listed["words"], listed["timezone"]) == ("Monday at 03:00", "Asia/Tokyo")
    assert datetime.fromisoformat(listed["next"]).strftime("%a %H:%M %z") == "Mon 03:00 +0900"


def test_schedules_are_listed_with_their_runs_and_those_of_others_are_not(
    cluster: StandIn, profile: str, fairlead: Any, home: Path
) -> None:
    fairlead("run", "news", "--profile", profile, "--cron", "*/10 * * * *", "--name", "often")
    (made,) = cluster.api.recurring
    other = {**cluster.api.recurring[made], "recurring_run_id": "x", "runtime_config": {"parameters": {"rows": 5}}}
    cluster.api.recurring["x"] = {**other, "display_name": "theirs"}
    (listed,) = fairlead("schedules", "--profile", profile, "--json").json
    assert (listed["name"], listed["task"], listed["recipe"], listed["last"]) == ("often", "news", "linear", None)
    assert (listed["cron"], listed["words"], listed["paused"]) == ("*/10 * * * *", "every 10 minutes", False)
    run = cluster.api.fire(made)
    (listed,) = fairlead("schedules", "--profile", profile, "--json").json
    assert (listed["last"]["status"], listed["last"]["kfp_run"]) == ("running", run.scenario.run_id)
    run.reach(1e6)
    (listed,) = fairlead("schedules", "--profile", profile, "--json").json
    assert listed["last"]["status"] == "succeeded"
    folder = home / "records" / run.scenario.run_id
    folder.mkdir(parents=True)
    (folder / "register.json").write_text(json.dumps({"step": "register", "result": {"gate_passed": False}}))
    (folder / "run.json").write_text(json.dumps({"run_id": "news-20260102-030405-9f3c"}))
    (listed,) = fairlead("schedules", "--profile", profile, "--json").json
    assert (listed["last"]["status"], listed["last"]["run"]) == ("refused", "news-20260102-030405-9f3c")
    shown = fairlead("schedules", "--profile", profile).out
    assert "every 10 minutes" in shown
    assert "theirs" not in shown
    assert fairlead("schedules", "delete", "theirs", "--profile", profile, "--json").json["error"]["code"] == (
        "unknown_schedule"
    )


def test_one_of_another_release_or_code_says_so_and_how_to_make_it_again(
    cluster: StandIn, profile: str, fairlead: Any
) -> None:
    fairlead("run", "news", "--profile", profile, "--cron", "0 3 * * *")
    (listed,) = fairlead("schedules", "--profile", profile, "--json").json
    assert (listed["outdated"], listed["again"], listed["image"]) == ("", "", "registry/pipelines:2")
    Path(profile).write_text(Path(profile).read_text().replace("pipelines:2", "pipelines:3"))
    (listed,) = fairlead("schedules", "--profile", profile, "--json").json
    assert listed["outdated"] == "made by 2, installed is 3"
    command = f"fairlead run news --recipe linear --profile {profile} --cron '0 3 * * *' --name news"
    assert listed["again"] == f"fairlead schedules delete news && {command}"
    shown = re.sub(r"\s+", " ", fairlead("schedules", "--profile", profile).out)
    assert f"made by 2, installed is 3; make it again: {listed['again']}" in shown
    (made,) = cluster.api.recurring.values()
    Path(profile).write_text(Path(profile).read_text().replace("pipelines:3", "pipelines:2"))
    made["runtime_config"]["parameters"]["code_version"] = "0123.45"
    (listed,) = fairlead("schedules", "--profile", profile, "--json").json
    assert re.fullmatch(r"made of code 0123, here is [0-9a-f]{16}", listed["outdated"])


def test_it_is_paused_and_resumed_without_a_run_for_the_times_between(
    cluster: StandIn, profile: str, fairlead: Any
) -> None:
    fairlead("run", "news", "--profile", profile, "--cron", "0 3 * * *")
    (made,) = cluster.api.recurring
    assert fairlead("schedules", "pause", "news", "--profile", profile, "--json").json["paused"] is True
    (listed,) = fairlead("schedules", "--profile", profile, "--json").json
    assert (listed["paused"], listed["next"]) == (True, None)
    assert "paused" in fairlead("schedules", "--profile", profile).out
    # Kubeflow's controller would start one for the latest of them, unless the schedule begins now.
    named = {"name": "newsabc12", "uid": made}
    trigger = {"cronSchedule": {"cron": "0 0 3 * * *"}}
    items = json.dumps(
        {"items": [{"metadata": {"name": "x", "uid": "y"}}, {"metadata": named, "spec": {"trigger": trigger}}]}
    )
    patches: list[list[str]] = []
    kind = "scheduledworkflows.kubeflow.org"
    cluster.kubectl.answers[f"get {kind}"] = lambda argv, given: items
    cluster.kubectl.answers[f"patch {kind}"] = lambda argv, given: str(patches.append(argv))
    said = fairlead("schedules", "resume", "news", "--profile", profile, "--json").json
    assert (said["paused"], said["late_run"]) == (False, False)
    assert cluster.api.recurring[made]["status"] == "ENABLED"
    (patch,) = patches
    assert "newsabc12" in patch
    begin = json.loads(patch[patch.index("-p") + 1])["spec"]["trigger"]["cronSchedule"]["startTime"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", begin)


def test_a_late_run_that_cannot_be_prevented_is_announced(cluster: StandIn, profile: str, fairlead: Any) -> None:
    fairlead("run", "news", "--profile", profile, "--cron", "0 3 * * *")
    fairlead("schedules", "pause", "news", "--profile", profile)
    cluster.kubectl.fails = "Error from server (Forbidden): scheduledworkflows.kubeflow.org is forbidden"
    said = fairlead("schedules", "resume", "news", "--profile", profile)
    assert "a time that passed in the pause starts one run now" in re.sub(r"\s+", " ", said.out)
    again = fairlead("schedules", "resume", "news", "--profile", profile, "--json").json
    assert again["late_run"] is False  # nothing was paused


def test_it_is_run_now_as_one_of_its_own_and_never_beside_another(
    cluster: StandIn, profile: str, fairlead: Any
) -> None:
    fairlead("run", "news", "--profile", profile, "--cron", "0 3 * * *", "--name", "nightly")
    said = fairlead("schedules", "run", "nightly", "--profile", profile, "--json")
    assert said.code == 0, said.err
    posted, (made,) = cluster.api.posted["runs"], cluster.api.recurring.values()
    assert posted["recurring_run_id"] == made["recurring_run_id"]
    assert posted["pipeline_spec"] == made["pipeline_spec"]
    given = {**made["runtime_config"]["parameters"], "run": said.json["run_id"]}
    assert posted["runtime_config"]["parameters"] == given
    assert re.fullmatch(r"news-\d{8}-\d{6}-[0-9a-f]{4}", said.json["run_id"])
    error = fairlead("schedules", "run", "nightly", "--profile", profile, "--json").json["error"]
    assert (error["code"], said.json["kfp_run"] in error["fix"]) == ("overlap", True)
    assert len(cluster.api.runs) == 1


def test_deleting_one_lets_its_run_go_on(cluster: StandIn, profile: str, fairlead: Any) -> None:
    fairlead("run", "news", "--profile", profile, "--cron", "0 3 * * *")
    (made,) = cluster.api.recurring
    cluster.api.fire(made)
    said = fairlead("schedules", "delete", "news", "--profile", profile, "--json")
    assert said.json == {"name": "news", "id": made, "deleted": True}
    # Its workflows are Kubernetes objects that it owns: without this they would go with it.
    assert cluster.queries["recurringruns/ID"] == {"propagation_policy": "ORPHAN"}
    assert fairlead("schedules", "--profile", profile, "--json").json == []
    assert "No schedules yet" in fairlead("schedules", "--profile", profile).out
    error = fairlead("schedules", "pause", "news", "--profile", profile, "--json").json["error"]
    assert (error["code"], error["detail"]) == ("unknown_schedule", "there is none")


def test_errors_of_the_server_are_sentences(cluster: StandIn, profile: str, fairlead: Any) -> None:
    cluster.api.refuses = "Max concurrency of a recurring run must be at least 1"
    error = fairlead("run", "news", "--profile", profile, "--cron", "0 3 * * *", "--json").json["error"]
    assert error["headline"] == "Kubeflow Pipelines refused the schedule"
    assert error["detail"] == "400: Max concurrency of a recurring run must be at least 1"
    bad = fairlead("run", "news", "--profile", profile, "--cron", "daily", "--json").json["error"]
    assert bad["code"] == "bad_cron"
    local = fairlead("schedules", "--profile", "local", "--json").json["error"]
    assert local["code"] == "no_cluster"


def test_a_profile_before_the_command_is_not_passed_over(profile: str, fairlead: Any) -> None:
    error = fairlead("schedules", "--profile", profile, "pause", "news")
    assert error.code == 1
    assert f"fairlead schedules pause NAME --profile {profile}" in re.sub(r"\s+", " ", error.err)


def test_no_warning_of_the_client_is_shown(
    cluster: StandIn, profile: str, fairlead: Any, recwarn: pytest.WarningsRecorder
) -> None:
    fairlead("schedules", "--profile", profile)
    assert not [w for w in recwarn if issubclass(w.category, FutureWarning)]
