"""Preflight of a cluster, with kubectl and helm replaced by scripts at their edge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.cluster.cluster_settings import Cluster
from deploy.cli.project.checks import kubernetes as checks
from deploy.cli.project.checks.finding import Finding

NOTES = "meta.helm.sh/release-namespace"
EVERYTHING = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}


class Answers:
    """What kubectl answers, by the words of its command line; a PATH with it and a helm."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines = folder, dict[str, str]()
        self.say("version -o json", {"serverVersion": {"gitVersion": "v1.34.1"}})
        self.say("get storageclasses", {"items": [named("fast", **{checks._DEFAULT_CLASS: "true"})]})
        self.say("selfsubjectrulesreviews", {"status": {"resourceRules": [EVERYTHING]}})
        self.say("auth can-i", "yes")
        self.say("get nodes", {"items": [{"status": {"allocatable": {"cpu": "4", "nvidia.com/gpu": "2"}}}]})
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.say("get namespace fairlead", {"metadata": {"labels": labels}})
        self.say("get pods", {"items": [named("calico-node-abc")]})
        self.helm("v4.3.0")

    def say(self, words: str, answer: Any) -> None:
        """Answer a command line that has these words."""
        text = answer if isinstance(answer, str) else json.dumps(answer)
        file = self.folder / f"{len(self.lines)}.txt"
        file.write_text(text)
        self.lines[words] = f'*"{words}"*) cat {file};;'
        cases = "\n".join(self.lines.values())
        self._write("kubectl", f'case "$*" in\n{cases}\n*) echo "{{}}";;\nesac')

    def refuse(self, words: str, message: str) -> None:
        """Fail on a command line that has these words."""
        self.lines[words] = f'*"{words}"*) echo "{message}" >&2; exit 1;;'
        cases = "\n".join(self.lines.values())
        self._write("kubectl", f'case "$*" in\n{cases}\n*) echo "{{}}";;\nesac')

    def helm(self, version: str) -> None:
        self._write("helm", f"echo {version}")

    def _write(self, name: str, source: str) -> None:
        file = self.folder / name
        file.write_text(f"#!/bin/sh\n{source}\n")
        file.chmod(0o755)

    def findings(self) -> dict[str, Finding]:
        return {finding.check: finding for finding in checks.check_cluster(Cluster())}


def named(name: str, group: str = "", **notes: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "annotations": notes}, "spec": {"group": group}}


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return Answers(folder)


def test_a_cluster_that_has_everything_is_ready(answers: Answers) -> None:
    found = answers.findings()
    looked = ["helm", "Kubernetes", "storage", "permissions", "CRDs", "GPU", "Pod Security", "network policies"]
    assert [(name, finding.level) for name, finding in found.items()] == [(name, "ok") for name in looked]
    assert found["GPU"].found == "2 nvidia.com/gpu"


@pytest.mark.parametrize(
    ("words", "answer", "check", "level", "says"),
    [
        ("version -o json", {"serverVersion": {"gitVersion": "v1.27.3-eks"}}, "Kubernetes", "fail", "upgrade"),
        ("get storageclasses", {"items": []}, "storage", "fail", "install a provisioner"),
        ("get storageclasses", {"items": [named("slow")]}, "storage", "warn", "--set global.storageClass=slow"),
        ("selfsubjectrulesreviews", {"status": {"resourceRules": []}}, "permissions", "fail", "the role admin"),
        ("auth can-i", "no", "CRDs", "fail", "--set pipelines.crds.install=false"),
        ("get namespace fairlead", {"metadata": {"labels": {}}}, "Pod Security", "warn", "enforce=restricted"),
        ("get pods", {"items": [named("kube-flannel-ds-x")]}, "network policies", "warn", "--probe IMAGE"),
    ],
)
def test_what_is_missing_is_named_with_its_cure(
    answers: Answers, words: str, answer: Any, check: str, level: str, says: str
) -> None:
    answers.say(words, answer)
    finding = answers.findings()[check]
    assert finding.level == level
    assert says in finding.fix


def test_definitions_of_another_installation_are_pointed_out(answers: Answers) -> None:
    mine = named("workflows.argoproj.io", "argoproj.io", **{NOTES: "fairlead"})
    answers.say("get customresourcedefinitions", {"items": [mine, named("others.example.com", "example.com")]})
    assert answers.findings()["CRDs"].level == "ok"
    answers.say("get customresourcedefinitions", {"items": [named("workflows.argoproj.io", "argoproj.io")]})
    finding = answers.findings()["CRDs"]
    assert (finding.level, "crds.install=false" in finding.fix) == ("warn", True)


def test_a_right_to_look_that_is_missing_hides_no_other_check(answers: Answers) -> None:
    answers.refuse("get nodes", "Error from server (Forbidden): nodes is forbidden")
    found = answers.findings()
    assert (found["gpus"].level, found["Pod Security"].level) == ("warn", "ok")


def test_who_may_not_see_storage_classes_hears_how_to_install_without(answers: Answers) -> None:
    answers.refuse("get storageclasses", "Error from server (Forbidden): storageclasses is forbidden")
    finding = answers.findings()["storage"]
    assert (finding.level, "global.checkStorageClass=false" in finding.fix) == ("warn", True)


def test_an_old_helm_and_a_cluster_that_is_down_are_named(answers: Answers) -> None:
    answers.helm("v3.9.4")
    assert answers.findings()["helm"].level == "fail"
    answers.refuse("version -o json", "The connection to the server was refused")
    found = answers.findings()
    assert list(found) == ["helm", "cluster"]
    assert "KUBECONFIG" in found["cluster"].fix
