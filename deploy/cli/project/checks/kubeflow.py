"""``fairlead doctor --profile cluster``: whether Kubeflow Pipelines there takes runs and brings them to their end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.cluster import kfp_api
from deploy.cli.cluster.kube import Kube
from deploy.cli.project.checks.finding import Finding, graded

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Profile

# Part of a Deployment's name -> what does not work without it.
_PARTS = {
    "workflow-controller": "no run starts",
    "persistenceagent": "runs stay 'running' for ever",
    "metadata-grpc": "every run fails at its first pod",
}
# The same for parts without which a followed run still ends well; an installation may do without them.
_OPTIONAL = {
    "scheduledworkflow": "schedules start nothing",
    "keeper": "a run that nobody follows is not started again after its pods are lost",
    "monitor": "drift and lost quality go unseen",
    "loop": "no model is trained anew by itself",
}
_STEP_IMAGES = ("V2_DRIVER_IMAGE", "V2_LAUNCHER_IMAGE")
# verb, resource, group, subresource
_CALLER = (
    ("get", "pods", "", ""), ("list", "pods", "", ""), ("get", "pods", "", "log"),
    ("create", "pods", "", "portforward"), ("get", "services", "", ""), ("get", "secrets", "", ""),
    ("list", "events", "", ""), ("list", "deployments", "apps", ""), ("list", "workflows", "argoproj.io", ""),
    ("list", "scheduledworkflows", "kubeflow.org", ""), ("patch", "scheduledworkflows", "kubeflow.org", ""),
)  # fmt: skip
_RUNNER = (
    ("get", "configmaps", "", ""), ("get", "pods", "", ""), ("get", "workflows", "argoproj.io", ""),
    ("patch", "workflows", "argoproj.io", ""), ("create", "workflowtaskresults", "argoproj.io", ""),
    ("patch", "workflowtaskresults", "argoproj.io", ""),
)  # fmt: skip


def check_pipelines(profile: Profile) -> Iterator[Finding]:
    """Findings about the API, the controllers, images, rights, nodes, and the published workflows."""
    assert profile.cluster is not None
    kube = Kube(profile.cluster.namespace, profile.cluster.context)
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("Kubeflow API", lambda: _api(profile)),
        ("Kubeflow parts", lambda: parts(kube)),
        ("images of steps", lambda: images(kube, profile.cluster.image)),  # type: ignore[union-attr]
        ("your rights", lambda: rights(kube)),
        ("rights of steps", lambda: rights(kube, profile.cluster.service_account)),  # type: ignore[union-attr]
        ("room for a run", lambda: room(profile, kube)),
        ("published pipelines", lambda: published_ones(profile)),
    )
    for name, check in checks:
        try:
            yield check()
        except PlatformError as err:
            # A server that does not answer is no finding about what it holds.
            failed = name == "Kubeflow API"
            said = (err.detail.strip().splitlines() or [err.headline])[-1].strip()
            found = err.headline if failed else f"cannot look: {said[:160]}"
            yield Finding(check=name, level="fail" if failed else "warn", found=found, fix=err.fix)


def _api(profile: Profile) -> Finding:
    assert profile.cluster is not None
    kfp_api.connect(profile.cluster)
    return graded("Kubeflow API", f"{profile.cluster.kfp} answers", "")


def parts(kube: Kube) -> Finding:
    """Whether the controllers, the metadata store, and what looks after runs and models are there and ready."""
    ready = {d["metadata"]["name"]: bool(d["status"].get("readyReplicas")) for d in kube.items("deployments")}
    without = _PARTS | _OPTIONAL
    known = {part: [up for name, up in ready.items() if f"-{part}" in f"-{name}"] for part in without}
    down = [part for part in without if not any(known[part])]
    fix = f"see why: fairlead diagnose; its log: kubectl -n {kube.namespace} logs deploy/NAME"
    if down:
        said = "; ".join(f"{part} is {'not ready' if known[part] else 'not there'}: {without[part]}" for part in down)
        fatal = any(part in _PARTS for part in down)
        return graded("Kubeflow parts", said, fix, fail=fatal, warn=not fatal)
    return graded("Kubeflow parts", "controllers, schedules, metadata, keeper, monitor and loop are ready", "")


def images(kube: Kube, image: str) -> Finding:
    """Whether nodes have the images of steps, have had them, or could not get them."""
    wanted = [image, *_of_server(kube)]
    states = [status for pod in kube.items("pods") for status in _statuses(pod)]
    refused = {s["image"]: s["state"]["waiting"]["reason"] for s in states if _not_pulled(s)}
    bad = [each for each in wanted if _named(each, refused)]
    if bad:
        fix = "push it, or name one that is there: cluster.image of the profile; a private registry needs pull secrets"
        return graded("images of steps", f"{bad[0]}: {refused[_named(bad[0], refused)]}", fix, fail=True)
    had = {s["image"]: "" for s in states if s.get("imageID")}
    with contextlib.suppress(PlatformError):  # nodes are of the whole cluster; not everybody may list them
        there = [each for node in kube.items("nodes") for each in node["status"].get("images", [])]
        had |= {name: "" for each in there for name in each.get("names") or []}
    unknown = [each for each in wanted if not _named(each, had)]
    if unknown:
        return graded("images of steps", f"not known before its first pod: {', '.join(unknown)}", "")
    return graded("images of steps", f"{len(wanted)} are on a node", "")


def _of_server(kube: Kube) -> list[str]:
    """Images of the pods that Kubeflow puts before and into steps, as its server is told."""
    found = []
    for deployment in kube.items("deployments"):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            found += [e["value"] for e in container.get("env", []) if e["name"] in _STEP_IMAGES and e.get("value")]
    return found


def _statuses(pod: dict[str, Any]) -> list[dict[str, Any]]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _not_pulled(status: dict[str, Any]) -> bool:
    reason = status.get("state", {}).get("waiting", {}).get("reason", "")
    return reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")


def _named(image: str, known: dict[str, str]) -> str:
    """The name under which `known` has an image: nodes write the registry that a short name leaves out."""
    return next((name for name in known if name == image or name.endswith(f"/{image}")), "")


def rights(kube: Kube, account: str = "") -> Finding:
    """What the caller, or a service account, may do of what runs need; each asked by a SelfSubjectAccessReview."""
    name = "rights of steps" if account else "your rights"
    as_ = [f"--as=system:serviceaccount:{kube.namespace}:{account}"] if account else []
    wanted = _RUNNER if account else _CALLER
    with ThreadPoolExecutor(len(wanted)) as pool:  # kubectl waits for the server most of its time
        allowed = list(pool.map(lambda right: _may(kube, right, as_), wanted))
    denied = [_words(right) for right, may in zip(wanted, allowed, strict=True) if not may]
    if not denied:
        return graded(name, f"all {len(wanted)} that runs need in {kube.namespace}", "")
    who = f"the role of {account}" if account else "a role"
    fix = f"ask for {who} in namespace {kube.namespace} with them"
    return graded(name, f"may not {', '.join(denied)}", fix, fail=bool(account), warn=not account)


def _words(right: tuple[str, str, str, str]) -> str:
    verb, resource, group, below = right
    return f"{verb} {resource}{f'.{group}' if group else ''}{f'/{below}' if below else ''}"


def _may(kube: Kube, right: tuple[str, str, str, str], as_: list[str]) -> bool:
    verb, resource, group, below = right
    asked = {"namespace": kube.namespace, "verb": verb, "resource": resource, "group": group, "subresource": below}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = json.loads(kube.run("create", "--raw", path, "-f", "-", *as_, given=json.dumps(review)))
    return bool(answer["status"].get("allowed"))


def room(profile: Profile, kube: Kube) -> Finding:
    """Whether the nodes can take each task of a run with the default needs."""
    from deploy.cli.cluster.capacity import asks_of, check
    from deploy.cli.cluster_runs.submit import WORKFLOW, placement
    from pipelines.steps.calls import graph

    asks = asks_of(graph(WORKFLOW), placement(profile))
    try:
        notes = check(kube, asks)
    except PlatformError as err:
        if err.code != "does_not_fit":
            raise
        fix = "add a node, or ask for less: resources.all.memory of --set"
        return graded("room for a run", err.detail or err.headline, fix, fail=True)
    if notes:
        return graded("room for a run", notes[0], "a run waits until there is room", warn=True)
    return graded("room for a run", "a run of the default size fits now", "")


def published_ones(profile: Profile) -> Finding:
    """Whether Kubeflow's page offers the workflows of this release."""
    from deploy.cli.pipelines.publish import published

    found = published(profile)
    older = [each["name"] for each in found if not each["current"]]
    said = f"{len(found)} of this release" if not older else f"missing or of another release: {', '.join(older)}"
    return graded("published pipelines", said, "fairlead pipelines publish", warn=bool(older))
