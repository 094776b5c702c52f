"""What each schedule is: its times in words, its last run, and whether it is of the installed release."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.cluster import kfp_api
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.port_forward import use_storage
from deploy.cli.cluster_runs.submit import record_root
from deploy.cli.schedules import cron

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Cluster, Profile

UTC_ZONE = "UTC"
ENDED = {"SUCCEEDED": "succeeded", "FAILED": "failed", "CANCELED": "cancelled", "SKIPPED": "skipped"}
"""States of Kubeflow in which a run is over, as ours."""

_ZONE_VARIABLE = "CRON_SCHEDULE_TIMEZONE"


def cluster_zone(cluster: Cluster) -> str:
    """The one time zone in which the cluster's controller reads schedules; UTC where it cannot be looked up."""
    with contextlib.suppress(PlatformError):
        for deployment in Kube(cluster.namespace, cluster.context).items("deployments"):
            for container in deployment["spec"]["template"]["spec"]["containers"]:
                for variable in container.get("env", []):
                    if variable["name"] == _ZONE_VARIABLE and variable.get("value"):
                        return str(variable["value"])
    return UTC_ZONE


def ours(client: Any) -> Iterator[Any]:
    """Recurring runs of workflows of ours; what others schedule in the same Kubeflow is not looked at."""
    with kfp_api.explained("Kubeflow Pipelines did not list the schedules"):
        namespace = client.get_user_namespace() or None
        found = list(kfp_api.every(client.list_recurring_runs, "recurring_runs", namespace=namespace))
    yield from (each for each in found if "task" in asked_of(each))


def asked_of(schedule: Any) -> dict[str, Any]:
    """The parameters of its runs."""
    return dict((schedule.runtime_config and schedule.runtime_config.parameters) or {})


def command_of(schedule: Any) -> str:
    """The command that made it; "" when none of ours did."""
    text = str(schedule.description or "")
    return text if text.startswith("fairlead run ") else ""


def listed(profile: Profile) -> list[dict[str, Any]]:
    """What each schedule does, when, and how its last run ended; by name."""
    assert profile.cluster is not None
    client = kfp_api.connect(profile.cluster)
    zone = cluster_zone(profile.cluster)
    found = [_described(profile, client, zone, each) for each in ours(client)]
    return sorted(found, key=lambda each: (each["name"], each["id"]))


def _described(profile: Profile, client: Any, zone: str, schedule: Any) -> dict[str, Any]:
    given, command = asked_of(schedule), command_of(schedule)
    paused = schedule.mode != "ENABLE"
    image, why = _image(schedule), ""
    with contextlib.suppress(PlatformError, ValueError):
        why = _outdated(profile, command, image, given)
    recipe = str(given.get("recipe") or "")
    with contextlib.suppress(ValueError):
        recipe = recipe or json.loads(given.get("config") or "{}").get("recipe", "")
    again = f"fairlead schedules delete {shlex.quote(schedule.display_name)} && {command}" if command else ""
    return {
        "name": schedule.display_name,
        "id": schedule.recurring_run_id,
        "task": given["task"],
        "recipe": recipe,
        "source": given.get("source", ""),
        **times(schedule, zone, paused),
        "paused": paused,
        "last": _last(profile, client, schedule.recurring_run_id),
        "image": image,
        "code_version": given.get("code_version", ""),
        "outdated": why,
        "command": command,
        "again": again if why else "",
    }


