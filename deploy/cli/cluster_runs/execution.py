"""A run on a cluster from submission to report. It goes on by itself: here it is only followed."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from contracts.errors import PlatformError
from deploy.cli.cluster_runs.access import Access, open_access
from deploy.cli.cluster_runs.follow import Follower
from deploy.cli.cluster_runs.lease import Followed
from deploy.cli.cluster_runs.lookup import Found, find_run, later_than, look_at
from deploy.cli.cluster_runs.restart import start_again
from deploy.cli.cluster_runs.run_document import asked_of, described, unknown_result
from deploy.cli.cluster_runs.submit import parameters, submit
from deploy.cli.cluster_runs.workflow_state import State
from deploy.cli.runs.progress import RunProgress, show_changes, show_steps
from deploy.cli.runs.resume import resumed
from deploy.cli.terminal.advice import pasteable, placing_words, profile_words, resume_command
from deploy.cli.terminal.output import EXIT_INTERRUPTED, console, write_json

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints
    from deploy.cli.cluster.cluster_settings import Profile
    from deploy.cli.runs.workflow import RunOptions
    from pipelines.run import Placing, Run


def execute_on_cluster(
    profile: Profile, run: Run, as_json: bool, show: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Submit, follow to the end, and return the content of its run.json; `show` sees every event.

    Ctrl-C stops to follow; the run goes on. What failed for want of memory, or lost its pods, is started once more:
    what is done comes from the cache.

    Raises:
        PlatformError: the run failed, with what the failing step said.
    """
    access = Access(profile)
    access.client, kfp_run, asked = submit(access.profile, run)
    if not as_json:
        console().print(f"Run [bold]{run.run_id}[/]  recipe {run.recipe}  Kubeflow run {kfp_run}")
        show_steps(console(), run)
        show_changes(console(), run.changed)
    found = noted(access, kfp_run, asked)
    while True:
        with Followed(access.records, found.kfp_run) as sign:
            state = _followed(access, found, run.profile, as_json, show)
            later = _started_again(access, found, state, sign)
        if later is None:
            return concluded(found, state, run.profile, run.placing)
        found = later
        if not as_json:
            restart = (found.asked.get("restarts") or [{}])[-1]
            said = f"{restart['error']['headline']}: " if restart else ""
            console().print(f"{said}what is left is started once more", markup=False, soft_wrap=True)
            console().print(f"Kubeflow run {found.kfp_run}")
            show_changes(console(), restart.get("changed") or {})


def _started_again(access: Access, found: Found, state: State, sign: Followed) -> Found | None:
    """The run that goes on with one that failed: made here, or by the keeper where it came first; None is none."""
    try:
        if sign.mine():
            return start_again(access, found, state, by=_user())
        return later_than(access, found) if state.error else None
    except PlatformError:  # no node has as much, or Kubeflow takes no run now: what counts is why this one failed
        return None


def plan_resume_on_cluster(profile: Profile, endpoints: Endpoints, run_id: str, options: RunOptions) -> Run:
    """The same run again as a new run of Kubeflow; where it runs is as before where nothing else is given.

    Raises:
        PlatformError: an unknown run, one that has not failed, or a setting that the task does not have.
    """
    access = open_access(profile)
    found = find_run(access, run_id)
    return resumed(endpoints, {**found.asked, **look_at(access, found, logs=True)}, options)


def noted(access: Access, kfp_run: str, run: Run) -> Found:
    """A run that was submitted, with what it was asked left in its record, for whoever looks at it from elsewhere."""
    from pipelines.io.record import write_run
    from pipelines.steps.calls import steps_of
    from pipelines.tasks import get_task

    try:
        made = access.run(kfp_run)
    except PlatformError:  # the API may break off, or be broken: the run goes on, and is followed by its workflow
        made = _as_submitted(kfp_run, run)
    standing = {"by": _user(), "steps": list(steps_of(get_task(run.task), run.workflow))}
    with contextlib.suppress(PlatformError):  # then its first step writes it
        write_run(access.records, kfp_run, run, standing)
    return Found(run=made, asked=asked_of(made, {**run.document(), **standing}))


def _as_submitted(kfp_run: str, run: Run) -> Any:
    """What Kubeflow's API would say of a run, as far as it is known here."""
    from kfp_server_api import V2beta1Run, V2beta1RuntimeConfig

    return V2beta1Run(
        run_id=kfp_run,
        display_name=run.run_id,
        created_at=datetime.now(UTC),
        runtime_config=V2beta1RuntimeConfig(parameters=parameters(run)),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


def follow_run(
    access: Access, found: Found, profile: str, as_json: bool, placing: Placing | None = None
) -> dict[str, Any]:
    """Follow a run to its end and return the content of its run.json.

    Raises:
        PlatformError: the run failed, with what the failing step said and the command that goes on with it.
    """
    return concluded(found, _followed(access, found, profile, as_json), profile, placing)


def _followed(
    access: Access,
    found: Found,
    profile: str,
    as_json: bool,
    show: Callable[[dict[str, Any]], None] | None = None,
) -> State:
    follower = Follower(access, found.kfp_run, found.asked)
    if show is not None:
        try:
            return follower.follow(show)
        except PlatformError as err:
            raise _with_commands(err, found, profile) from err
    with detachable(found.run_id, profile, as_json):
        try:
            if as_json:
                return follower.follow(lambda event: None)
            with RunProgress(console()) as progress:
                return follower.follow(progress.show)
        except PlatformError as err:
            raise _with_commands(err, found, profile) from err


def concluded(found: Found, state: State, profile: str, placing: Placing | None = None) -> dict[str, Any]:
    """The content of run.json of a run that has ended.

    Raises:
        PlatformError: it failed, with the command that goes on with it.
    """
    error = state.error or unknown_result(state, found.kfp_run)
    if error is not None:
        raise failed(error, found.run_id, profile, placing)
    return described(found.asked, state)


@contextmanager
def detachable(run_id: str, profile: str, as_json: bool) -> Iterator[None]:
    """Ctrl-C ends the following with its exit code, and says how to follow again and how to end the run."""
    try:
        yield
    except KeyboardInterrupt:
        look = " ".join(["fairlead runs", run_id, *profile_words(profile)])
        if as_json:
            write_json(
                {"run_id": run_id, "status": "running", "follow": f"{look} --follow", "cancel": f"{look} --cancel"}
            )
        said = f"\nNot followed any more; the run goes on. Follow it: {look} --follow   End it: {look} --cancel"
        console(stderr=True).print(said, markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def failed(error: PlatformError, run_id: str, profile: str, placing: Placing | None = None) -> PlatformError:
    """The error with the command that goes on with the run: what is done comes from the cache."""
    words = placing_words(placing) if placing is not None else []
    fix = pasteable(error.fix, " ".join([resume_command(run_id, profile), *words]))
    context = {**error.context, "run": run_id}
    return PlatformError(error.headline, detail=error.detail, fix=fix, code=error.code, **context)


def _with_commands(error: PlatformError, found: Found, profile: str) -> PlatformError:
    """An error of the following itself, with the command for this run."""
    look = " ".join(["fairlead runs", found.run_id, *profile_words(profile)])
    if error.code == "run_deleted":
        return failed(error, found.run_id, profile)
    fix = f"follow it again: {look} --follow" if error.code == "unreachable" else error.fix
    return PlatformError(error.headline, detail=error.detail, fix=fix, code=error.code, **error.context)
