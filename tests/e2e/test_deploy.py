"""A model's life on a cluster by the command line: deploy, status, a second version, rollback, a bad one, diagnose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.spaces import kubectl, need_image, space

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
IMAGE = "ghcr.io/fairlead/service:0.1.0"


@dataclass(frozen=True)
class Environment:
    """An environment of its own: a folder with profile.yaml, and the namespace that it names."""

    folder: Path
    namespace: str

    def fairlead(self, *arguments: str, code: int = 0) -> Any:
        """The JSON that a command prints."""
        done = self.run(*arguments, "--json")
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(ROOT / "tests" / "toy"), str(ROOT)])
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "FAIRLEAD_"))}
        return subprocess.run(
            [sys.executable, "-m", "deploy.cli", *arguments],
            cwd=self.folder,
            env={**environment, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def profile(self) -> str:
        return str(self.folder / "profile.yaml")

    @property
    def values(self) -> Any:
        return yaml.safe_load((self.folder / "models" / "toy.yaml").read_text())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Two versions of the toy model, trained here with their bundles in the cluster's S3."""
    with space("releases") as namespace:
        need_image(IMAGE)
        folder = tmp_path_factory.mktemp("environment")
        profile = {
            "home": str(folder / "home"),
            "artifacts": "s3://fairlead/bundles",
            "online": "redis://fairlead-redis:6379/0",
            "cluster": {"namespace": namespace},
        }
        (folder / "profile.yaml").write_text(yaml.safe_dump(profile))
        made = Environment(folder, namespace)
        addresses = {key: value for key, value in profile.items() if key != "cluster"}
        here = folder / "here.yaml"  # the same addresses for a run on this machine, whose S3 is the forwarded one
        here.write_text(yaml.safe_dump(addresses))
        _train(made)
        yield made


def _train(made: Environment) -> None:
    code = """
import json, sys
from contracts.endpoints import Endpoints
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.runs.workflow import RunOptions, execute, plan_run
ends = load_endpoints(sys.argv[1])
for rounds in ("15", "30"):
    execute(plan_run(ends, "toy", options=RunOptions(overrides=[f"model.rounds={rounds}"])))
"""
    path = os.pathsep.join([str(ROOT / "tests" / "toy"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code, made.profile],
        env={**os.environ, "PYTHONPATH": path},
        cwd=made.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def served(made: Environment) -> str:
    """The version that the release answers with, asked with its own API key."""
    row = json.dumps({"distance": 900.0, "stops": 3, "kind": "box"})
    return str(made.fairlead("predict", "toy", "--env", made.profile, "--input", row)["version"])


def test_a_version_is_deployed_replaced_and_rolled_back(environment: Environment) -> None:
    first = environment.fairlead("deploy", "toy:1", "--env", environment.profile, "--timeout", "240")
    assert (first["release"], first["version"]) == ("toy", "1")
    assert environment.values["model"]["digest"] == first["digest"]
    assert served(environment) == "1"
    file = environment.folder / "models" / "toy.yaml"
    file.write_text("# mine\nreplicaCount: 1 # one is enough\n" + file.read_text())
    environment.fairlead("deploy", "toy@champion", "--env", environment.profile, "--timeout", "240")
    assert file.read_text().startswith("# mine\nreplicaCount: 1 # one is enough\n")
    assert served(environment) == environment.values["model"]["version"] == "2"
    status = environment.fairlead("status", "--env", environment.profile)
    (model,) = status["models"]
    assert (model["model"], model["version"], model["ready"], model["wanted"]) == ("toy", "2", 1, 1)
    assert model["troubles"] == []
    back = environment.fairlead("rollback", "toy", "--env", environment.profile)
    assert back["version"] == served(environment) == environment.values["model"]["version"] == "1"
    assert file.read_text().startswith("# mine\n")


def test_a_model_that_does_not_prove_itself_never_takes_traffic(environment: Environment) -> None:
    before = environment.values
    bad = _publish_with_wrong_golden(environment)
    error = environment.fairlead("deploy", f"toy:{bad}", "--env", environment.profile, "--timeout", "45", code=1)[
        "error"
    ]
    assert "golden" in error["headline"]
    assert served(environment) == before["model"]["version"]
    assert environment.values == before


def _publish_with_wrong_golden(made: Environment) -> str:
    code = """
import json, shutil, sys, tempfile
from pathlib import Path
from contracts.bundle import write_bundle
from contracts.registry import Registry
from deploy.cli.profiles.loading import load_endpoints
registry = Registry(load_endpoints(sys.argv[1]))
bundle = registry.fetch("toy:1")
folder = Path(tempfile.mkdtemp()) / "bad"
shutil.copytree(bundle.path, folder)
(folder / "bundle.json").unlink()
lines = [json.loads(line) for line in (folder / "golden.jsonl").read_text().splitlines()]
for line in lines:
    line["expected"] = line["expected"][::-1]
(folder / "golden.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
fields = bundle.document.model_dump(exclude={"files"})
print(registry.publish(write_bundle(folder, Path(tempfile.mkdtemp()), fields)).version)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, made.profile],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=made.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_diagnose_names_the_cause_of_what_fails(environment: Environment) -> None:
    assert environment.fairlead("diagnose", "--env", environment.profile)["ok"]
    spec = _restricted_pod(environment.namespace)
    kubectl("-n", environment.namespace, "apply", "-f", "-", given=yaml.safe_dump_all(spec))
    kubectl(
        "-n", environment.namespace, "wait", "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}="
        "CreateContainerConfigError", "pod/no-secret", "--timeout=180s",
    )  # fmt: skip
    document = environment.fairlead("diagnose", "--env", environment.profile, code=1)
    causes = {trouble["what"].partition(" ")[0]: trouble["cause"] for trouble in document["troubles"]}
    assert causes["pod/no-secret"] == "a Secret that it reads is missing, or a key of it"
    assert causes["pod/no-image"] == "the node cannot get the image"
    assert causes["pod/too-large"] == "no node has that much processor or memory left"
    assert "pod/of-others" not in causes, "a namespace may be shared: what others run there is theirs"
    kubectl("-n", environment.namespace, "delete", "pod", "no-secret", "no-image", "too-large", "of-others", "--now")


def _restricted_pod(namespace: str) -> list[Any]:
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    context = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}

    def pod(name: str, part_of: str = "fairlead", **container: Any) -> dict[str, Any]:
        made = {"name": "main", "image": IMAGE, "securityContext": closed, **container}
        spec = {"containers": [made], "securityContext": context, "automountServiceAccountToken": False}
        metadata = {"name": name, "labels": {"app.kubernetes.io/part-of": part_of}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    secret = {"secretKeyRef": {"name": "nobody", "key": "password"}}
    return [
        pod("no-secret", env=[{"name": "PASSWORD", "valueFrom": secret}]),
        pod("no-image", image="registry.invalid/thing:1", imagePullPolicy="Never"),
        pod("too-large", resources={"requests": {"cpu": "900"}}),
        pod("of-others", part_of="another", image="registry.invalid/thing:1", imagePullPolicy="Never"),
    ]


def test_uninstalling_leaves_nothing(environment: Environment) -> None:
    helm = shutil.which("helm")
    assert helm is not None
    subprocess.run([helm, "-n", environment.namespace, "uninstall", "toy", "--wait"], check=True, capture_output=True)
    chosen = ["-l", "app.kubernetes.io/instance=toy"]
    kubectl("-n", environment.namespace, "wait", "--for=delete", "pod", *chosen, "--timeout=240s")
    assert kubectl("-n", environment.namespace, "get", "all,configmaps,secrets", *chosen, "-o", "name") == ""