def times(schedule: Any, zone: str, paused: bool) -> dict[str, Any]:
    """Fields, words and next time: in the zone that was asked for where it is the same, else in the cluster's."""
    trigger = schedule.trigger
    if trigger is None or trigger.cron_schedule is None or not trigger.cron_schedule.cron:
        every = trigger and trigger.periodic_schedule and trigger.periodic_schedule.interval_second
        words = f"every {every} seconds" if every else "at no time"
        return {"cron": "", "words": words, "timezone": zone, "next": None}
    text = trigger.cron_schedule.cron
    try:
        fields = cron.parse(text.removeprefix("0 ") if len(text.split()) == 6 else text)
        fields, zone = _asked(command_of(schedule), fields, zone)
    except PlatformError:  # made elsewhere, with seconds or a word
        return {"cron": text, "words": text, "timezone": zone, "next": None}
    next_ = None if paused else fields.next_times(zone, datetime.now(UTC), 1)[0].isoformat()
    return {"cron": str(fields), "words": cron.words(fields), "timezone": zone, "next": next_}


def _asked(command: str, fields: cron.Cron, zone: str) -> tuple[cron.Cron, str]:
    words = shlex.split(command)
    if "--cron" not in words or "--timezone" not in words:
        return fields, zone
    asked, other = cron.parse(words[words.index("--cron") + 1]), words[words.index("--timezone") + 1]
    moved = cron.moved(asked, other, zone)
    return (asked, other) if moved is not None and moved.expression() == fields.expression() else (fields, zone)


def _image(schedule: Any) -> str:
    """The image of the steps, "" for a schedule of a published pipeline: it takes that version's."""
    spec = schedule.pipeline_spec or {}
    executors = spec.get("pipeline_spec", spec).get("deploymentSpec", {}).get("executors", {})
    images = {each["container"]["image"] for each in executors.values() if "container" in each}
    return ", ".join(sorted(images))


def _outdated(profile: Profile, command: str, image: str, given: dict[str, Any]) -> str:
    """Why a schedule runs other code than the installed release; "" when it does not."""
    from pipelines.code_version import code_version

    assert profile.cluster is not None
    installed = profile.cluster.image
    chosen = "--image" in shlex.split(command)
    if image and image != installed and not chosen:
        (old, _, old_tag), (new, _, new_tag) = image.rpartition(":"), installed.rpartition(":")
        return f"made by {old_tag if old == new else image}, installed is {new_tag if old == new else installed}"
    code = str(given.get("code_version") or "").partition(".")[0]
    here = code_version(str(given["task"])).partition(".")[0] if code else ""
    return f"made of code {code}, here is {here}" if code != here else ""


def _last(profile: Profile, client: Any, schedule: str) -> dict[str, Any] | None:
    """The latest run, with what its own record says of the verdict."""
    runs = runs_of(client, schedule, 1)
    if not runs:
        return None
    run = runs[0]
    status = ENDED.get(run.state, "running")
    recorded: dict[str, Any] = {}
    with contextlib.suppress(PlatformError):
        recorded = _record(profile, run.run_id)
    if status == "succeeded" and recorded.get("refused"):
        status = "refused"
    return {
        "run": recorded.get("run_id") or run.display_name,
        "kfp_run": run.run_id,
        "status": status,
        "started": iso(run.created_at),
        "finished": iso(run.finished_at) if run.state in ENDED else None,
    }


def runs_of(client: Any, schedule: str, most: int) -> list[Any]:
    """The latest runs of a schedule, the newest first."""
    with kfp_api.explained("Kubeflow Pipelines did not list the runs"):
        answer = client.list_runs(
            page_size=most,
            sort_by="created_at desc",
            namespace=client.get_user_namespace() or None,
            filter=kfp_api.equal("recurring_run_id", schedule),
        )
    return list(answer.runs or [])


def _record(profile: Profile, kfp_run: str) -> dict[str, Any]:
    from pipelines.io.record import read_run, read_steps

    assert profile.cluster is not None
    use_storage(profile.cluster)
    root = record_root(profile)
    result = (read_steps(root, kfp_run).get("register") or {}).get("result") or {}
    return {**(read_run(root, kfp_run) or {}), "refused": result.get("gate_passed") is False}


def iso(moment: datetime | None) -> str | None:
    """A moment of the API for a document."""
    return moment.isoformat() if moment else None
