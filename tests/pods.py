"""Pods of the stand-in of Kubeflow as processes: each task of a run is what KFP's launcher starts in its container."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tests.argo import NEVER, Scenario, Try, of_spec, pod_name
from tests.kfp_run import Run
from tests.kfp_stand_in import StandIn
from tests.launcher import Launcher

_SOON = Try(starts=0.2, seconds=0.2)


@dataclass
class Pods:
    """Gives runs that are made a life: their tasks run here, and last and end as they do.

    Attributes:
        environment: variables of every pod beside those of its container (Secrets of the cluster).
    """

    cluster: StandIn
    folder: Path
    environment: Mapping[str, str]
    threads: list[threading.Thread] = field(default_factory=list)

    def scenario(self, spec: dict[str, Any]) -> Scenario:
        """The life of a run of a compiled workflow; for `tests.kfp_api.Api.scenarios`."""
        made = of_spec(spec, driver=_SOON, settles=0.2, actions=((0.0, self._begin),))
        tries = (Try(starts=0.3, seconds=NEVER),)
        return replace(made, tasks=tuple(replace(task, driver=_SOON, tries=tries) for task in made.tasks))

    def join(self) -> None:
        """Wait until all that was started has ended."""
        for thread in self.threads:
            thread.join(60)

    def _begin(self, scenario: Scenario) -> None:
        run = self.cluster.api.runs[scenario.run_id]
        thread = threading.Thread(target=self._live, args=(run,), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _live(self, run: Run) -> None:
        store = self.folder / run.scenario.run_id
        store.mkdir(parents=True)
        spec = run.document["pipeline_spec"]
        (store / "ir.yaml").write_text(yaml.safe_dump(spec.get("pipeline_spec", spec)), encoding="utf-8")
        launcher = _Pods(store / "ir.yaml", store, self.environment, run)
        with suppress(AssertionError):  # a task has failed: those after it are left out
            launcher.run(run.document["runtime_config"]["parameters"])


class _Pods(Launcher):
    """A launcher whose tasks show in the scenario of a run, with their logs, as they go."""

    def __init__(self, file: Path, store: Path, environment: Mapping[str, str], run: Run) -> None:
        super().__init__(file, store, environment)
        self._run = run

    def start(
        self, name: str, command: list[str], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        run = self._run
        node = run.scenario.node(f"root.{name}.executor(0)")
        begins = node.begins + 0.3
        time.sleep(max(0.0, begins - run.now()) / run.speed)
        pod = {
            "FAIRLEAD_KFP_RUN": run.scenario.run_id,
            "FAIRLEAD_POD": pod_name(run.scenario.workflow, node),
            "FAIRLEAD_NODE": node.name,
        }
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, **self._variables(name), **pod},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert child.stdout is not None
        log: list[tuple[float, str]] = []
        for line in child.stdout:
            log.append((run.now() - begins, line.rstrip("\n")))
            self._show(name, seconds=NEVER, log=tuple(log))
        code = child.wait()
        ended = {"seconds": run.now() - begins, "outcome": "error" if code else "ok", "exit_code": code}
        self._show(name, log=tuple(log), **ended)
        return subprocess.CompletedProcess(command, code, "\n".join(line for _, line in log), "")

    def _variables(self, name: str) -> dict[str, str]:
        component = self.spec["components"][self.spec["root"]["dag"]["tasks"][name]["componentRef"]["name"]]
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        return {item["name"]: item["value"] for item in container.get("env", ()) if item["name"] != "HOME"}

    def _show(self, name: str, **fields: Any) -> None:
        self._run.scenario = self._run.scenario.with_task(name, tries=(Try(starts=0.3, **fields),))
