"""A training by two pods of an indexed Job (gloo), with data and model through S3, gives what one process gives."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cli.cluster.cluster_settings import Cluster
from deploy.cli.cluster.port_forward import use_storage
from tests.e2e.spaces import apply, kubectl, need_image, space

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
IMAGE = "ghcr.io/fairlead/pipelines:0.1.0-torch"
SETTINGS = {"model.dropout": 0.0, "training.epochs": 3, "model.hidden": 16, "model.embedding": 16}


def test_two_pods_learn_what_one_process_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from pipelines.steps.train import train
    from pipelines.task import dump_config
    from pipelines.tasks import get_task, recipe_config
    from pipelines.training.pods import DistributedJob

    config = dump_config(recipe_config(get_task("news"), "embedding_lstm", SETTINGS))
    dataset = _dataset(config, tmp_path)
    with space("training") as namespace:
        need_image(IMAGE)
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        use_storage(Cluster(namespace=namespace))  # as a pod's environment would
        wanted = DistributedJob(
            nodes=2,
            image=IMAGE,
            namespace=namespace,
            service_account="pipeline-runner",
            cpu="200m",
            memory="1Gi",
            place="s3://fairlead/jobs",
            environment={"AWS_ENDPOINT_URL": "http://fairlead-s3:9000", "AWS_REGION": "us-east-1"},
            secrets={
                "AWS_ACCESS_KEY_ID": ("fairlead-s3", "access-key"),
                "AWS_SECRET_ACCESS_KEY": ("fairlead-s3", "secret-key"),
            },
            timeout=400,
        )
        with monkeypatch.context() as patch:
            calls = as_steps(namespace, tmp_path, patch)
            result = train("news", config, str(dataset), "", str(tmp_path / "apart"), wanted.model_dump_json())
        assert ("POST", "networkpolicies") in calls, "the pods of a training are closed to all others"
        left = kubectl("-n", namespace, "get", "jobs,services,networkpolicies", "-o", "name")
        assert "train-" not in left
    alone = train("news", config, str(dataset), str(tmp_path / "c" / "a"), str(tmp_path / "alone"))
    assert result["rounds"] == alone["rounds"] == 3
    one, two = (_history(tmp_path / name) for name in ("alone", "apart"))
    for first, second in zip(one, two, strict=True):
        assert second["train_loss"] == pytest.approx(first["train_loss"], rel=1e-3)
        assert second["valid_loss"] == pytest.approx(first["valid_loss"], rel=1e-3)
    assert (tmp_path / "apart" / "model" / "model.onnx").exists()


def as_steps(namespace: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Let the training act as the account of the steps, with the Role of the chart; returns the calls that it made."""
    from pipelines.training import distributed_job

    shown = ["--show-only", "charts/pipelines/templates/steps.yaml"]
    command = ["helm", "template", "fairlead", str(ROOT / "helm" / "platform"), "-n", namespace, *shown]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kinds = ("ServiceAccount", "Role", "RoleBinding")
    apply(namespace, *(each for each in yaml.load_all(made, yaml.CSafeLoader) if each and each["kind"] in kinds))
    token = kubectl("-n", namespace, "create", "token", "pipeline-runner", "--duration=1h").strip()
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify", "-o", "yaml"))
    config["users"][0]["user"] = {"token": token}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    allowed: list[tuple[str, str]] = []
    call = distributed_job._Kube._call

    def recorded(self: Any, method: str, path: str, body: Any) -> Any:
        answer = call(self, method, path, body)
        allowed.append((method, path.partition("/namespaces/")[2].split("/")[1]))
        return answer

    monkeypatch.setattr(distributed_job._Kube, "_call", recorded)
    return allowed


def _dataset(config: str, folder: Path) -> Path:
    from pipelines.steps.build_dataset import build_dataset
    from pipelines.steps.ingest import ingest
    from pipelines.steps.validate import validate

    ingest("news", config, "", str(folder / "data"), str(folder / "manifest"))
    validate("news", config, str(folder / "manifest"), str(folder / "clean"))
    build_dataset("news", config, str(folder / "clean"), "", str(folder / "dataset"))
    return folder / "dataset"


def _history(folder: Path) -> Any:
    return json.loads((folder / "train.json").read_text())["history"]
