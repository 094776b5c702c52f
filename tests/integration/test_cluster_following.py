"""``fairlead run news`` on a cluster as a person starts it: the command line as a process, pods as processes.

Kubernetes and Kubeflow Pipelines are stand-ins (tests/kfp_stand_in.py); S3, MLflow, the compiled workflow and its
steps are real, and times are those of a clock.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from tests.argo import NEVER, SHORT_OF_CPU, Scenario, Try, grouped
from tests.kfp_stand_in import StandIn, kfp_stand_in
from tests.kubectl_stand_in import node
from tests.pods import Pods
from tests.servers import mlflow_server, s3_server

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
STEPS = ("ingest", "validate", "build_dataset", "train", "evaluate", "gate", "register")
CACHED = {"validate", "build_dataset", "train"}
OUT_OF_MEMORY = Try(starts=0.3, seconds=0.5, outcome="oom")
PATIENCE = 400.0  # seconds, of a machine that has much else to do
REFUSING = 'gate.thresholds=[{"metric":"accuracy","minimum":0.999}]'


@dataclass
class Said:
    """What a command has printed so far on both streams, each line with its time."""

    child: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)
    out: str = ""

    def __post_init__(self) -> None:
        for stream in (self.child.stdout, self.child.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.append((time.monotonic(), line))
            self.out += line if stream is self.child.stdout else ""

    @property
    def text(self) -> str:
        return "".join(line for _, line in self.lines)

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def when(self, words: str, patience: float = PATIENCE) -> float:
        """The moment at which a line with these words came."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if found := [at for at, line in list(self.lines) if words in line]:
                return found[0]
            time.sleep(0.02)
        raise AssertionError(f"{words!r} was not said within {patience:.0f} s:\n{self.text}")


