"""A run on a cluster from submission to report, recorded below the profile's home like a local one."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.advice import new_command, pasteable
from deploy.cli.cluster.follow import Follower
from deploy.cli.cluster.reach import reach
from deploy.cli.cluster.submit import WORKFLOW, Placing, submit
from deploy.cli.output import console
from deploy.cli.progress import RunProgress
from pipelines.steps.files import write_text

if TYPE_CHECKING:
    from deploy.cli.cluster.settings import Profile
    from deploy.cli.workflow import RunRequest


def execute_on_cluster(profile: Profile, request: RunRequest, placing: Placing, as_json: bool) -> dict[str, Any]:
    """Submit, follow to the end, and return the content of its run.json.

    Ctrl-C stops to follow; the run goes on.

    Raises:
        PlatformError: the run failed, with what the failing step said.
    """
    from pipelines.resources import ORDER

    assert profile.cluster is not None
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="milliseconds")
    client, run = submit(profile, request, placing)
    follower = Follower(client, reach(profile.cluster.kfp, profile.cluster), run, ORDER[WORKFLOW])

    def record(status: str) -> dict[str, Any]:
        document = {
            "run_id": request.run_id,
            "kfp_run": run,
            "workflow": WORKFLOW,
            "task": request.task,
            "recipe": request.recipe,
            "config": json.loads(request.config),
            "source": request.source,
            "settings": dict(request.settings),
            "status": status,
            "started": started,
            "seconds": round(time.monotonic() - began, 1),
            "steps": follower.steps,
            "error": follower.error.as_dict() if follower.error else None,
            "result": follower.results.get("register"),
        }
        write_text(request.endpoints.path("runs") / request.run_id / "run.json", json.dumps(document, indent=1) + "\n")
        return document

    record("submitted")
    if as_json:
        state = follower.follow(lambda event: None)
    else:
        out = console()
        out.print(f"Run [bold]{request.run_id}[/]  recipe {request.recipe}  Kubeflow run {run}")
        with RunProgress(out) as progress:
            state = follower.follow(progress.show)
    result = follower.results.get("register") or {}
    if state != "SUCCEEDED":
        record("failed")
        assert follower.error is not None
        raise _failed(follower.error, request, placing)
    return record("succeeded" if result.get("gate_passed", True) else "refused")


def _failed(error: PlatformError, request: RunRequest, placing: Placing) -> PlatformError:
    """The error with a cure that starts a new run: unchanged steps come from the cache of the cluster."""
    asked = {"task": request.task, "recipe": request.recipe, "config": json.loads(request.config)}
    asked |= {"source": request.source, "settings": dict(request.settings)}
    again = " ".join([new_command(asked, request.profile), *placing.words()])
    context = {**error.context, "run": request.run_id}
    fix = pasteable(error.fix, again)
    return PlatformError(error.headline, detail=error.detail, fix=fix, code=error.code, **context)
