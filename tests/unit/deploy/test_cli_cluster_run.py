"""``fairlead run`` on a cluster: what is submitted, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts import storage
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.cluster.cluster_settings import Cluster, Profile, SecretRef, Storage
from deploy.cli.cluster.kfp_api import connect
from deploy.cli.cluster_runs import submit
from deploy.cli.cluster_runs.upload import upload_source
from pipelines.run import Run
from tests.argo import Scenario, Try, grouped
from tests.kfp_stand_in import StandIn
from tests.kubectl_stand_in import node


def test_what_is_submitted_carries_what_pods_need_and_no_secret(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    kubeflow.api.scenarios = [Scenario(tasks=grouped("prepare", prepare={"tries": (Try(outcome="error"),)}))]
    said = fairlead("run", "news", "--profile", cluster_profile, "--train-gpus", "2", "--json")
    run, run_id = kubeflow.api.posted["runs"], said.json["error"]["context"]["run"]
    assert (run["display_name"], run["service_account"]) == (run_id, "pipeline-runner")
    given = run["runtime_config"]["parameters"]
    where = Endpoints.model_validate_json(given["endpoints"])
    assert (where.home, where.data, where.tracking) == ("/tmp/fairlead", "s3://lake/data", "http://127.0.0.1:1")
    assert "/home" not in given["endpoints"]
    assert (given["run"], given["promote"], given["nonce"]) == (run_id, True, "")
    spec, platform = run["pipeline_spec"]["pipeline_spec"], run["pipeline_spec"]["platform_spec"]
    executors = spec["deploymentSpec"]["executors"]
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(kubernetes) == set(executors)
    for name, executor in executors.items():
        container = executor["container"]
        assert container["image"] == "registry/pipelines:1"
        assert "pip install" not in " ".join(container["command"])
        environment = {item["name"]: item["value"] for item in container["env"]}
        assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
        assert not {"AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"} & set(environment)
        assert environment["FAIRLEAD_RECORD"] == "s3://lake/data/.runs"
        assert Endpoints.model_validate_json(environment["FAIRLEAD_ENDPOINTS"]) == where
        fields = {item["name"]: item["fieldPath"] for item in kubernetes[name]["fieldPathAsEnv"]}
        assert fields == {
            "FAIRLEAD_KFP_RUN": "metadata.labels['pipeline/runid']",
            "FAIRLEAD_POD": "metadata.name",
            "FAIRLEAD_NODE": "metadata.annotations['workflows.argoproj.io/node-name']",
        }
        secrets = {e["envVar"] for item in kubernetes[name]["secretAsEnv"] for e in item["keyToEnv"]}
        assert secrets == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FAIRLEAD_REDIS_PASSWORD"}
        assert kubernetes[name]["securityContext"]["runAsNonRoot"] is True
        assert kubernetes[name]["podMetadata"]["labels"]["fairlead.io/access-s3"] == "true"
    train = executors["exec-train"]["container"]["resources"]
    assert (train["accelerator"]["resourceType"], train["accelerator"]["resourceCount"]) == ("nvidia.com/gpu", "2")
    assert train["resourceMemoryLimit"] == train["resourceMemoryRequest"] == "2Gi"
    assert kubernetes["exec-train"]["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
    assert "accelerator" not in executors["exec-prepare"]["container"]["resources"]


def test_steps_get_the_credentials_of_a_mongodb_where_the_profile_names_their_secret() -> None:
    named = SecretRef(name="documents", user_key="username", password_key="password")
    assert "FAIRLEAD_MONGODB_PASSWORD" not in submit._secrets(Cluster())
    found = submit._secrets(Cluster(mongodb=named))
    assert found["FAIRLEAD_MONGODB_USERNAME"] == ("documents", "username")
    assert found["FAIRLEAD_MONGODB_PASSWORD"] == ("documents", "password")


def test_a_search_has_pods_where_they_share_an_sql_server() -> None:
    search = {"trials": 9, "workers": 4, "storage": "mysql+pymysql://search@db/search"}
    assert submit.search_pods(Run(task="news", config={"search": search})) == 4
    for changed in ({"trials": 0}, {"workers": 1}, {"storage": ""}, {"storage": "sqlite:////tmp/s.db"}):
        assert submit.search_pods(Run(task="news", config={"search": search | changed})) == 0
    alone = {"workflow.tasks": "each"}
    assert submit.search_pods(Run(task="news", config={"search": search}, settings=alone)) == 0
    found = submit._secrets(Cluster(search=SecretRef(name="sql", password_key="search-password")))
    assert found["FAIRLEAD_SEARCH_PASSWORD"] == ("sql", "search-password")


def test_the_key_of_personal_data_is_of_a_secret() -> None:
    assert "FAIRLEAD_PII_KEY" not in submit._secrets(Cluster())
    found = submit._secrets(Cluster(pii=SecretRef(name="pii", password_key="key")))
    assert found["FAIRLEAD_PII_KEY"] == ("pii", "key")


def test_what_the_run_before_took_is_asked_for_with_room(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any, tmp_path: Path
) -> None:
    kubeflow.api.scenarios = [Scenario(tasks=grouped("prepare-train-judge"))] * 2

    def asked() -> str:
        fairlead("run", "news", "--profile", cluster_profile, "--json")
        spec = kubeflow.api.posted["runs"]["pipeline_spec"]["pipeline_spec"]
        (executor,) = spec["deploymentSpec"]["executors"].values()
        return str(executor["container"]["resources"]["resourceMemoryRequest"])

    assert asked() == "2Gi"
    record = tmp_path / "s3" / "lake" / "data" / ".runs" / kubeflow.run.document["run_id"] / "train.json"
    record.write_text(json.dumps({"step": "train", "status": "finished", "memory_peak": 3 * 2**30}))
    assert asked() == "4608Mi"


def test_training_on_several_pods_is_an_order_to_the_step(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    from pipelines.training.pods import DistributedJob

    fairlead(
        "run", "news", "--profile", cluster_profile, "--cron", "0 3 * * *", "--train-nodes", "2", "--train-gpus", "4"
    )
    order = DistributedJob.model_validate_json(
        kubeflow.api.posted["recurringruns"]["runtime_config"]["parameters"]["spread"]
    )
    assert (order.nodes, order.processes, order.gpus, order.image) == (2, 4, 4, "registry/pipelines:1")
    assert order.place == "s3://lake/data/.distributed_jobs"
    assert order.secrets["AWS_ACCESS_KEY_ID"] == ("fairlead-s3", "access-key")


def test_a_run_that_no_node_can_take_is_refused_before_it_is_submitted(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    kubeflow.kubectl.objects = [node(memory="7800Mi", pods="110")]
    asked = ["--profile", cluster_profile, "--cron", "0 3 * * *", "--json", "--set"]
    said = fairlead("run", "news", *asked, "resources.train.memory=16Gi")
    assert (said.code, said.json["error"]["code"]) == (1, "does_not_fit")
    assert said.json["error"]["detail"] == "train asks for 16Gi; the largest node has 7.6Gi"
    assert "recurringruns" not in kubeflow.api.posted
    said = fairlead("run", "news", *asked, "resources.train.memory=7Gi")
    assert said.code == 0, said.err


def test_steps_are_told_of_the_workers_that_they_may_make(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    from pipelines.data_engines import VARIABLE
    from pipelines.io.pods import PodSettings

    told = ["data.engine=ray", "data.workers=1", "data.memory=4Gi", "data.ray=rayjob"]
    kubeflow.kubectl.objects = [node(memory="31200Mi", pods="110")]
    asked = ["--cron", "0 3 * * *", *(part for one in told for part in ("--set", one))]
    said = fairlead("run", "news", "--profile", cluster_profile, "--json", *asked)
    assert said.code == 0, said.err
    spec = kubeflow.api.posted["recurringruns"]["pipeline_spec"]["pipeline_spec"]
    (executor,) = spec["deploymentSpec"]["executors"].values()
    environment = {item["name"]: item["value"] for item in executor["container"]["env"]}
    engine = json.loads(environment[VARIABLE])
    pods = PodSettings.model_validate(engine.pop("pods"))
    assert engine.pop("kind") == "rayjob"
    assert engine == {"engine": "ray", "workers": 1, "memory": "4Gi", "place": "s3://lake/data/.parts"}
    assert (pods.image, pods.namespace, pods.service_account) == ("registry/pipelines:1", "fairlead", "pipeline-runner")
    assert pods.secrets["AWS_ACCESS_KEY_ID"] == ("fairlead-s3", "access-key")
    assert "fairlead.io/access-s3" in pods.labels
    assert executor["container"]["resources"]["resourceMemoryLimit"] == "2560Mi", "the head is in the pod of the step"


def test_workers_that_no_node_can_take_are_refused_before_the_run_is_submitted(
    kubeflow: StandIn, cluster_profile: str, fairlead: Any
) -> None:
    kubeflow.kubectl.objects = [node(memory="7800Mi", pods="110")]
    asked = ["--set", "data.engine=ray", "--set", "data.memory=16Gi", "--json"]
    said = fairlead("run", "news", "--profile", cluster_profile, *asked)
    assert (said.code, said.json["error"]["code"]) == (1, "does_not_fit")
    assert "data workers" in said.json["error"]["detail"]
    assert "runs" not in kubeflow.api.posted


def test_what_kubeflow_refuses_is_said(kubeflow: StandIn, cluster_profile: str, fairlead: Any) -> None:
    kubeflow.api.refuses = "Invalid input error: unknown image"
    said = fairlead("run", "news", "--profile", cluster_profile, "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "kfp")
    assert "unknown image" in said.json["error"]["detail"]


def test_kubeflow_that_does_not_answer_is_named_at_once() -> None:
    with pytest.raises(PlatformError, match="Kubeflow Pipelines does not answer"):
        connect(Cluster(kfp="http://127.0.0.1:9"))


@pytest.mark.parametrize(("name", "value"), [("data", "/here"), ("tracking", "sqlite:///x.db"), ("artifacts", "")])
def test_an_address_that_pods_do_not_share_is_refused(name: str, value: str) -> None:
    places = {key: f"s3://lake/{key}" for key in ("data", "artifacts", "features")}
    given = {**places, "tracking": "http://mlflow:5000", name: value}
    storage = Storage(endpoint="", secret=SecretRef())
    with pytest.raises(PlatformError, match=f"{name} must be an address that pods share"):
        submit.pod_endpoints(Profile(cluster=Cluster(storage=storage), **given))


def test_a_local_file_is_uploaded_once_below_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a\n1\n")
    data = str(tmp_path / "data")
    target = upload_source(str(file), data)
    assert Path(target).read_text() == "a\n1\n"
    monkeypatch.setattr(storage, "upload_file", lambda *_: pytest.fail("uploaded again"))
    assert upload_source(str(file), data) == target
    assert upload_source("s3://b/rows.csv", data) == "s3://b/rows.csv"


def test_options_of_a_cluster_are_refused_on_this_machine(fairlead: Any) -> None:
    said = fairlead("run", "news", "--cron", "0 3 * * *", "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "no_cluster")


def test_copying_many_rows_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"a,b\n" * 1000)
    data = str(tmp_path / "data")
    monkeypatch.setattr("deploy.cli.cluster_runs.upload.LARGE", 4001)
    upload_source(str(file), data)
    assert capsys.readouterr().err == ""
    file.write_bytes(b"c,d\n" * 1001)
    target = upload_source(str(file), data)
    assert f"Copying 0 MiB to {data}/.uploads/" in capsys.readouterr().err.replace("\n", "")
    assert Path(target).read_bytes() == file.read_bytes()
    upload_source(str(file), data)
    assert capsys.readouterr().err == ""  # it is there
