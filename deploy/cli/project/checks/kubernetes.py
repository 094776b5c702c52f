"""``fairlead doctor --cluster``: whether a cluster can take the platform, before anything is installed."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.cluster.kube import Kube, output, program
from deploy.cli.project.checks.finding import Finding, graded

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Cluster

OLDEST, OLDEST_HELM = (1, 29), (3, 14)
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
# What an install creates in its namespace.
_CREATED = (
    "deployments.apps", "statefulsets.apps", "services", "secrets", "configmaps", "serviceaccounts",
    "persistentvolumeclaims", "networkpolicies.networking.k8s.io", "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io", "horizontalpodautoscalers.autoscaling", "poddisruptionbudgets.policy",
)  # fmt: skip
# What an install needs to be told by who may not look either.
_WITHOUT = {"storage": "; or install with --set global.checkStorageClass=false"}
_CRDS = ("argoproj.io", "kubeflow.org")
# Pods in kube-system (or a namespace of their own) of what enforces network policies, and of what does not.
_ENFORCES = ("calico", "cilium", "antrea", "weave-net", "kube-router", "ovnkube", "azure-npm", "kube-network-policies")
_IGNORES = ("flannel",)


def check_cluster(cluster: Cluster, image: str = "") -> Iterator[Finding]:
    """Findings about programs, cluster and namespace; with `image`, network policies are tried with pods of it."""
    for name in ("kubectl", "helm"):
        try:
            program(name)
        except PlatformError as err:
            yield Finding(check=name, level="fail", found=err.headline, fix=err.fix)
            return
    yield helm_version()
    kube = Kube(cluster.namespace, cluster.context)
    try:
        yield server_version(kube)
    except PlatformError as err:
        yield Finding(check="cluster", level="fail", found=err.detail.splitlines()[-1].strip(), fix=err.fix)
        return
    for check in (storage, permissions, definitions, gpus, pod_security):
        try:
            yield check(kube)
        except PlatformError as err:
            name = check.__name__.replace("_", " ")
            fix = f"{err.fix}{_WITHOUT.get(name, '')}"
            yield Finding(check=name, level="warn", found=f"cannot look: {err.detail.strip()[:160]}", fix=fix)
    yield policies(kube, image)


def helm_version() -> Finding:
    """Helm 3.14 or newer, or 4."""
    said = output([program("helm"), "version", "--template", "{{.Version}}"]).strip()
    version = _numbers(said)
    return graded("helm", said, "install Helm 3.14 or newer, or 4", fail=version < OLDEST_HELM)


def server_version(kube: Kube) -> Finding:
    """The charts' kubeVersion."""
    said = json.loads(kube.run("version", "-o", "json"))["serverVersion"]["gitVersion"]
    fix = f"upgrade the cluster to {OLDEST[0]}.{OLDEST[1]} or newer"
    return graded("Kubernetes", said, fix, fail=_numbers(said) < OLDEST)


def _numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def storage(kube: Kube) -> Finding:
    """The embedded stores need volumes, and ask for none by class."""
    classes = kube.items("storageclasses")
    default = [
        c["metadata"]["name"] for c in classes if c["metadata"].get("annotations", {}).get(_DEFAULT_CLASS) == "true"
    ]
    names = ", ".join(c["metadata"]["name"] for c in classes)
    if default:
        return graded("storage", f"{default[0]} is the default class", "")
    fix = f"--set global.storageClass={classes[0]['metadata']['name']}" if classes else "install a provisioner"
    fix += ", or use external SQL, S3 and Redis"
    return graded(
        "storage", f"no default class; there are: {names or 'none'}", fix, fail=not classes, warn=bool(classes)
    )


