"""The steps of the loop one after the other in this process, for tests and benchmarks that look between them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from contracts.bundle import Bundle, write_bundle
from contracts.endpoints import Endpoints
from pipelines.steps.added import added as add_step
from pipelines.steps.added import added_steps
from pipelines.steps.calls import steps_of
from pipelines.steps.register import register
from pipelines.task import dump_config
from pipelines.tasks import get_task, recipe_config

PASSED = {"passed": True, "checks": [], "champion": None, "reasons": []}


@dataclass(kw_only=True)
class Chain:
    """Runs steps below `home`, with `apart` each in a process of its own; `seconds` has what each took."""

    task: str
    home: Path
    recipe: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    apart: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.endpoints = Endpoints(home=str(self.home)).resolved()
        self.settings: Any = recipe_config(get_task(self.task), self.recipe, self.overrides)
        self.config = dump_config(self.settings)
        self.version = ""

    def path(self, name: str) -> Path:
        return self.home / "chain" / name

    def call(self, step: str, *arguments: Any) -> Any:
        """Call step `step` with (task, config, *arguments) and keep its time."""
        from importlib import import_module

        function = getattr(import_module(f"pipelines.steps.{step}"), step)
        self.path(step).parent.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        given = (self.task, self.config, *map(str, arguments))
        if self.apart:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                result = pool.submit(function, *given).result()
        else:
            result = function(*given)
        self.seconds[step] = time.perf_counter() - start
        return result

    def dataset(self, last: str = "build_dataset") -> Path:
        """Source to joined splits, or to the end of step `last`; the folder with train, valid and test."""
        self.version = self.call("ingest", self.source, self.endpoints.data, self.path("manifest.json"))
        if last == "ingest":
            return self.path("manifest.json")
        self.call("validate", self.path("manifest.json"), self.path("clean"))
        if last == "validate":
            return self.path("clean")
        ends = self.endpoints.model_dump_json()
        features = self.path("features.json") if "materialise" in steps_of(get_task(self.task)) else ""
        if features:
            self.call("materialise", self.path("clean"), self.version, ends, features)
        added = [name for name, step in added_steps(get_task(self.task)).items() if step.after == "build_dataset"]
        made = self.path("dataset" if not added else "built")
        self.call("build_dataset", self.path("clean"), features, made)
        for at, name in enumerate(added):
            given, made = (
                {"build_dataset": str(made)},
                self.path("dataset" if at + 1 == len(added) else f"built-{name}"),
            )
            add_step(name, self.task, self.config, given, str(self.path(f"kept-{name}")), str(made))
        return self.path("dataset")

    def candidate(self) -> Path:
        """Train and evaluate on the data set; the folder of the candidate."""
        self.call("train", self.path("dataset"), self.path("checkpoints"), self.path("model"))
        lineage = {"code_version": "test", "data_version": self.version, "source": self.source or "built in"}
        arguments = (self.path("dataset"), self.path("model"), json.dumps(lineage), self.path("candidate"))
        self.call("evaluate", *arguments)
        return self.path("candidate")

    def bundle(self) -> Bundle:
        """The candidate as a bundle that passed a gate which asks nothing."""
        fields = json.loads((self.path("candidate") / "candidate.json").read_text())
        fields |= {"gate": PASSED, "lineage": {**fields["lineage"], "created": "2026-01-01T00:00:00Z"}}
        return write_bundle(self.path("candidate"), self.home / "published", fields)

    def published(self) -> dict[str, Any]:
        """The candidate judged by the gate, registered and, where it passed, champion; what the gate decided."""
        ends = self.endpoints.model_dump_json()
        self.call("gate", self.path("dataset"), self.path("candidate"), ends, self.path("gate.json"))
        candidate, decision, out = (str(self.path(name)) for name in ("candidate", "gate.json", "registered.json"))
        # It takes its flag as a bool, which `call` would turn into text.
        register(self.task, self.config, candidate, decision, ends, "chain", True, out)
        document: dict[str, Any] = json.loads(self.path("gate.json").read_text())
        return document

    def evaluation(self) -> dict[str, Any]:
        """What evaluate wrote: metrics, intervals, slices."""
        document: dict[str, Any] = json.loads((self.path("candidate") / "evaluation.json").read_text())
        return document
