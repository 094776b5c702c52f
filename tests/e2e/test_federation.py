"""A federation in a real cluster: the platform leads, and two partners' sites train, each in a namespace of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import PIPELINES, Platform
from tests.e2e.spaces import S3_IMAGE, apply, need_image, space

pytestmark = pytest.mark.e2e
SITE_CHART = Path(__file__).parents[2] / "helm" / "federated-site"
IMAGE = f"{PIPELINES}-torch"
SITES = ("bank-a", "bank-b")
# The smallest platform that a federation needs: tracking, its database, and S3.
SMALL: dict[str, Any] = {
    **{part: {"enabled": False} for part in ("pipelines", "console", "demo", "monitor", "loop", "skew")},
    "feature-store": {"enabled": False},
    "monitoring": {"enabled": False},
    "mariadb": {"bufferPool": "32M", "persistence": {"enabled": False}},
    "s3": {"persistence": {"enabled": False}},
}
SETTINGS = {
    "simulator.applications": 3000,
    "federation.rounds": 6,
    "federation.join": 400,
    "federation.quorum": 1.0,
    "model.hidden": [16],
    "gate.fairness.selection_ratio": 0.5,  # of six rounds no more is asked
    "gate.fairness.calibration_gap": 0.3,
    "gate.max_latency_ms": 500,  # this machine has much else to do
}
# Another partner's applications: the built-in ones, by a seed of its own, as a file.
_ROWS = """
import sys
import pyarrow as pa, pyarrow.csv
from pipelines.tasks.credit.config import SimulatorConfig
from pipelines.tasks.credit.simulator import simulate
rows = pa.concat_tables(simulate(SimulatorConfig(applications=1500), int(sys.argv[1])))
rows = rows.select([name for name in rows.column_names if rows[name].null_count < len(rows)])  # of its own layout
pyarrow.csv.write_csv(rows, "/rows/applications.csv")
"""
# What the registry and S3 have of the model, read in the pod of MLflow, which may talk to both.
_FOUND = """
import json, os, boto3, mlflow
from botocore.config import Config
client = mlflow.MlflowClient("http://127.0.0.1:5000")
(version,) = client.search_model_versions("name='credit'")
s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
keys = [one["Key"] for one in s3.list_objects_v2(Bucket="fairlead", Prefix="bundles/")["Contents"]]
(place,) = [key for key in keys if key.endswith("/evaluation.json")]
told = json.loads(s3.get_object(Bucket="fairlead", Key=place)["Body"].read())
folder = place.rpartition("/")[0]
bundle = json.loads(s3.get_object(Bucket="fairlead", Key=folder + "/bundle.json")["Body"].read())
print(json.dumps({"version": version.version, "keys": [key[len(folder) + 1:] for key in keys],
    "gate": bundle["gate"], "federation": told["federation"], "metrics": told["metrics"]}))
"""


@pytest.fixture
def spaces() -> Iterator[dict[str, Platform]]:
    with ExitStack() as stack:
        names = ("federation", *SITES)
        made = {name: Platform(stack.enter_context(space(name, storage=False))) for name in names}
        for image in (PIPELINES, IMAGE, S3_IMAGE):
            need_image(image)
        assert shutil.which("helm"), "helm is not on PATH"
        yield made


def test_two_sites_that_nothing_connects_to_train_a_model_that_the_platform_registers(
    spaces: dict[str, Platform], tmp_path: Path
) -> None:
    pytest.importorskip("nvflare")
    from pipelines.federation.certificates import make_certificates

    platform = spaces["federation"]
    server, keys = f"fairlead-federation.{platform.namespace}.svc", tmp_path / "keys"
    make_certificates(keys, SITES, [server])
    secret(platform, "federation", [keys / name for name in ("ca.pem", "server.crt", "server.key")])
    for seed, name in enumerate(SITES):
        secret(spaces[name], name, [keys / file for file in ("ca.pem", f"{name}.crt", f"{name}.key")])
        fill(spaces[name], seed)
    leads = {"enabled": True, "sites": list(SITES), "existingSecret": "federation", "recipe": "network"}
    platform.install({**SMALL, "federation": {**leads, "settings": SETTINGS}})

    stranger = {
        f"fairlead-{name}.{platform.namespace}:{port}": False for name, port in (("mlflow", 5000), ("s3", 9000))
    }
    labels = {"app.kubernetes.io/name": "federated-site", "app.kubernetes.io/instance": "fairlead"}
    for name in SITES:
        spaces[name].kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/fill", "--timeout=240s")
        spaces[name].kubectl("delete", "pod", "fill", "--now")
        join(spaces[name], name, server)
    jobs = {name: job(one) for name, one in spaces.items()}
    reached = spaces["bank-a"].reach(
        {**labels, "app.kubernetes.io/component": "federated-site"}, {f"{server}:8443": True, **stranger}, IMAGE
    )
    assert reached == {f"{server}:8443": True, **stranger}, "a site reaches the coordinator, and nothing else of it"

    for name, one in spaces.items():
        done = one.kubectl("wait", "--for=condition=complete", f"job/{jobs[name]}", "--timeout=300s", check=False)
        said = one.kubectl("logs", f"job/{jobs[name]}", "--tail=40", check=False)
        assert "condition met" in done, said + one.kubectl("get", "pods,events", check=False)
        if name in SITES:
            assert "Model    accepted; on this site's rows: " in said
    found = json.loads(platform.run_in("mlflow", "python", "-c", _FOUND).splitlines()[-1])
    assert found["gate"]["passed"], found["gate"]["reasons"]
    assert "model/model.onnx" in found["keys"]
    assert found["metrics"]["roc_auc"] > 0.75
    told = {one["name"]: one for one in found["federation"]["sites"]}
    assert set(told) == set(SITES)
    assert all(one["rounds"] == SETTINGS["federation.rounds"] and one["decision"]["accepted"] for one in told.values())
    assert not found["federation"]["simulated"]
    for name in SITES:  # rows are where they were, and the model is beside them
        assert spaces[name].get("services") == []


def secret(place: Platform, name: str, files: list[Path]) -> None:
    place.kubectl("create", "secret", "generic", name, *(f"--from-file={file}" for file in files))


def fill(place: Platform, seed: int) -> None:
    """A claim ``rows``, and a pod that writes a site's applications to it."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "rows"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    main = {
        "name": "main",
        "image": IMAGE,
        "command": ["python", "-c", _ROWS, str(seed)],
        "securityContext": closed,
        "volumeMounts": [{"name": "rows", "mountPath": "/rows"}],
    }
    user = {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "containers": [main],
        "restartPolicy": "Never",
        "securityContext": user,
        "volumes": [{"name": "rows", "persistentVolumeClaim": {"claimName": "rows"}}],
    }
    apply(place.namespace, claim, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fill"}, "spec": spec})


def join(place: Platform, name: str, server: str) -> None:
    """Install a site's chart; two sites are too few for a secure sum."""
    values = {
        "name": name,
        "existingSecret": name,
        "server": {"host": server},
        "rowsClaim": "rows",
        "source": "/rows/applications.csv",
        "recipe": "network",
        "rules": {"secure": False, "accept.roc_auc": 0.6},
        "settings": {"model.hidden": [16]},
        "persistence": {"enabled": False},
    }
    options = [part for key, value in values.items() for part in ("--set-json", f"{key}={json.dumps(value)}")]
    command = ["helm", "-n", place.namespace, "install", "fairlead", str(SITE_CHART), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def job(place: Platform) -> str:
    (found,) = [one["metadata"]["name"] for one in place.get("jobs") if "federat" in one["metadata"]["name"]]
    return str(found)