def permissions(kube: Kube) -> Finding:
    """What an install creates, as far as the caller may."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": kube.namespace},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    answer = json.loads(kube.run("create", "--raw", path, "-f", "-", given=json.dumps(review)))
    rules = answer["status"].get("resourceRules", [])
    denied = [name for name in _CREATED if not _allowed(rules, "create", *_split(name))]
    found = (
        f"may create all {len(_CREATED)} kinds in {kube.namespace}"
        if not denied
        else f"may not create {', '.join(denied)}"
    )
    return graded("permissions", found, f"ask for the role admin in namespace {kube.namespace}", fail=bool(denied))


def _split(name: str) -> tuple[str, str]:
    resource, _, group = name.partition(".")
    return resource, group


def _allowed(rules: list[dict[str, Any]], verb: str, resource: str, group: str) -> bool:
    return any(
        {verb, "*"} & set(rule.get("verbs", []))
        and {resource, "*"} & set(rule.get("resources", []))
        and {group, "*"} & set(rule.get("apiGroups", []))
        and not rule.get("resourceNames")
        for rule in rules
    )


def definitions(kube: Kube) -> Finding:
    """Argo's and Kubeflow's CRDs: an install makes them, unless others have."""
    found = [c for c in kube.items("customresourcedefinitions") if c["spec"]["group"] in _CRDS]
    foreign = []
    for item in found:
        notes = item["metadata"].get("annotations", {})
        owner = notes.get("meta.helm.sh/release-namespace", "")
        if owner != kube.namespace:
            foreign.append(f"{item['metadata']['name']} (of {owner or 'nobody known'})")
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        fix = "keep them: --set pipelines.crds.install=false; two controllers in one namespace would disagree"
        return graded("CRDs", f"there already: {foreign[0]}{more}", fix, warn=True)
    if found:
        return graded("CRDs", f"{len(found)} of this installation", "")
    may = kube.run("auth", "can-i", "create", "customresourcedefinitions.apiextensions.k8s.io").strip() == "yes"
    fix = "let an administrator install them, then --set pipelines.crds.install=false; or --set pipelines.enabled=false"
    return graded("CRDs", "none yet; may be made" if may else "none yet, and may not be made", fix, fail=not may)


def gpus(kube: Kube) -> Finding:
    """What nodes offer; none is no fault."""
    total: dict[str, int] = {}
    for node in kube.items("nodes"):
        for name, value in node["status"].get("allocatable", {}).items():
            if name.endswith("/gpu") or "/gpu-" in name or name.startswith("nvidia.com/mig"):
                total[name] = total.get(name, 0) + int(value)
    found = (
        ", ".join(f"{count} {name}" for name, count in sorted(total.items())) or "none; training and serving use CPUs"
    )
    return graded("GPU", found, "")


def pod_security(kube: Kube) -> Finding:
    """The namespace's level. The platform's pods pass the strictest."""
    namespace = kube.get("namespace", kube.namespace)
    if namespace is None:
        return graded("Pod Security", f"namespace {kube.namespace} is not there yet", "")
    level = namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce")
    found = f"{kube.namespace} enforces {level}" if level else f"{kube.namespace} enforces no level"
    fix = f"kubectl label namespace {kube.namespace} pod-security.kubernetes.io/enforce=restricted"
    return graded("Pod Security", found, fix, warn=level != "restricted")


def policies(kube: Kube, image: str) -> Finding:
    """Whether network policies hold: tried with two pods, or guessed by the network's pods."""
    if image:
        return _tried(kube, image)
    try:
        names = " ".join(p["metadata"]["name"] for p in kube.items("pods", "--all-namespaces"))
    except PlatformError:
        names = ""
    for name in _ENFORCES:
        if name in names:
            return graded("network policies", f"{name} enforces them", "")
    ignored = next((name for name in _IGNORES if name in names), "")
    found = f"{ignored} does not enforce them" if ignored else "not known by the network's pods"
    fix = "try it: fairlead doctor --cluster --probe IMAGE; without them every pod reaches every store"
    return graded("network policies", found, fix, warn=True)


_SERVE = "import http.server as h; h.ThreadingHTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()"
_CALL = "import socket, sys; socket.create_connection((sys.argv[1], 8080), 3)"


def _tried(kube: Kube, image: str) -> Finding:
    """A pod that nobody may call, and one that calls it."""
    name = f"fairlead-probe-{secrets.token_hex(3)}"
    labels = {"app.kubernetes.io/name": name}
    policy = {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": []}
    meta = {"name": name, "labels": labels}
    try:
        kube.run("apply", "-f", "-", given=json.dumps(_pod(f"{name}-open", {}, image)))
        kube.run("apply", "-f", "-", given=json.dumps(_pod(name, labels, image)))
        document = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": policy}
        kube.run("apply", "-f", "-", given=json.dumps(document))
        kube.run("wait", "--for=condition=Ready", f"pod/{name}", f"pod/{name}-open", "--timeout=60s")
        closed, open_ = (kube.get("pod", each)["status"]["podIP"] for each in (name, f"{name}-open"))
        if not _calls(kube, name, open_):
            return graded(
                "network policies", "pods do not reach each other at all", "mend the network first", fail=True
            )
        until = time.monotonic() + 10  # a policy takes a moment
        while _calls(kube, f"{name}-open", closed):
            if time.monotonic() > until:
                fix = "install a network that enforces them (Calico, Cilium); without, every pod reaches every store"
                return graded("network policies", "accepted and not enforced", fix, warn=True)
        return graded("network policies", "enforced, tried with two pods", "")
    except PlatformError as err:
        return graded("network policies", f"could not be tried: {err.detail.strip()[:200]}", err.fix, warn=True)
    finally:
        kube.run("delete", "pod,networkpolicy", "--ignore-not-found", "--wait=false", name, f"{name}-open")


def _calls(kube: Kube, pod: str, address: str) -> bool:
    try:
        kube.run("exec", pod, "--", "python", "-c", _CALL, address)
    except PlatformError:
        return False
    return True


def _pod(name: str, labels: dict[str, str], image: str) -> dict[str, Any]:
    closed: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    container = {"name": "main", "image": image, "command": ["python", "-c", _SERVE], "securityContext": closed}
    context: dict[str, Any] = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec: dict[str, Any] = {"containers": [{**container, "readinessProbe": probe}], "securityContext": context}
    spec |= {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
