"""``fairlead pipelines``: the workflows as Kubeflow's page and clients see them, and their runs of nobody."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.profiles.loading import load_cluster_profile
from deploy.cli.terminal.output import emit, table

if TYPE_CHECKING:
    from rich.console import Console

    from deploy.cli.cluster.cluster_settings import Cluster

_LOOK = "kubectl -n {} port-forward service/{} 8080:80, then http://localhost:8080/"
_PAGE = "app.kubernetes.io/part-of=fairlead,app.kubernetes.io/component=ui"


def publish_pipelines(profile: str, wait: float | None, as_json: bool) -> None:
    """Upload the workflows and say what is new."""
    from deploy.cli.pipelines.publish import publish

    where = load_cluster_profile(profile)
    assert where.cluster is not None
    made = publish(where, wait)
    look = _LOOK.format(where.cluster.namespace, _page(where.cluster))

    def show(out: Console) -> None:
        rows = table("pipeline", "version", "")
        for each in made:
            rows.add_row(each["name"], each["version"], "uploaded" if each["uploaded"] else "there already")
        out.print(rows)
        out.print("Run one: on the page, or with kfp.Client; only the parameter task is needed.")
        out.print(f"Page     {look}{made[0]['page']}  (where ui.enabled)", markup=False, soft_wrap=True)

    emit(made, as_json, show)


def _page(cluster: Cluster) -> str:
    """The Service of Kubeflow's page, which is called after the release."""
    from deploy.cli.cluster.kube import Kube

    with contextlib.suppress(PlatformError):  # who uploads need not see Services
        for service in Kube(cluster.namespace, cluster.context).items("services", "-l", _PAGE):
            return str(service["metadata"]["name"])
    return "RELEASE-ui"


def keep_runs(profile: str, every: float, once: bool, as_json: bool) -> None:
    """Start again what nobody follows and may succeed; for ever, or `once`. Tells each in a line of text or of JSON."""
    from deploy.cli.cluster_runs.access import open_access
    from deploy.cli.cluster_runs.keeper import Keeper

    keeper = Keeper(open_access(load_cluster_profile(profile)))
    tell = partial(_tell, as_json)
    if once:
        keeper.look(tell)
    else:
        keeper.keep(tell, every)


def _tell(as_json: bool, event: dict[str, Any]) -> None:
    said = json.dumps({**event, "time": round(time.time(), 3)}) if as_json else _in_words(event)
    sys.stdout.write(said + "\n")
    sys.stdout.flush()


def _in_words(event: dict[str, Any]) -> str:
    """Such as ``run restarted: news-1, as 4d32: train ran out of memory, with resources.train.memory=4Gi``."""
    run = str(event.get("run") or event.get("kfp_run") or "")
    error = event.get("error") or {}
    why = str(event.get("because") or f"{error.get('headline', '')} {error.get('detail', '')}".strip())
    changed = ", ".join(f"{key}={value}" for key, value in (event.get("changed") or {}).items())
    parts = [run, f"as {event['as']}" if "as" in event else "", why, f"with {changed}" if changed else ""]
    return f"{str(event['event']).replace('_', ' ')}: {'; '.join(filter(None, parts))}"


def show_pipelines(profile: str, as_json: bool) -> None:
    """List what is uploaded and whether it is of this release."""
    from deploy.cli.pipelines.publish import published

    found = published(load_cluster_profile(profile))
    emit(found, as_json, lambda out: _show(out, found))


def _show(out: Console, found: list[dict[str, Any]]) -> None:
    from rich.text import Text

    rows = table("pipeline", "version", "since", "", "what it does")
    for each in found:
        state = (
            Text("current", "green") if each["current"] else Text("older" if each["version"] else "missing", "yellow")
        )
        since = (each["created"] or "-")[:16].replace("T", " ")
        rows.add_row(each["name"], each["version"] or "-", since, state, each["description"])
    out.print(rows)
    if not all(each["current"] for each in found):
        out.print("Bring them up to this release: fairlead pipelines publish")
