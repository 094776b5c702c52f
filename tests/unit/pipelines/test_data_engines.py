"""The engine of a run's data: what says it, and that parts give the windows that all rows give."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator

from contracts.errors import PlatformError
from pipelines import data_engines
from pipelines.data_engines import Here, described, opened, pods_engine, ray_driver, ray_job_engine, ray_worker
from pipelines.data_engines.pods_engine import PodsEngine
from pipelines.data_engines.ray_engine import RayEngine
from pipelines.io.pods import PodSettings
from pipelines.run_settings import split
from pipelines.tasks.fraud import features
from pipelines.tasks.fraud.windows import DAY
from tests.unit.training.known import ray_job_schema, wrong

ROWS = 3000


class Cutting(Here):
    def parts(self, rows: int) -> int:
        return 4


def payments(folder: Path) -> pd.DataFrame:
    """Some at the same moment, one customer with a third of all."""
    rng = np.random.default_rng(7)
    moment = np.sort(rng.integers(0, 90 * 24, ROWS)) * (DAY // 24)
    customer = np.where(rng.random(ROWS) < 0.33, 0, rng.integers(0, 40, ROWS))
    frame = pd.DataFrame(
        {
            "event_time": pd.to_datetime(moment, unit="us", utc=True),
            "customer_id": [f"C{k}" for k in customer],
            "terminal_id": [f"T{k}" for k in rng.integers(0, 25, ROWS)],
            "amount": np.round(rng.gamma(1.5, 40, ROWS), 2) / 3,
            "fraud": (rng.random(ROWS) < 0.1).astype(np.int64),
        }
    )
    for number in range(3):
        rows = frame.iloc[number * 1000 : (number + 1) * 1000]
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), folder / f"part-{number:05d}.parquet")
    return frame


def windows(out: Path, name: str) -> pd.DataFrame:
    frame = ds.dataset(out / f"{name}.parquet").to_table().to_pandas()
    key = frame.columns[0]
    return frame.astype({key: str}).sort_values([key, "known_at"], ignore_index=True)


def test_windows_by_parts_are_the_windows_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = payments(tmp_path)
    features.write_history(tmp_path, tmp_path / "whole", lambda *_, **__: None)
    monkeypatch.setattr(data_engines, "_current", [Cutting()])
    monkeypatch.setattr(features, "_ASKED", 100)  # moments of a group of rows
    features.write_history(tmp_path, tmp_path / "cut", lambda *_, **__: None)
    for name in ("customer_windows", "terminal_windows"):
        assert len(list((tmp_path / "cut" / f"{name}.parquet").iterdir())) == 4
        pd.testing.assert_frame_equal(
            windows(tmp_path / "cut", name), windows(tmp_path / "whole", name), rtol=0, atol=0
        )
    found = windows(tmp_path / "whole", "customer_windows")
    for at in range(0, len(found), 200):  # what the numbers are
        row = found.iloc[at]
        mine = frame[(frame["customer_id"] == row["customer_id"]) & (frame["event_time"] < row["known_at"])]
        week = mine[mine["event_time"] >= row["known_at"] - pd.Timedelta(days=7)]["amount"]
        assert row["customer_payments_7d"] == len(week)
        assert row["customer_mean_7d"] == pytest.approx(week.mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data.engine", "spark", "accepted: duckdb, ray"),
        ("data.ray", "cluster", "accepted: job, rayjob"),
        ("data.workers", 0, "from 1 to 256"),
        ("data.workers", True, "from 1 to 256"),
        ("data.memory", "1Ki", "at least 32Mi"),
    ],
)
def test_settings_that_are_none_are_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(PlatformError) as failed:
        split({key: value})
    assert said in failed.value.detail
    assert failed.value.code == "bad_config"


def test_the_engine_is_a_setting_of_the_run_and_reaches_steps_by_their_environment() -> None:
    of_task, of_run = split({"data.engine": "ray", "data.workers": 3, "data.memory": "4G", "data.delimiter": ";"})
    assert of_task == {"data.delimiter": ";"}
    said = json.loads(described(of_run, "/parts")[data_engines.VARIABLE])
    assert said == {"engine": "ray", "workers": 3, "memory": "3815Mi", "place": "/parts"}
    assert described({"data.engine": "duckdb", "data.workers": 3}, "/parts") == {}


def test_workers_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(data_engines, "memory_limit", lambda: 6 << 30)
    given: dict[str, Any] = {"memory": "2Gi", "place": "/parts"}
    assert RayEngine("train", workers=2, **given).memory_limit == "1024MiB", "half of what each may have"
    assert RayEngine("train", workers=5, **given).memory_limit == "512MiB", "half of a sixth, as the step is there too"
    assert data_engines.duckdb_limit("2Gi") == "1024MiB"  # of a pod of its own
    assert not PodsEngine._together


def test_without_one_rows_are_not_cut() -> None:
    with opened("materialise", {}) as engine:
        assert engine.parts(10**9) == 1
    assert data_engines.current().parts(10**9) == 1


def test_an_engine_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(PlatformError, match="ray is not installed") as failed,
        opened("materialise", described({"data.engine": "ray"}, "/parts")),
    ):
        pass
    assert "fairlead[ray]" in failed.value.fix


OWN = {"metadata": {"name": "step", "uid": "u-1", "labels": {pods_engine.WORKFLOW: "run-1"}}}


def test_workers_of_a_step_are_restricted_pods_that_end_with_it() -> None:
    wanted = PodSettings(image="i", namespace="n", labels={"fairlead.io/access-s3": "true"})
    policy, job = pods_engine.manifests(wanted, "data-1", 3, "2Gi", "s3://lake/head.json", OWN)
    assert wrong(policy, "V1NetworkPolicy") == wrong(job, "V1Job") == []
    for made in (policy, job):
        assert made["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Pod", "name": "step", "uid": "u-1"}
        ]
    assert policy["spec"]["ingress"] == [
        {
            "from": [
                {"podSelector": {"matchLabels": {"job-name": "data-1"}}},
                {"podSelector": {"matchLabels": {pods_engine.WORKFLOW: "run-1"}}},
            ]
        }
    ]
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "2560Mi", "what is asked for, and Ray's own processes"
    assert container["command"] + container["args"][:2] == ["python", "-m", "pipelines.data_engines.ray_worker"]
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (3, 3)
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == pods_engine.COMPONENT


def test_a_ray_job_is_what_kuberay_knows_and_has_the_pods_of_the_job() -> None:
    wanted = PodSettings(image="i", namespace="n", labels={"fairlead.io/access-s3": "true"})
    policy, made = ray_job_engine.ray_job(wanted, "data-1", 3, "2Gi", "s3://lake/step.json", OWN)
    assert wrong(policy, "V1NetworkPolicy") == []
    schema = Draft202012Validator(ray_job_schema())
    assert [error.message for error in schema.iter_errors(made)] == []
    operator = policy["spec"]["ingress"][1]
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}], "and the run's pods at any"
    assert policy["spec"]["ingress"][0]["from"][1] == {"podSelector": {"matchLabels": {pods_engine.WORKFLOW: "run-1"}}}
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert made["spec"]["entrypoint"] == "python -m pipelines.data_engines.ray_driver s3://lake/step.json"
    cluster = made["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert (workers["replicas"], cluster["headGroupSpec"]["rayStartParams"]["num-cpus"]) == (3, "0")
    _, job = pods_engine.manifests(wanted, "data-1", 3, "2Gi", "s3://lake/head.json", OWN)
    for group in (workers, cluster["headGroupSpec"]):
        assert wrong(group["template"], "V1PodTemplateSpec") == []
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    (mine,), (theirs,) = (one["spec"]["containers"] for one in (workers["template"], job["spec"]["template"]))
    for key in ("resources", "securityContext", "volumeMounts", "image"):
        assert mine[key] == theirs[key]
    assert "command" not in mine
    for probe in ("readinessProbe", "livenessProbe"):
        assert mine[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}, (
            "KubeRay 1.5 asks by a wget that is not there"
        )
    assert not [one for one in mine["env"] if "TOKEN" in one["name"]], "KubeRay gives it from a Secret"


class OfStandIn(ray_job_engine.RayJobPods):
    """A cluster whose KubeRay starts the job as a thread here, as soon as it is made."""

    status: ClassVar[dict[str, str]] = {}
    jobs: ClassVar[list[str]] = []
    fields: ClassVar[tuple[str, ...] | None] = ("authOptions",)

    def __init__(self, wanted: PodSettings, name: str, workers: int, memory: str) -> None:
        self._name, self.made, self._own = name, [], {}
        known = type(self).fields
        self._kube: Any = SimpleNamespace(
            has_group=lambda group: known is not None,
            spec_fields=lambda *_: known,
            read=lambda _: {"status": self.status},
        )

    def own_address(self) -> str:
        return "127.0.0.1"

    def make(self, head: str) -> None:
        self.made.append({})
        self.jobs.append(head)
        step = ray_driver.Step.model_validate_json(Path(head).read_text())
        with socket.create_connection((step.host, step.port)) as stranger:
            stranger.sendall(b"let me in\n")  # it is sent away
        if not self.status:
            threading.Thread(target=ray_driver.main, args=(head,), daemon=True).start()

    def delete(self) -> None:
        self.made.clear()


class RayStandIn(ModuleType):
    """The calls of Ray that a driver makes, in its own thread. A piece of work called `lost` ends the connection."""

    exceptions = SimpleNamespace(RayError=ZeroDivisionError)

    def init(self, **said: Any) -> None:
        assert said["address"] == "auto"

    def shutdown(self) -> None:
        pass

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address="10.0.0.1:6379")

    def remote(self, **_: Any) -> Any:
        return lambda call: SimpleNamespace(remote=lambda work, item: (call, work, item))

    def wait(self, waiting: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return waiting[:1], waiting[1:]

    def get(self, one: Any) -> Any:
        call, work, item = one
        if "lost" in item and len(OfStandIn.jobs) == 1:
            raise SystemExit
        return call(work, item)


@pytest.fixture
def by_ray_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "ray", RayStandIn("ray"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(ray_job_engine, "RayJobPods", OfStandIn)
    monkeypatch.setattr(pods_engine, "Pods", OfStandIn)
    monkeypatch.setattr(pods_engine, "remove_below", lambda _: None)
    monkeypatch.setattr(ray_job_engine, "_POLL", 0.05)
    for name, value in (("jobs", []), ("status", {}), ("fields", ("authOptions",))):
        monkeypatch.setattr(OfStandIn, name, value)
    said = described({"data.engine": "ray", "data.ray": "rayjob"}, str(tmp_path), {"image": "i", "namespace": "n"})
    (tmp_path / "materialise" / "materialise").mkdir(parents=True)
    return said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_step_and_its_ray_job_speak_by_a_connection_and_a_lost_one_is_made_anew(by_ray_job: Any) -> None:
    with opened("materialise", by_ray_job) as engine:
        assert isinstance(engine, ray_job_engine.RayJobEngine)
        assert engine.map("builtins:len", [{"a": 1}, {}, {"lost": 1, "b": 2}]) == [1, 0, 2]
        assert len(OfStandIn.jobs) == 2
        assert Path(OfStandIn.jobs[0]).exists()
        with pytest.raises(PlatformError, match="a worker"):
            engine.map("builtins:int", [{}])
    assert not Path(OfStandIn.jobs[0]).exists(), "the token is gone with the step"


def test_a_ray_job_that_cannot_run_is_named(by_ray_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OfStandIn, "status", {"jobDeploymentStatus": "Failed", "message": "no dashboard"})
    with opened("materialise", by_ray_job) as engine:
        with pytest.raises(PlatformError, match="could not run the RayJob") as failed:
            engine.map("builtins:len", [{}])
        assert "no dashboard" in failed.value.detail
        for fields, said in ((None, "KubeRay is not installed"), (("rayVersion",), "knows no tokens")):
            monkeypatch.setattr(OfStandIn, "fields", fields)
            with pytest.raises(PlatformError, match=said):
                engine.map("builtins:len", [{}])


@pytest.mark.parametrize(("heads", "code"), [(["a", "b", ""], 0), (["a"] * 9, 1)])
def test_a_worker_follows_the_document_of_the_head(
    heads: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends when that is gone, and fails when one head is never reached, so that its Job gives it another pod."""
    joined: list[str] = []
    documents = iter(head and ray_worker.Head(address=head, token="t").model_dump_json() for head in heads)
    monkeypatch.setattr(ray_worker, "_read", lambda place, known: next(documents))
    monkeypatch.setattr(ray_worker, "_work", lambda head, place, known: joined.append(head.address))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert ray_worker.main("s3://lake/head.json") == code
    assert joined == (["a", "b"] if code == 0 else ["a"] * 3)
    assert ("the head of Ray is not reached: a" in capsys.readouterr().err) is bool(code)


def test_a_worker_that_is_told_to_end_fails_so_that_its_job_makes_another() -> None:
    """A pod that ends with 0 is one whose work is done: a Job whose pods were all deleted would be complete."""
    text = (
        "import sys, time\nfrom pipelines.data_engines import ray_worker\n"
        f"ray_worker._read = lambda place, known: {ray_worker.Head(address='a', token='t').model_dump_json()!r}\n"
        "ray_worker._work = lambda *_: (print('at work', flush=True), time.sleep(60))\n"
        "sys.exit(ray_worker.main('s3://lake/head.json'))"
    )
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "at work\n"
        worker.terminate()
        assert worker.wait(30) == 143
