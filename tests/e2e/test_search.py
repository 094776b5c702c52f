"""A search whose workers are pods of the cluster, with the chart's SQL server: one of them is lost in a trial."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts import storage
from deploy.cli.cluster.cluster_settings import SecretRef
from deploy.cli.cluster_runs import submit
from deploy.cli.training.search import SearchOptions, search_settings
from pipelines.run import Placing, Run
from pipelines.settings import parse_setting
from pipelines.tasks import get_task, recipe_config
from pipelines.values import as_document
from tests.e2e.spaces import apply, kubectl, need_image, space_of_steps
from tests.e2e.test_cluster_run import IMAGE, RUN, WHERE, reach_storage, step_pod

pytestmark = pytest.mark.e2e
DATABASE, TRIALS = "docker.io/library/mariadb:10.11.11", 8
STUDIES = "mysql+pymysql://search@fairlead-mariadb:3306/search"
SPACE = "search.space={model.rounds: {low: 400, high: 800}, model.learning_rate: {low: 0.01, high: 0.1, log: true}}"
# In a pod of the search: its process stops where it is, or goes on.
_SIGNAL = """
import os, pathlib, signal, sys
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    if b"pipelines.search.worker" in (entry / "cmdline").read_bytes().split(b"\\0"):
        os.kill(int(entry.name), getattr(signal, sys.argv[1]))
        print(entry.name)
"""
# What Kubeflow's launcher reads from a file when a task has ended.
_TELL = '"$@"; code=$?; echo; cat /tmp/step/out/executor_output.json; exit $code'
_OWNED = """
SELECT state, COUNT(*) FROM trials JOIN trial_user_attributes USING (trial_id)
WHERE `key` = 'worker' AND value_json LIKE '%/{pod}:%' GROUP BY state
"""


@dataclass
class Steps:
    """The tasks of one run as pods, which Kubeflow would start."""

    namespace: str
    folder: Path
    run: Run
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def start(self, name: str, pod: str = "") -> str:
        """Start a task's pod; its name."""
        given = submit.parameters(self.run)
        secret = SecretRef(name="fairlead-sql", password_key="search-password")
        made = step_pod(
            self.namespace, name, given, self.folder, tasks="few", run=RUN, asked=self.run,
            search=secret, outputs=self.outputs,
        )  # fmt: skip
        (main,) = made["spec"]["containers"]
        main["command"], main["args"] = ["sh", "-c", _TELL, "sh", *main["command"], *main["args"]], []
        main["resources"]["requests"] = {"cpu": "100m", "memory": "256Mi"}
        made["metadata"]["labels"]["workflows.argoproj.io/workflow"] = "full-abcde"
        made["metadata"]["name"] = pod or made["metadata"]["name"]
        apply(self.namespace, made)
        return str(made["metadata"]["name"])

    def end(self, name: str, pod: str = "") -> None:
        """Wait for the end of a task, and keep what it has said."""
        pod = pod or f"step-{name}"
        done = f"pod/{pod}", "--timeout=240s"
        kubectl("-n", self.namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", *done, check=False)
        log = kubectl("-n", self.namespace, "logs", pod, check=False)
        phase = kubectl("-n", self.namespace, "get", "pod", pod, "-o", "jsonpath={.status.phase}")
        assert phase == "Succeeded", log[-3000:]
        self.outputs[name] = json.loads(log.splitlines()[-1]).get("parameterValues", {})

    def trials(self, pod: str) -> dict[str, int]:
        """How many trials of each state a pod has had, by the SQL server."""
        asked = f'mariadb -uroot -p"$MARIADB_ROOT_PASSWORD" -N search -e "{_OWNED.format(pod=pod)}"'
        command = ("exec", "fairlead-mariadb-0", "-c", "mariadb", "--", "sh", "-c", asked.replace("`", "\\`"))
        found = kubectl("-n", self.namespace, *command, check=False)
        return {state: int(count) for state, count in map(str.split, found.splitlines())}

    def is_trying(self, pod: str) -> bool:
        """Whether a pod is in a trial."""
        return bool(self.trials(pod).get("RUNNING"))

    def signal(self, pod: str, what: str) -> bool:
        """Send a signal to the process of a pod that tries; whether there is one."""
        command = ("exec", pod, "--", "python", "-c", _SIGNAL, what)
        return bool(kubectl("-n", self.namespace, *command, check=False).strip())


@pytest.fixture
def namespace() -> Iterator[str]:
    more = {"global__search__enabled": True, "mariadb__persistence__enabled": False}
    with space_of_steps("search", "templates/mariadb.yaml", **more) as name:
        need_image(DATABASE)
        need_image(IMAGE)
        yield name


def asked(folder: Path) -> Run:
    """What ``fairlead search credit --workers 2`` asks of the pods."""
    profile = folder / "profile.yaml"
    profile.write_text(yaml.safe_dump({"studies": STUDIES}))
    told = search_settings(str(profile), SearchOptions(trials=TRIALS, workers=2, metrics=["roc_auc"]))
    config = recipe_config(get_task("credit"), "lightgbm", told | dict([parse_setting(SPACE)]))
    return Run(task="credit", config=as_document(config), placing=Placing(image=IMAGE), endpoints=WHERE)


def test_pods_of_a_search_count_every_trial_once_though_one_is_lost_in_a_trial(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(namespace, tmp_path, asked(tmp_path))
    kubectl("-n", namespace, "rollout", "status", "statefulset/fairlead-mariadb", "--timeout=240s")
    steps.start("prepare")
    steps.end("prepare")
    first, _ = steps.start("search"), steps.start("search-2")
    until = time.monotonic() + 120
    while not (steps.is_trying(first) and steps.signal(first, "SIGSTOP") and steps.is_trying(first)):
        steps.signal(first, "SIGCONT")  # it was between two trials
        assert time.monotonic() < until, steps.trials(first)
    kubectl("-n", namespace, "delete", "pod", first, "--grace-period=0", "--force")
    second = steps.start("search", "step-search-again")  # as Kubeflow does
    began = time.monotonic()
    steps.end("search", second)
    steps.end("search-2")
    assert time.monotonic() - began < 120, "nobody waits for signs of life of a pod that is gone"
    states = [steps.trials(pod) for pod in (first, second, "step-search-2")]
    assert states[0]["FAIL"] == 1
    assert sum(one.get("COMPLETE", 0) for one in states) == TRIALS
    steps.start("train")
    steps.end("train")
    reach_storage(namespace, monkeypatch)
    (file,) = [one.uri for one in storage.listing("s3://fairlead/data/.steps") if one.uri.endswith("/out/train.json")]
    search = json.loads(storage.read_bytes(file))["search"]
    assert (search["counts"]["tried"], search["counts"]["lost and repeated"]) == (TRIALS, 1)
    assert len({one["number"] for one in search["trials"]}) == TRIALS
