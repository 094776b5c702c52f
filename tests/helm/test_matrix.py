"""What holds for every chart with every set of values: the rules that a person would otherwise have to remember."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

from tests.helm.chart import OPERATOR, Object, containers, environment, images, of_kind, pods, render
from tests.helm.edges import selects
from tests.helm.program import CHARTS

CASES = [
    pytest.param(file, apis, id=f"{file.parts[-3]}-{file.stem.removesuffix('-values')}{suffix}")
    for file in sorted(CHARTS.glob("*/ci/*-values.yaml"))
    for apis, suffix in (((), ""), (OPERATOR, "-operator"))
    if not (apis and file.stem in ("full-values", "namespaces-values"))  # these ask for our own Prometheus
]
matrix = pytest.mark.parametrize(("file", "apis"), CASES)
SELECTOR = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
VOLUMES = {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret", "csi", "ephemeral"}
# They have no port and say nowhere whether they are well; a crash restarts them.
WITHOUT_PROBES = {"persistenceagent", "scheduledworkflow", "keeper"}


@lru_cache(maxsize=128)
def objects(file: Path, apis: tuple[str, ...]) -> list[Object]:
    return render(file.parts[-3], files=(file,), apis=apis)


@matrix
def test_pods_pass_the_restricted_standard(file: Path, apis: tuple[str, ...]) -> None:
    for name, pod in pods(objects(file, apis)):
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert all(set(volume) - {"name"} <= VOLUMES for volume in spec.get("volumes", [])), name
        for container in containers(pod):
            closed = container["securityContext"]
            assert closed["allowPrivilegeEscalation"] is False, name
            assert closed["capabilities"] == {"drop": ["ALL"]}, name
            assert closed["readOnlyRootFilesystem"] is True, name
            assert not any("hostPort" in port for port in container.get("ports", [])), name


@matrix
def test_containers_say_what_they_need_and_take_no_more(file: Path, apis: tuple[str, ...]) -> None:
    for name, pod in pods(objects(file, apis)):
        for container in containers(pod):
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), name
            assert resources["limits"]["memory"] == resources["requests"]["memory"], name
            assert "cpu" not in resources["limits"], name


@matrix
def test_images_are_pinned(file: Path, apis: tuple[str, ...]) -> None:
    for image in images(objects(file, apis)):
        assert re.fullmatch(r"[^\s@]+/[^\s@:]+:v?\d[\w.-]*(@sha256:[0-9a-f]{64})?", image), image


@matrix
def test_each_part_has_an_account_and_a_token_only_when_it_has_rights(file: Path, apis: tuple[str, ...]) -> None:
    made = objects(file, apis)
    bound = {subject["name"] for binding in of_kind(made, "RoleBinding") for subject in binding["subjects"]}
    accounts = {each["metadata"]["name"]: each for each in of_kind(made, "ServiceAccount")}
    for name, pod in pods(made):
        account = pod["spec"]["serviceAccountName"]
        assert pod["spec"]["automountServiceAccountToken"] is (account in bound), name
        assert account in accounts or (account == "default" and name.startswith("Pod/")), name
    for name, account in accounts.items():
        assert account["automountServiceAccountToken"] is (name in bound), name


@matrix
def test_rights_are_named_one_by_one_and_end_at_the_namespace(file: Path, apis: tuple[str, ...]) -> None:
    made = objects(file, apis)
    assert not of_kind(made, "ClusterRole", "ClusterRoleBinding")
    for role in of_kind(made, "Role"):
        for rule in role["rules"]:
            words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in words, role["metadata"]["name"]
            reads_secrets = "secrets" in rule["resources"]
            assert not reads_secrets or rule.get("resourceNames"), f"{role['metadata']['name']} reads every Secret"


@matrix
def test_selectors_are_stable_and_select_their_own_pods(file: Path, apis: tuple[str, ...]) -> None:
    made = objects(file, apis)
    for each in of_kind(made, "Deployment", "StatefulSet"):
        selector = each["spec"]["selector"]["matchLabels"]
        assert set(selector) == SELECTOR, each["metadata"]["name"]
        assert selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    for service in of_kind(made, "Service"):
        if "selector" not in service["spec"]:
            assert service["spec"]["type"] == "ExternalName"
            continue
        found = [  # pods of `helm test` are never ready
            pod
            for name, pod in pods(made)
            if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items() and not name.startswith("Pod/")
        ]
        assert len(found) == 1, service["metadata"]["name"]
        names = {port["name"] for container in containers(found[0]) for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names, service["metadata"]["name"]


@matrix
def test_objects_are_labelled_unique_and_have_lawful_names(file: Path, apis: tuple[str, ...]) -> None:
    made = objects(file, apis)
    keys = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in made]
    assert len(keys) == len(set(keys))
    for each in made:
        metadata = each["metadata"]
        if "labels" not in metadata and "extraObjects:" in file.read_text(encoding="utf-8"):
            continue  # a user's own object
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "fairlead", metadata["name"]
        limit = 52 if each["kind"] in ("StatefulSet", "CronJob") else 63
        assert len(metadata["name"]) <= limit or each["kind"] == "CustomResourceDefinition"
        assert all(len(str(value)) <= 63 for value in metadata["labels"].values()), metadata["name"]


@matrix
def test_every_pod_is_closed_but_for_what_a_policy_opens(file: Path, apis: tuple[str, ...]) -> None:
    made = objects(file, apis)
    policies = of_kind(made, "NetworkPolicy")
    for name, pod in pods(made):
        chosen = [policy for policy in policies if selects(policy["spec"]["podSelector"], pod["metadata"]["labels"])]
        kinds = {kind for policy in chosen for kind in policy["spec"]["policyTypes"]}
        assert kinds == {"Ingress", "Egress"}, name
    for policy in policies:
        rules = [*(policy["spec"].get("ingress") or []), *(policy["spec"].get("egress") or [])]
        peers = [peer for rule in rules for peer in (rule.get("from") or rule.get("to") or [{}])]
        assert {} not in peers, f"{policy['metadata']['name']} opens to everybody"


@matrix
def test_servers_are_probed(file: Path, apis: tuple[str, ...]) -> None:
    for each in of_kind(objects(file, apis), "Deployment", "StatefulSet"):
        for container in each["spec"]["template"]["spec"]["containers"]:
            if container["name"] not in WITHOUT_PROBES:
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), container["name"]


@matrix
def test_one_owner_counts_the_pods_and_budgets_need_more_than_one(file: Path, apis: tuple[str, ...]) -> None:
    made = objects(file, apis)
    scaled = {each["spec"]["scaleTargetRef"]["name"]: each["spec"] for each in of_kind(made, "HorizontalPodAutoscaler")}
    replicas = {}
    for each in of_kind(made, "Deployment", "StatefulSet"):
        name = each["metadata"]["name"]
        assert ("replicas" in each["spec"]) is (name not in scaled), name
        least = scaled[name]["minReplicas"] if name in scaled else each["spec"]["replicas"]
        replicas[frozenset(each["spec"]["selector"]["matchLabels"].items())] = least
    for budget in of_kind(made, "PodDisruptionBudget"):
        spec = budget["spec"]
        assert ("minAvailable" in spec) != ("maxUnavailable" in spec)
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert replicas[frozenset(spec["selector"]["matchLabels"].items())] > 1, budget["metadata"]["name"]
    for labels, least in replicas.items():
        budgets = [b for b in of_kind(made, "PodDisruptionBudget")
                   if frozenset(b["spec"]["selector"]["matchLabels"].items()) == labels]  # fmt: skip
        assert bool(budgets) == (least > 1), dict(labels)


@matrix
def test_what_pods_mount_exists(file: Path, apis: tuple[str, ...]) -> None:
    made = objects(file, apis)
    maps = {each["metadata"]["name"] for each in of_kind(made, "ConfigMap")}
    claims = {each["metadata"]["name"] for each in of_kind(made, "PersistentVolumeClaim")}
    given = yaml.safe_load(file.read_text(encoding="utf-8")).get("extraVolumes", [])
    claims |= {volume.get("persistentVolumeClaim", {}).get("claimName") for volume in given}
    for name, pod in pods(made):
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        for container in containers(pod):
            mounted = [mount["name"] for mount in container.get("volumeMounts", [])]
            assert set(mounted) <= set(volumes), name
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert len(paths) == len(set(paths)), name
            assert len(environment(container)) == len(container.get("env") or []), f"{name}: a variable twice"
        for volume in volumes.values():
            assert volume.get("configMap", {}).get("name") in maps | {None}, name
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in claims | {None}, name


@matrix
def test_secrets_are_generated_or_named_and_what_holds_data_is_kept(file: Path, apis: tuple[str, ...]) -> None:
    for each in of_kind(objects(file, apis), "Secret", "PersistentVolumeClaim"):
        # A cache is filled again, and the API key of a release opens nothing that outlives it.
        name, notes = each["metadata"]["name"], each["metadata"].get("annotations", {})
        opens_nothing = "-cache-" in name if each["kind"] == "PersistentVolumeClaim" else name.endswith("-keys")
        if not opens_nothing and "helm.sh/hook" not in notes:
            assert notes["helm.sh/resource-policy"] == "keep", name
    for _, pod in pods(objects(file, apis)):
        for container in containers(pod):
            for key, value in environment(container).items():
                secret = re.search(r"(PASSWORD|PWD|SECRET|ACCESS_?KEY)", key) and not key.endswith("_IMAGE")
                assert not secret or isinstance(value, dict), f"{key} is written out"
