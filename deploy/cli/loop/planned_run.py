"""The run that the loop starts: that of the watched version again, on the data as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy.cli.runs.workflow import RunOptions, plan_run, source_given
from pipelines.run import Placing, Run

if TYPE_CHECKING:
    from contracts.bundle import BundleDocument
    from contracts.endpoints import Endpoints
    from contracts.loop_policy import LoopPolicy
    from deploy.cli.loop.runs import Runs


def plan(endpoints: Endpoints, runs: Runs, document: BundleDocument, policy: LoopPolicy, run: str, profile: str) -> Run:
    """A run called `run` that asks what the run of a bundle asked; it promotes nothing, and its model keeps the policy.

    Of a bundle whose run has no record here, the task's recipe is taken.

    Raises:
        PlatformError: the task, a setting of ``loop.settings`` or the source is none.
    """
    from pipelines.tasks import changed_config, get_task
    from pipelines.values import as_document

    changes = {**_flat(policy.settings), "loop": policy.model_dump(mode="json")}
    before = runs.asked(document.lineage.run)
    if before is None or before.task != document.task:
        options = RunOptions(source=policy.source, profile=profile)
        before = plan_run(endpoints, document.task, document.recipe, options)
    return before.having(
        run_id=run,
        workflow="full",
        dataset="",
        config=as_document(changed_config(get_task(document.task), before.config, changes)),
        source=source_given(policy.source or before.source),
        endpoints=endpoints,
        nonce="",
        placing=before.placing or Placing(),
        promote=False,
        code_version="",
        schedule="",
        profile=profile,
    )


def source_of(runs: Runs, document: BundleDocument, policy: LoopPolicy) -> str:
    """The rows that the next run reads; empty is the task's built-in data."""
    before = runs.asked(document.lineage.run)
    return policy.source or (before.source if before else "")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
