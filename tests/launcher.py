"""What KFP's launcher does for one step at a time: the compiled command, in a folder that no other step sees.

Artifacts are copied in and out of a store, as they are through S3 on a cluster; everything else of a step's folder is
deleted when it ends, so a step that counts on a shared disk fails.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass
class Launcher:
    """Runs the tasks of a compiled workflow (IR) in their order.

    Attributes:
        events: what the tasks printed, by task.  outputs: their output parameters, by task.
        metadata: of their output artifacts, by task and artifact.
    """

    file: Path
    store: Path
    environment: Mapping[str, str]
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spec = next(yaml.load_all(self.file.read_text(encoding="utf-8"), yaml.CSafeLoader))

    def run(self, arguments: Mapping[str, Any]) -> None:
        """Every task once, each after those it depends on."""
        tasks = dict(self.spec["root"]["dag"]["tasks"])
        declared = self.spec["root"]["inputDefinitions"]["parameters"]
        given = {name: declared[name].get("defaultValue") for name in declared} | dict(arguments)
        while tasks:
            name = next(n for n, task in tasks.items() if not set(task.get("dependentTasks", ())) & set(tasks))
            self._task(name, tasks.pop(name), given)

    def executor_input(self, name: str, task: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> Any:
        """The document that a step gets, with inputs copied below `folder` and outputs to be written there."""
        component = self.spec["components"][task["componentRef"]["name"]]
        inputs = task.get("inputs", {})
        parameters = {key: self._value(source, given) for key, source in inputs.get("parameters", {}).items()}
        artifacts = {}
        for key, source in inputs.get("artifacts", {}).items():
            wanted = source["taskOutputArtifact"]
            kept = self.store / wanted["producerTask"] / wanted["outputArtifactKey"]
            here = folder / "in" / key
            here.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(kept, here) if kept.is_dir() else shutil.copyfile(kept, here)
            artifacts[key] = {"artifacts": [_artifact(key, here, component["inputDefinitions"]["artifacts"][key])]}
        declared = component.get("outputDefinitions", {})
        out = folder / "out"
        made = {
            key: {"artifacts": [_artifact(key, out / key, kind)]} for key, kind in declared.get("artifacts", {}).items()
        }
        written = {key: {"outputFile": str(out / f"{key}.txt")} for key in declared.get("parameters", {})}
        return {
            "inputs": {"parameterValues": parameters, "artifacts": artifacts},
            "outputs": {"parameters": written, "artifacts": made, "outputFile": str(out / "executor_output.json")},
        }

    def command(self, name: str, document: Any) -> list[str]:
        """The container's command line with its placeholder filled in."""
        component = self.spec["components"][self.spec["root"]["dag"]["tasks"][name]["componentRef"]["name"]]
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        return [part.replace("{{$}}", json.dumps(document)) for part in [*container["command"], *container["args"]]]

    def start(
        self, name: str, command: list[str], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run the container's command of a task."""
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    def _task(self, name: str, task: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        folder = self.store / f".{name}"
        (folder / "out").mkdir(parents=True)
        (folder / "tmp").mkdir()
        document = self.executor_input(name, task, given, folder)
        environment = {**self.environment, "TMPDIR": str(folder / "tmp"), "HOME": str(folder / "tmp")}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        done = self.start(name, self.command(name, document), folder, environment)
        step = name.replace("-", "_")
        self.events[step] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"event"')]
        assert done.returncode == 0, f"{name}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
        said = json.loads((folder / "out" / "executor_output.json").read_text())
        self.outputs[step] = said.get("parameterValues", {})
        self.metadata[step] = {key: made["artifacts"][0]["metadata"] for key, made in said.get("artifacts", {}).items()}
        for key in document["outputs"]["artifacts"]:
            target = self.store / name / key
            target.parent.mkdir(exist_ok=True)
            if (folder / "out" / key).exists():  # what a task does not write is no fault, as with the launcher
                shutil.move(folder / "out" / key, target)
        shutil.rmtree(folder)

    def _value(self, source: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        if "componentInputParameter" in source:
            return given[source["componentInputParameter"]]
        if "taskOutputParameter" in source:
            wanted = source["taskOutputParameter"]
            return self.outputs[wanted["producerTask"].replace("-", "_")][wanted["outputParameterKey"]]
        return source["runtimeValue"]["constant"]


def _artifact(name: str, path: Path, kind: Mapping[str, Any]) -> dict[str, Any]:
    # A plain path stands for the local copy that the launcher mounts; KFP's executor takes it as it is.
    return {"name": name, "type": kind["artifactType"], "uri": str(path), "metadata": {}}
