"""``fairlead diagnose``: what fails in an environment, with what it said and what it most likely means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.pod_diagnosis import Trouble, explain, pod_troubles
from deploy.cli.profiles.loading import load_cluster_profile
from deploy.cli.releases.release_values import release_name
from deploy.cli.releases.rollout_page import document as rollout_document
from deploy.cli.releases.rollout_page import page
from deploy.cli.releases.unlogged import release_values_of, unlogged
from deploy.cli.terminal.output import EXIT_ERROR, emit

if TYPE_CHECKING:
    from rich.console import Console

    from services.rollout.store import Served


def run_diagnose(env: str, release: str | None, as_json: bool) -> None:
    """Look at pods, claims, workloads that get no pods, releases and rollouts; exit with 1 when something is wrong.

    How far a rollout is and why, and that a release logs nowhere, is told without being wrong.
    """
    profile = load_cluster_profile(env)
    cluster = profile.cluster
    assert cluster is not None
    kube = Kube(cluster.namespace, cluster.context)
    kube.run("get", "namespace", cluster.namespace)
    instance = release_name(release) if release else ""
    selector = f"app.kubernetes.io/instance={instance}" if instance else ""
    rollouts, torn = _rollouts(kube, selector)
    releases = [item for item in kube.releases() if not instance or item["name"] == instance]
    served = [item["name"] for item in releases if item["chart"].startswith("model-service-")]
    seen = [unlogged(name, release_values_of(kube, name), profile, env) for name in served]
    remarks = [one.as_dict() for one in seen if one]
    found = [
        *pod_troubles(kube, selector),
        *_claims(kube, selector),
        *_workloads(kube, selector),
        *_releases(kube, releases),
        *torn,
    ]
    document = {
        "namespace": cluster.namespace,
        "release": instance,
        "ok": not found,
        "troubles": [trouble.as_dict() for trouble in found],
        "rollouts": [rollout_document(one) for one in rollouts],
        "remarks": remarks,
        "events": recent_warnings(kube),
    }

    def show(out: Console) -> None:
        if not found:
            out.print(f"[green]Nothing is wrong[/] in namespace {cluster.namespace}.")
        _show_troubles(out, found)
        for one in rollouts:
            out.print(page(one))
        for remark in remarks:
            out.print(f"Note: {remark['said']}", soft_wrap=True, markup=False)
            out.print(f"  Fix:    {remark['fix']}", soft_wrap=True, markup=False)

    emit(document, as_json, show)
    if found:
        raise typer.Exit(EXIT_ERROR)


def _show_troubles(out: Console, found: Sequence[Trouble]) -> None:
    from rich.text import Text

    for trouble in found:
        out.print(Text.assemble((trouble.what, "bold"), f"  {trouble.state}"), soft_wrap=True)
        out.print(Text.assemble(("  Likely: ", "bold yellow"), trouble.cause), soft_wrap=True)
        out.print(Text.assemble(("  Fix:    ", "bold green"), trouble.fix), soft_wrap=True)
        for line in trouble.said.splitlines():
            out.print(Text(f"    {line}", "dim"), soft_wrap=True)


def _rollouts(kube: Kube, selector: str) -> tuple[list[Served], list[Trouble]]:
    """What keepers have written down of models that had a rollout, and what cannot be read."""
    from pydantic import ValidationError

    from services.rollout.config_map_store import KEY
    from services.rollout.store import Served

    found, torn = [], []
    for one in kube.ours("configmaps", ",".join(filter(None, (selector, "app.kubernetes.io/component=rollout")))):
        name, text = one["metadata"]["name"], (one.get("data") or {}).get(KEY)
        if not text:
            continue
        try:
            served = Served.model_validate_json(text)
        except ValidationError as err:
            fix = f"remove its key {KEY}: the model is then served by its first version, without a rollout"
            cause = "somebody else than its keeper has written it, or a keeper of another version"
            torn.append(Trouble(what=f"configmap/{name}", state="cannot be read", cause=cause, fix=fix, said=str(err)))
        else:
            found += [served] if served.rollout is not None else []
    return found, torn


def _claims(kube: Kube, selector: str) -> list[Trouble]:
    """Claims without a volume that a pod waits for; one that nobody uses yet may wait too, and is not in trouble."""
    found = []
    for claim in kube.ours("persistentvolumeclaims", selector):
        name, phase = claim["metadata"]["name"], claim["status"].get("phase")
        if phase == "Bound":
            continue
        events = kube.items("events", "--field-selector", f"involvedObject.name={name}")
        said = "; ".join(sorted({e.get("message", "") for e in events}))
        if "waiting for first consumer" in said and "Failed" not in said:
            continue
        cause, fix = explain(f"unbound immediate PersistentVolumeClaims {said}")
        found.append(Trouble(what=f"claim/{name}", state=str(phase), cause=cause, fix=fix, said=said))
    return found


def _workloads(kube: Kube, selector: str) -> list[Trouble]:
    """Workloads whose pods are not even made: refused by admission, a quota, or a missing ServiceAccount."""
    found = []
    for item in kube.ours("replicasets,statefulsets,jobs", selector):
        name, wanted = item["metadata"]["name"], item["spec"].get("replicas", item["spec"].get("parallelism", 0))
        made = item["status"].get("replicas", item["status"].get("active", 0)) or item["status"].get("succeeded", 0)
        if not wanted or made:
            continue
        events = kube.items("events", "--field-selector", f"involvedObject.name={name},type=Warning")
        if not events:
            continue
        said = str(events[-1].get("message", ""))
        cause, fix = explain(said)
        kind = str(item["kind"]).lower()
        found.append(Trouble(what=f"{kind}/{name}", state="makes no pods", cause=cause, fix=fix, said=said))
    return found


def _releases(kube: Kube, releases: Sequence[dict[str, Any]]) -> list[Trouble]:
    """Releases that helm left unfinished or failed."""
    found = []
    for item in releases:
        if item["status"] == "deployed":
            continue
        pending = item["status"].startswith("pending")
        found.append(
            Trouble(
                what=f"release/{item['name']}",
                state=item["status"],
                cause="helm was interrupted, or is at work right now" if pending else "its last change failed",
                fix=f"helm -n {kube.namespace} rollback {item['name']}"
                if pending
                else "mend what is above, then again",
            )
        )
    return found


def recent_warnings(kube: Kube, most: int = 20) -> list[dict[str, Any]]:
    """The newest warnings of the namespace."""
    events = kube.items("events", "--field-selector", "type=Warning")
    events.sort(key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "", reverse=True)
    return [
        {
            "object": f"{e['involvedObject'].get('kind', '').lower()}/{e['involvedObject'].get('name', '')}",
            "reason": e.get("reason", ""),
            "message": e.get("message", ""),
            "last": e.get("lastTimestamp") or e.get("eventTime"),
            "count": e.get("count", 1),
        }
        for e in events[:most]
    ]
