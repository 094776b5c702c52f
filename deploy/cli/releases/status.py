"""``fairlead status``: the releases of an environment with version, health and traffic."""

from __future__ import annotations

import json
import urllib.parse
from typing import TYPE_CHECKING, Any

from contracts import metric_names
from contracts.errors import PlatformError
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.pod_diagnosis import pod_troubles
from deploy.cli.profiles.loading import load_cluster_profile
from deploy.cli.releases.unlogged import release_values_of, unlogged
from deploy.cli.terminal.output import emit, number, table

if TYPE_CHECKING:
    from rich.console import Console

    from deploy.cli.cluster.cluster_settings import Cluster, Profile

_WINDOW = "5m"
_ANSWERING = "app.kubernetes.io/component in (server,slot)"
_KEPT = "app.kubernetes.io/component=rollout"


def show_status(env: str, as_json: bool) -> None:
    """Every release of helm/model-service in the environment's namespace, and the parts of the platform."""
    profile = load_cluster_profile(env)
    cluster = profile.cluster
    assert cluster is not None
    kube = Kube(cluster.namespace, cluster.context)
    releases = kube.releases()
    models = [_model(kube, profile, env, item) for item in releases if item["chart"].startswith("model-service-")]
    parts = [_part(item) for item in kube.ours("deployments,statefulsets")]
    served = {model["release"] for model in models}
    document: dict[str, Any] = {
        "namespace": cluster.namespace,
        "models": models,
        "platform": [part for part in parts if part["instance"] not in served],
    }

    def show(out: Console) -> None:
        if models:
            rows = table("release", "model", "pods", "state", f"requests/s, {_WINDOW}", "errors", "p99 ms")
            for model in models:
                rows.add_row(
                    model["release"],
                    f"{model['model']}:{model['version']}",
                    f"{model['ready']}/{model['wanted']}",
                    _state(model),
                    number(model["traffic"]["per_second"], 2),
                    _share(model["traffic"]["error_share"]),
                    number(model["traffic"]["p99_ms"], 1),
                )
            out.print(rows)
        else:
            out.print(f"No model is served in namespace {cluster.namespace}. Serve one: fairlead deploy MODEL")
        for remark in (model["unlogged"] for model in models if model["unlogged"]):
            out.print(f"Note     {remark['said']}", soft_wrap=True, markup=False)
            out.print(f"Fix      {remark['fix']}", soft_wrap=True, markup=False)
        if document["platform"]:
            rows = table("part", "pods")
            for part in document["platform"]:
                rows.add_row(part["name"], f"{part['ready']}/{part['wanted']}")
            out.print(rows)
        if any(model["troubles"] for model in models) or any(p["ready"] < p["wanted"] for p in document["platform"]):
            out.print(f"Why      fairlead diagnose --env {env}")

    emit(document, as_json, show)


def _model(kube: Kube, profile: Profile, env: str, item: dict[str, Any]) -> dict[str, Any]:
    assert profile.cluster is not None
    release = item["name"]
    values = release_values_of(kube, release)
    remark = unlogged(release, values, profile, env)
    model = values.get("model", {})
    selector = f"app.kubernetes.io/instance={release}"
    parts = [_part(found) for found in kube.items("deployments", "-l", f"{selector},{_ANSWERING}")]
    name = model.get("name") or release
    rollouts = rollouts_of(kube.items("configmaps", "-l", f"{selector},{_KEPT}"))
    served = rollouts["version"] if rollouts else str(model.get("version") or model.get("digest", "")[:12])
    return {
        "release": release,
        "revision": int(item["revision"]),
        "status": item["status"],
        "updated": item["updated"][:19],
        "model": name,
        "version": served,
        "digest": rollouts["digest"] if rollouts else model.get("digest", ""),
        "rollout": rollouts["rollout"] if rollouts else None,
        "ready": sum(part["ready"] for part in parts),
        "wanted": sum(part["wanted"] for part in parts),
        "troubles": [trouble.as_dict() for trouble in pod_troubles(kube, selector)],
        "traffic": traffic(kube, profile.cluster, name),
        "unlogged": remark.as_dict() if remark else None,
    }


def rollouts_of(config_maps: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the keeper of a release has written down; None for a release without one."""
    from services.rollout.config_map_store import KEY
    from services.rollout.store import Served

    data = [one.get("data") or {} for one in config_maps]
    if not data or not data[0].get(KEY):
        return None
    served, rollout = Served.model_validate_json(data[0][KEY]), None
    if served.rollout is not None:
        now = served.rollout
        rollout = {"candidate": now.candidate, "phase": now.shown_phase, "weight": now.weight, "why": list(now.reasons)}
    return {"version": served.version, "digest": data[0].get("digest", ""), "rollout": rollout}


def _part(found: dict[str, Any]) -> dict[str, Any]:
    labels = found["metadata"].get("labels", {})
    return {
        "name": found["metadata"]["name"],
        "instance": labels.get("app.kubernetes.io/instance", ""),
        "ready": int(found["status"].get("readyReplicas") or 0),
        "wanted": int(found["spec"].get("replicas") or 0),
    }


def traffic(kube: Kube, cluster: Cluster, model: str) -> dict[str, float | None]:
    """Requests per second, share of failed ones and p99 in milliseconds; None where Prometheus does not know."""
    chosen = f'model="{model}"'
    rate = f"sum(rate({metric_names.REQUESTS}{{{chosen}}}[{_WINDOW}]))"
    failed = f'sum(rate({metric_names.REQUESTS}{{{chosen},code=~"5.."}}[{_WINDOW}]))'
    buckets = f"sum by (le) (rate({metric_names.REQUEST_SECONDS}_bucket{{{chosen}}}[{_WINDOW}]))"
    seconds = _query(kube, cluster, f"histogram_quantile(0.99, {buckets})")
    return {
        "per_second": _query(kube, cluster, rate),
        "error_share": _query(kube, cluster, f"({failed} or vector(0)) / {rate}"),
        "p99_ms": None if seconds is None else seconds * 1000,
    }


def _query(kube: Kube, cluster: Cluster, expression: str) -> float | None:
    """One number from Prometheus, asked through the API server, so that nothing has to be exposed."""
    if not cluster.prometheus:
        return None
    parts = urllib.parse.urlsplit(cluster.prometheus)
    service = f"{(parts.hostname or '').partition('.')[0]}:{parts.port or 80}"
    path = f"/api/v1/namespaces/{kube.namespace}/services/{service}/proxy/api/v1/query"
    try:
        answer = json.loads(kube.run("get", "--raw", f"{path}?query={urllib.parse.quote(expression)}"))
        found = answer["data"]["result"]
        value = float(found[0]["value"][1]) if found else None
    except (PlatformError, KeyError, ValueError):
        return None
    return None if value is None or value != value else value


def _state(model: dict[str, Any]) -> str:
    if model["status"] != "deployed":
        return str(model["status"])
    if model["troubles"]:
        return str(model["troubles"][0]["cause"])
    rollout = model["rollout"]
    if rollout is not None and rollout["phase"] in ("starting", "running", "paused", "settling"):
        return f"{model['model']}:{rollout['candidate']} {rollout['phase']}, {rollout['weight']:g} %"
    return "ready" if model["ready"] >= model["wanted"] else "starting"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
