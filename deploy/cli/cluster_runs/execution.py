"""A run on a cluster from submission to report. It goes on by itself: here it is only followed."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
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
from deploy.cli.cluster_runs.submit import WORKFLOW, Placing, submit
from deploy.cli.cluster_runs.workflow_state import State
from deploy.cli.runs.progress import RunProgress, show_changes, show_steps
from deploy.cli.runs.resume import resumed
from deploy.cli.terminal.advice import pasteable, profile_words, resume_command
from deploy.cli.terminal.output import EXIT_INTERRUPTED, console, write_json

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints
    from deploy.cli.cluster.cluster_settings import Profile
    from deploy.cli.runs.workflow import RunRequest


def execute_on_cluster(profile: Profile, request: RunRequest, placing: Placing, as_json: bool) -> dict[str, Any]:
    """Submit, follow to the end, and return the content of its run.json.

    Ctrl-C stops to follow; the run goes on. What failed for want of memory, or lost its pods, is started once more:
    what is done comes from the cache.

    Raises:
        PlatformError: the run failed, with what the failing step said.
    """
    access = Access(profile)
    access.client, kfp_run = submit(access.profile, request, placing)
    if not as_json:
        console().print(f"Run [bold]{request.run_id}[/]  recipe {request.recipe}  Kubeflow run {kfp_run}")
        show_steps(console(), request)
        show_changes(console(), request.changed)
    found = noted(access, kfp_run, request, placing)
    while True:
        with Followed(access.records, found.kfp_run) as sign:
            state = _followed(access, found, request.profile, as_json)
            later = _started_again(access, found, state, sign)
        if later is None:
            return concluded(found, state, request.profile, placing)
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


def plan_resume_on_cluster(
    profile: Profile,
    endpoints: Endpoints,
    run_id: str,
    overrides: list[str],
    source: str,
    no_cache: bool,
    name: str,
    placing: Placing | None,
) -> tuple[RunRequest, Placing]:
    """The same run again as a new run of Kubeflow; where it runs is as before where nothing else is given.

    Raises:
        PlatformError: an unknown run, one that has not failed, or a setting that the task does not have.
    """
    access = open_access(profile)
    found = find_run(access, run_id)
    document = {**found.asked, **look_at(access, found, logs=True), "nonce": found.asked["nonce"]}
    request = resumed(endpoints, document, overrides, source, no_cache, name)
    before, given, usual = found.asked.get("placing") or {}, asdict(placing or Placing()), asdict(Placing())
    changed = {key: value for key, value in given.items() if value != usual[key]}
    kept = {key: value for key, value in before.items() if key in ("image", "train_gpus", "train_nodes")}
    return request, Placing(**{**kept, **changed})


def noted(access: Access, kfp_run: str, request: RunRequest, placing: Placing) -> Found:
    """A run that was submitted, with what it was asked left in its record, for whoever looks at it from elsewhere."""
    from pipelines.io.record import write_run
    from pipelines.steps.calls import steps_of
    from pipelines.tasks import get_task

    try:
        run = access.run(kfp_run)
    except PlatformError:  # the API may break off, or be broken: the run goes on, and is followed by its workflow
        run = _as_submitted(kfp_run, request)
    given = {key: value for key, value in asdict(placing).items() if value != getattr(Placing(), key)}
    steps = list(steps_of(get_task(request.task), WORKFLOW))
    about = asked_of(run, {"by": _user(), "placing": given, "settings": dict(request.settings), "steps": steps})
    parameters = (run.runtime_config and run.runtime_config.parameters) or {}
    more = {"code_version": parameters.get("code_version", ""), "image": placing.image}
    with contextlib.suppress(PlatformError):  # then its first step writes it
        write_run(access.records, kfp_run, {**about, **more})
    return Found(run=run, asked=about)


def _as_submitted(kfp_run: str, request: RunRequest) -> Any:
    """What Kubeflow's API would say of a run, as far as it is known here."""
    from kfp_server_api import V2beta1Run, V2beta1RuntimeConfig

    names = ("task", "recipe", "config", "source", "nonce", "promote")
    given = {"run": request.run_id, **{name: getattr(request, name) for name in names}}
    return V2beta1Run(
        run_id=kfp_run,
        display_name=request.run_id,
        created_at=datetime.now(UTC),
        runtime_config=V2beta1RuntimeConfig(parameters=given),
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


def _followed(access: Access, found: Found, profile: str, as_json: bool) -> State:
    follower = Follower(access, found.kfp_run, found.asked)
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
    words = placing.words() if placing is not None else []
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
