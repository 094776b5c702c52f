"""Go on with a run that failed, with other settings where they are given."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.runs.run_files import find_run
from deploy.cli.runs.workflow import RunOptions, plan_scoring, source_given
from deploy.cli.terminal.advice import new_command, profile_words
from pipelines.run import Run

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints


def plan_resume(endpoints: Endpoints, run_id: str, options: RunOptions | None = None) -> Run:
    """The same run again, with other settings where they are given.

    Steps that succeeded come from the cache unless a setting changes what they are given, so it goes on where it
    failed; with `no_cache` every step runs again.

    Raises:
        PlatformError: an unknown run, one that has not failed, or a setting that the task does not have.
    """
    return resumed(endpoints, find_run(endpoints, run_id), options or RunOptions())


def resumed(endpoints: Endpoints, record: Mapping[str, Any], options: RunOptions) -> Run:
    """What goes on with the run of a record, on this machine or on a cluster; see `plan_resume`."""
    from pipelines.evaluation.gate_metrics import check_gate
    from pipelines.run_settings import split
    from pipelines.settings import changes, parse_setting
    from pipelines.tasks import changed_config, get_task
    from pipelines.values import as_document

    settings = given = dict(parse_setting(item) for item in options.overrides)
    if record["status"] in ("succeeded", "refused", "running", "waiting"):
        raise _not_resumed(record, options.profile, given)
    before = Run.model_validate(record)
    again = before.having(
        source=source_given(options.source) or before.source,
        nonce=f"{before.run_id}-{secrets.token_hex(2)}" if options.no_cache else before.nonce,
        placing=before.placing.having(options.placing),
        code_version="",
        schedule="",
        endpoints=endpoints,
        profile=options.profile,
    )
    if before.workflow == "batch_scoring":
        wanted = before.config | settings
        checked = plan_scoring(endpoints, before.model, again.source, wanted, before.out, before.to)
        return again.having(nonce="", config=checked.config, changed=changes(before.config, wanted))
    settings, of_run = split(given)
    changed = {key: value for key, value in of_run.items() if before.settings.get(key) != value}
    again = again.having(settings={**before.settings, **of_run}, changed=changed)
    if not settings:
        return again
    task = get_task(before.task)
    old, new = (changed_config(task, before.config, wanted) for wanted in ({}, settings))
    check_gate(task, new)
    config = as_document(new)
    return again.having(config=config, changed={**changes(as_document(old), config), **changed})


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
