"""A suite in a run: pinned when the run is configured, asked by the step evaluate, required by the gate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.settings import setting
from pipelines.suites.document import Suite
from pipelines.suites.loading import load_suite
from pipelines.task import SuiteGate, Task, TaskConfig, problem_of

if TYPE_CHECKING:
    from contracts.bundle import BundleDocument
    from contracts.engine import Engine
    from pipelines.task import Progress

PROBLEM = "generation"


def pinned(task: Task, config: TaskConfig) -> TaskConfig:
    """The configuration with the version of ``gate.suite``, so that another content of its file is another evaluation.

    Raises:
        PlatformError: ``code="bad_config"``: the task's models write nothing, or a minimum is of no metric of the
            suite; and what `load_suite` raises.
    """
    gate = config.gate.suite
    if not gate.name:
        return config
    if problem_of(task) != PROBLEM:
        raise PlatformError(
            f"gate.suite asks models that write, and those of task {task.name} do not",
            detail=f"its problem is {problem_of(task)}",
            fix="leave gate.suite out",
            code="bad_config",
        )
    suite = load_suite(gate.name)
    known = measured_names(suite)
    if unknown := [name for name in gate.minimum if name not in known]:
        raise PlatformError(
            f"gate.suite.minimum names {unknown[0]!r}, which suite {suite.suite} does not measure",
            detail=f"measured: {', '.join(known)}",
            fix=setting("gate.suite.minimum", {"score": 0.5}),
            code="bad_config",
        )
    return replace(config, gate=replace(config.gate, suite=replace(gate, version=suite.version)))


def asked_suite(gate: SuiteGate) -> Suite:
    """The suite that a run was configured with.

    Raises:
        PlatformError: ``code="other_suite"``: its file has another content by now.
    """
    suite = load_suite(gate.name)
    if gate.version and suite.version != gate.version:
        raise PlatformError(
            f"suite {gate.name} is another one than the run was started with",
            detail=f"version {suite.version} here, {gate.version} when the run was started",
            fix="start a new run: fairlead run",
            code="other_suite",
            suite=gate.name,
        )
    return suite


def measure(engine: Engine, document: BundleDocument, gate: SuiteGate, progress: Progress) -> dict[str, Any]:
    """``suite`` of evaluation.json: what the candidate said, as `pipelines.suites.evaluation.evidence_of` gives it."""
    from pipelines.suites.asking import InProcess
    from pipelines.suites.evaluation import evidence_of

    asker = InProcess(engine, document.signature.inputs[0].name, document.name, "")
    return evidence_of(asked_suite(gate), asker, lambda doing, done, total: progress(done, total, doing="suite"))


def measured_names(suite: Suite) -> list[str]:
    """Of all metrics of a suite: ``score``, that of each language, and ``task.metric``."""
    languages = sorted({item.language for task in suite.tasks for item in task.items} - {""})
    of_tasks = [f"{task.name}.{name}" for task in suite.tasks for name in task.metrics]
    return ["score", *(f"{language}.score" for language in languages), *of_tasks]
