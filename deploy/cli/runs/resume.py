"""Go on with a run that failed, with other settings where they are given."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.runs.run_files import find_run
from deploy.cli.runs.workflow import RunRequest, plan_scoring, source_given
from deploy.cli.terminal.advice import new_command, profile_words
from deploy.cli.terminal.options import DEFAULT_PROFILE

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints


def plan_resume(
    endpoints: Endpoints,
    run_id: str,
    overrides: Sequence[str] = (),
    source: str = "",
    no_cache: bool = False,
    profile: str = DEFAULT_PROFILE,
) -> RunRequest:
    """The same run again, with other settings where they are given.

    Steps that succeeded come from the cache unless a setting changes what they are given, so it goes on where it
    failed; with `no_cache` every step runs again.

    Raises:
        PlatformError: an unknown run, one that has not failed, or a setting that the task does not have.
    """
    return resumed(endpoints, find_run(endpoints, run_id), overrides, source, no_cache, profile)


def resumed(
    endpoints: Endpoints,
    run: Mapping[str, Any],
    overrides: Sequence[str] = (),
    source: str = "",
    no_cache: bool = False,
    profile: str = DEFAULT_PROFILE,
) -> RunRequest:
    """What goes on with `run`, the document of a run on this machine or on a cluster; see `plan_resume`."""
    from pipelines.run_settings import split
    from pipelines.settings import changes, parse_setting
    from pipelines.tasks import changed_config, check_gate, dump_config, get_task

    settings = given = dict(parse_setting(item) for item in overrides)
    if run["status"] in ("succeeded", "refused", "running", "waiting"):
        raise _not_resumed(run, profile, given)
    of_run: dict[str, Any] = {}
    if (run.get("workflow") or "full") != "batch_scoring":
        settings, of_run = split(given)
    before_run = run.get("settings") or {}
    config = run["config"] or {}
    request = RunRequest(
        run_id=run["run_id"],
        task=run["task"],
        recipe=run["recipe"],
        config=json.dumps(config),
        source=source_given(source) or run.get("source") or "",
        endpoints=endpoints,
        nonce=f"{run['run_id']}-{secrets.token_hex(2)}" if no_cache else _nonce(run),
        workflow=run.get("workflow") or "full",
        dataset=run.get("dataset") or "",
        promote=run.get("promote", True),
        profile=profile,
        settings={**before_run, **of_run},
        changed={key: value for key, value in of_run.items() if before_run.get(key) != value},
    )
    if request.workflow == "batch_scoring":
        wanted = config | settings
        again = plan_scoring(endpoints, run["model"], request.source, wanted, run.get("out") or "", request.run_id)
        return replace(again, changed=changes(config, wanted), profile=profile)
    if not settings:
        return request
    task = get_task(request.task)
    old, new = (changed_config(task, config, wanted) for wanted in ({}, settings))
    check_gate(task, new)
    before, after = dump_config(old), dump_config(new)
    changed = {**changes(json.loads(before), json.loads(after)), **request.changed}
    return replace(request, config=after, changed=changed)


def _nonce(run: Mapping[str, Any]) -> str:
    """What sets the run's steps apart from those in the cache; runs of earlier versions said only that they are."""
    return str(run.get("nonce") or (run["run_id"] if run.get("no_cache") else ""))


def _not_resumed(run: Mapping[str, Any], profile: str, settings: Mapping[str, Any]) -> PlatformError:
    run_id, running = run["run_id"], run["status"] in ("running", "waiting")
    look = " ".join(["fairlead runs", run_id, *profile_words(profile)])
    again = not running and settings and run.get("workflow", "full") == "full"
    return PlatformError(
        f"cannot resume {run_id}",
        detail="it is still running" if running else f"it ended: {run['status']}",
        fix=f"start a new one: {new_command(run, profile, settings)}" if again else f"look at it: {look}",
        code="not_resumed",
    )