@dataclass
class Person:
    """Somebody at a terminal with a profile of the cluster."""

    cluster: StandIn
    pods: Pods
    environment: dict[str, str]

    def starts(self, *arguments: str) -> Said:
        command = [
            sys.executable,
            "-m",
            "deploy.cli",
            *arguments,
            "--profile",
            str(Path(self.environment["FAIRLEAD_HOME"]) / "cluster.yaml"),
        ]
        child = subprocess.Popen(
            command,
            cwd=self.environment["FAIRLEAD_HOME"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Said(child)

    def runs(self, *arguments: str) -> Said:
        """A command that has ended."""
        said = self.starts(*arguments)
        said.child.wait(timeout=PATIENCE)
        time.sleep(0.1)
        return said

    @staticmethod
    def slowness() -> float:
        """How many times longer than on an idle machine a small program takes now, at least 1."""
        began = time.monotonic()
        for _ in range(3):
            subprocess.run([sys.executable, "-IS", "-c", "import http.client, json, threading"], check=True)
        return max(1.0, (time.monotonic() - began) / 0.3)


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    folder = tmp_path_factory.mktemp("following")
    with (
        pytest.MonkeyPatch.context() as patch,
        s3_server(folder, "lake") as storage,
        mlflow_server(folder, storage, "lake") as tracking,
        kfp_stand_in(speed=1.0) as cluster,
    ):
        cluster.put_on_path(folder, patch)
        home = folder / "home"
        home.mkdir()
        places = {name: f"s3://lake/{name}" for name in ("data", "artifacts", "features", "predictions")}
        reached = {"kfp": "http://ml-pipeline:8888", "storage": {"endpoint": storage["AWS_ENDPOINT_URL"]}}
        reached |= {"image": "registry/pipelines:1", "scratch": str(folder / "scratch")}
        profile = {**places, "tracking": tracking, "online": "redis://127.0.0.1:1/0", "cluster": reached}
        (home / "cluster.yaml").write_text(yaml.safe_dump(profile))
        path = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        pods = Pods(cluster, folder / "pods", {**path, **storage})
        state = {
            "FAIRLEAD_HOME": str(home),
            "XDG_STATE_HOME": str(folder / "state"),
            "COLUMNS": "100",
            "HOME": str(home),
        }
        yield Person(cluster, pods, {**path, **storage, **state})
        pods.join()


@pytest.fixture(scope="module")
def first(person: Person) -> Said:
    """A first run, whose API server restarts while it is followed."""
    person.cluster.api.scenarios = [person.pods.scenario]
    said = person.starts("run", "news")
    said.when("Kubeflow run")
    person.cluster.restart(3.0)
    assert said.child.wait(timeout=PATIENCE) == 0, said.text
    return said


def test_a_run_is_followed_to_its_report_while_the_api_server_restarts(person: Person, first: Said) -> None:
    for step in STEPS:
        first.when(step, patience=1.0)
    first.when("news:1", patience=1.0)
    assert "champion" in first.text
    assert person.cluster.busiest(10.0) <= 20  # two a second, looked at over ten seconds


def test_kubeflows_page_of_that_run_has_its_card_data_and_verdict(person: Person, first: Said) -> None:
    run = next(iter(person.cluster.api.runs.values()))
    (task,) = run.scenario.tasks
    shown = {file.name: file for file in (person.pods.folder / run.scenario.run_id / task.name).iterdir()}
    assert shown["gate"].read_text().startswith("# Gate: **passed**")
    assert "data:image/png;base64," in shown["card"].read_text()
    assert "<svg" in shown["data_report"].read_text()


def test_a_refused_model_ends_with_3_after_a_pod_without_memory_and_with_the_cache(person: Person, first: Said) -> None:
    """The first pod is killed: the follower starts the rest once more with twice the memory, and the gate refuses."""
    alone = grouped("prepare-train-judge", **{"prepare-train-judge": _quick((OUT_OF_MEMORY,))})
    lost = Scenario(tasks=alone, driver=_SOON, settles=0.2)
    person.cluster.api.scenarios = [lost, person.pods.scenario]
    person.cluster.kubectl.objects = [node(cpu="4", memory="16Gi")]
    refused = person.runs("run", "news", "--set", REFUSING, "--json")
    assert refused.child.returncode == 3, refused.text
    report = refused.json
    assert {name for name, step in report["steps"].items() if step["status"] == "cached"} == CACHED
    assert (report["status"], report["gate"]["passed"], report["result"]["champion"]) == ("refused", False, False)
    assert report["result"]["version"] != "1"
    assert "must be at least 0.999" in report["gate"]["reasons"][0]
    (restart,) = report["restarts"]
    assert (restart["error"]["code"], restart["changed"]) == ("out_of_memory", {"resources.ingest.memory": "4Gi"})
    assert [run["status"] for run in person.runs("runs", "--json").json][:2] == ["refused", "succeeded"]


def test_a_step_that_fails_is_told_in_its_own_words_within_seconds_of_its_pods_end(person: Person) -> None:
    person.cluster.api.scenarios = [person.pods.scenario]
    said = person.starts("run", "news", "--source", "s3://lake/none.csv")
    told = said.when("not found: s3://lake/none.csv")
    assert said.child.wait(timeout=PATIENCE) == 1
    run = person.cluster.run
    (task,) = run.scenario.tasks
    ended = run.began + run.scenario.node(f"root.{task.name}.executor(0)").ends
    assert told - ended < 5.0 * person.slowness()
    assert "--resume" in said.text


def test_out_of_memory_is_told_with_the_limit_where_no_node_has_twice_as_much(person: Person) -> None:
    person.cluster.kubectl.objects = [node(memory="3900Mi")]
    person.cluster.api.scenarios = [
        Scenario(tasks=grouped("all", all=_quick((OUT_OF_MEMORY, OUT_OF_MEMORY))), driver=_SOON, settles=0.2)
    ]
    said = person.runs("run", "news", "--json")
    error = said.json["error"]
    assert (said.child.returncode, error["code"]) == (1, "out_of_memory")
    assert "2Gi" in error["headline"] + error["detail"]


def test_a_pod_without_a_node_is_told_within_ten_seconds_and_ctrl_c_leaves_the_run_alone(person: Person) -> None:
    person.cluster.kubectl.objects = [node(cpu="1500m")]
    asks = {"requests": {"cpu": "4"}, "limits": {"memory": "2Gi"}}
    waits = (Try(waits=NEVER, message=SHORT_OF_CPU),)
    made = Scenario(tasks=grouped("all", all={**_quick(waits), "resources": asks}), driver=_SOON, settles=0.2)
    person.cluster.api.scenarios = [made]
    said = person.starts("run", "news")
    began = said.when("Kubeflow run")
    assert said.when("4 cores") - began < 10.0 * person.slowness()
    said.child.send_signal(signal.SIGINT)
    assert said.child.wait(timeout=PATIENCE) == 130
    assert "--follow" in said.text
    run = person.cluster.run
    assert run.scenario.cancelled == NEVER


_SOON = Try(starts=0.2, seconds=0.2)


def _quick(tries: tuple[Try, ...]) -> dict[str, Any]:
    return {"tries": tries, "driver": _SOON, "backoff": 1.0}
