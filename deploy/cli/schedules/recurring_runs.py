"""Schedules: recurring runs of Kubeflow Pipelines that start workflows of ours."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.cluster import kfp_api
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster_runs.submit import parameters, prepared
from deploy.cli.schedules import cron
from deploy.cli.schedules.schedule_state import ENDED, asked_of, cluster_zone, iso, ours, runs_of, times
from deploy.cli.terminal.advice import new_command

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Cluster, Profile
    from deploy.cli.runs.workflow import RunOptions
    from pipelines.run import Run

_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_OBJECTS = "scheduledworkflows.kubeflow.org"


def create(profile: Profile, run: Run, options: RunOptions) -> dict[str, Any]:
    """Make a schedule: one run at a time, none for times that have passed, each with an id of its own.

    Raises:
        PlatformError: ``code="bad_cron"``, ``"bad_timezone"``, ``"timezone"``: no such times on this cluster;
            ``"exists"``: the name is taken; ``"kfp"``.
    """
    cluster = profile.cluster
    assert cluster is not None
    asked = cron.parse(options.cron)
    name = _named(options.name or run.task.replace("_", "-"))
    there = cluster_zone(cluster)
    zone = cron.known_zone(options.timezone) if options.timezone else there
    fields = _there(asked, zone, there)
    client = kfp_api.connect(cluster)
    if any(found.display_name == name for found in ours(client)):
        raise PlatformError(
            f"there is a schedule {name} already",
            detail=f"look at it: fairlead schedules --profile {run.profile}",
            fix=f"take another name: --name NAME; or remove it first: fairlead schedules delete {name}",
            code="exists",
        )
    command = " ".join([_command(run), *replace(options, name=name).words()])
    with tempfile.TemporaryDirectory(prefix="fairlead-compile-") as folder:
        file, ready = prepared(profile, run.having(run_id="", schedule=name), Path(folder))
        with kfp_api.explained("Kubeflow Pipelines refused the schedule", prints=True):
            made = client.create_recurring_run(
                kfp_api.experiment_id(client, run.task),
                name,
                description=command,
                cron_expression=fields.expression(),
                max_concurrency=1,
                no_catchup=True,
                pipeline_package_path=str(file),
                params=parameters(ready),
                service_account=cluster.service_account,
            )
    coming = asked.next_times(zone, datetime.now(UTC))
    return {
        "recurring_run": str(made.recurring_run_id),
        "name": name,
        "task": run.task,
        "cron": str(asked),
        "words": cron.words(asked),
        "timezone": zone,
        "next": [moment.isoformat() for moment in coming],
        "image": run.placing.image or cluster.image,
        "copied": ready.source if run.source and "://" not in run.source else "",
    }


def _named(name: str) -> str:
    if _NAME.fullmatch(name):
        return name
    raise PlatformError(
        f"not a name of a schedule: {name!r}",
        detail="accepted: up to 63 small letters, digits, - and _",
        fix="write, for example: --name nightly",
        code="bad_name",
    )


def _command(run: Run) -> str:
    words = new_command(run.document(), run.profile)
    return f"{words} --no-cache" if run.nonce else words


def _there(asked: cron.Cron, zone: str, there: str) -> cron.Cron:
    """`asked` in the cluster's zone.

    Raises:
        PlatformError: ``code="timezone"``: five fields cannot say it there.
    """
    moved = cron.moved(asked, zone, there)
    if moved is not None:
        return moved
    first = asked.next_times(zone, datetime.now(UTC), 1)[0]
    raise PlatformError(
        f"schedules of this cluster are in {there}, and {str(asked)!r} of {zone} is no time of it the whole year",
        detail=f"the next would be {first:%Y-%m-%d %H:%M} there, {first.astimezone(UTC):%Y-%m-%d %H:%M} in UTC",
        fix=f"say the time in {there}: --timezone {there}; or let the loop start the model's runs, which takes any "
        f"zone: --set 'loop.schedule={asked}' --set loop.zone={zone} in place of --cron and --timezone; or let an "
        "administrator set the cluster's zone: helm upgrade fairlead helm/platform --reuse-values "
        f"--set pipelines.schedules.timezone={zone}",
        code="timezone",
    )


def find(client: Any, name: str) -> Any:
    """The schedule called `name`, or whose id it is.

    Raises:
        PlatformError: ``code="unknown_schedule"``, or ``"ambiguous"``: several have the name.
    """
    known = list(ours(client))
    found = [each for each in known if name in (each.display_name, each.recurring_run_id)]
    if not found:
        names = ", ".join(sorted(each.display_name for each in known))
        raise PlatformError(
            f"no schedule {name!r}",
            detail=f"there are: {names}" if names else "there is none",
            fix="fairlead schedules" if names else 'fairlead run TASK --cron "0 3 * * *"',
            code="unknown_schedule",
        )
    if len(found) > 1:
        ids = ", ".join(each.recurring_run_id for each in found)
        raise PlatformError(
            f"{len(found)} schedules are called {name}", detail=ids, fix="name one by its id", code="ambiguous"
        )
    return found[0]


def pause(profile: Profile, name: str) -> dict[str, Any]:
    """Start no more runs; one that is in progress goes on."""
    assert profile.cluster is not None
    client = kfp_api.connect(profile.cluster)
    schedule = find(client, name)
    with kfp_api.explained("the schedule was not paused"):
        client.disable_recurring_run(schedule.recurring_run_id)
    return {"name": schedule.display_name, "id": schedule.recurring_run_id, "paused": True}


def resume(profile: Profile, name: str) -> dict[str, Any]:
    """Start runs again from its next time on."""
    assert profile.cluster is not None
    client = kfp_api.connect(profile.cluster)
    schedule = find(client, name)
    missed = schedule.mode != "ENABLE" and not _forget_missed(profile.cluster, schedule)
    with kfp_api.explained("the schedule was not resumed"):
        client.enable_recurring_run(schedule.recurring_run_id)
    coming = times(schedule, cluster_zone(profile.cluster), False)
    return {
        "name": schedule.display_name,
        "id": schedule.recurring_run_id,
        "paused": False,
        "next": coming["next"],
        "timezone": coming["timezone"],
        "late_run": missed,
    }


def _forget_missed(cluster: Cluster, schedule: Any) -> bool:
    """Let the schedule begin now: the controller would start a run for the latest time that passed in the pause.

    Returns:
        Whether that could be said; it needs the right to change the schedule's object.
    """
    kube = Kube(cluster.namespace, cluster.context)
    begin = {"startTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    try:
        for item in kube.items(_OBJECTS):
            if item["metadata"].get("uid") == schedule.recurring_run_id and "cronSchedule" in item["spec"]["trigger"]:
                patch = json.dumps({"spec": {"trigger": {"cronSchedule": begin}}})
                kube.run("patch", _OBJECTS, item["metadata"]["name"], "--type=merge", "-p", patch)
                return True
    except PlatformError:
        return False
    return False


def run_now(profile: Profile, name: str) -> dict[str, Any]:
    """Start a run of a schedule now, as one of its own: the schedule waits for it.

    Raises:
        PlatformError: ``code="overlap"``: one of its runs is in progress.
    """
    import kfp_server_api

    from pipelines.run import new_run_id

    assert profile.cluster is not None
    client = kfp_api.connect(profile.cluster)
    found = find(client, name)
    active = [run for run in runs_of(client, found.recurring_run_id, 10) if run.state not in ENDED]
    if active:
        run = active[0].run_id
        raise PlatformError(
            f"a run of schedule {found.display_name} is in progress",
            detail=f"{active[0].display_name} ({run}), since {iso(active[0].created_at)}",
            fix=f"follow it: fairlead runs {run} --follow; or end it: fairlead runs {run} --cancel",
            code="overlap",
        )
    with kfp_api.explained("the run was not started", prints=True):
        schedule = client.get_recurring_run(found.recurring_run_id)
        given = asked_of(schedule)
        run_id = new_run_id(str(given["task"]))
        given |= {"run": run_id} if "run" in given else {}  # a schedule made on the page need not have it
        config = kfp_server_api.V2beta1RuntimeConfig(
            parameters=given, pipeline_root=schedule.runtime_config.pipeline_root
        )
        made = client._run_api.run_service_create_run(
            run=kfp_server_api.V2beta1Run(
                display_name=run_id,
                experiment_id=schedule.experiment_id,
                recurring_run_id=schedule.recurring_run_id,
                pipeline_spec=schedule.pipeline_spec,
                pipeline_version_reference=schedule.pipeline_version_reference,
                runtime_config=config,
                service_account=schedule.service_account or profile.cluster.service_account,
            )
        )
    return {"name": found.display_name, "run_id": run_id, "kfp_run": str(made.run_id)}


def delete(profile: Profile, name: str) -> dict[str, Any]:
    """Remove a schedule; its runs stay, and one that is in progress goes on."""
    assert profile.cluster is not None
    client = kfp_api.connect(profile.cluster)
    schedule = find(client, name)
    with kfp_api.explained("the schedule was not deleted"):
        client._recurring_run_api.recurring_run_service_delete_recurring_run(
            recurring_run_id=schedule.recurring_run_id, propagation_policy="ORPHAN"
        )
    return {"name": schedule.display_name, "id": schedule.recurring_run_id, "deleted": True}
