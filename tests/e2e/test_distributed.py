"""A training by two pods of an indexed Job (gloo), with data and model through S3, gives what one process gives."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.cluster.reach import use_storage
from deploy.cli.cluster.settings import Cluster
from tests.e2e.spaces import kubectl, need_image, space

pytestmark = pytest.mark.e2e
IMAGE = "ghcr.io/fairlead/pipelines:0.1.0-torch"
SETTINGS = {"model.dropout": 0.0, "training.epochs": 3, "model.hidden": 16, "model.embedding": 16}


def test_two_pods_learn_what_one_process_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from pipelines.steps.train import train
    from pipelines.tasks import dump_config, get_task, recipe_config
    from pipelines.training.spread import Spread

    config = dump_config(recipe_config(get_task("news"), "embedding_lstm", SETTINGS))
    dataset = _dataset(config, tmp_path)
    with space("k3-train") as namespace:
        need_image(IMAGE)
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        use_storage(Cluster(namespace=namespace))  # as a pod's environment would
        spread = Spread(
            nodes=2,
            image=IMAGE,
            namespace=namespace,
            cpu="200m",
            memory="1Gi",
            place="s3://fairlead/spread",
            environment={"AWS_ENDPOINT_URL": "http://fairlead-s3:9000", "AWS_REGION": "us-east-1"},
            secrets={
                "AWS_ACCESS_KEY_ID": ("fairlead-s3", "access-key"),
                "AWS_SECRET_ACCESS_KEY": ("fairlead-s3", "secret-key"),
            },
            timeout=400,
        )
        result = train("news", config, str(dataset), "", str(tmp_path / "spread"), spread.model_dump_json())
        left = kubectl("-n", namespace, "get", "jobs,services,networkpolicies", "-o", "name")
        assert "train-" not in left
    alone = train("news", config, str(dataset), str(tmp_path / "c" / "a"), str(tmp_path / "alone"))
    assert result["rounds"] == alone["rounds"] == 3
    one, two = (_history(tmp_path / name) for name in ("alone", "spread"))
    for first, second in zip(one, two, strict=True):
        assert second["train_loss"] == pytest.approx(first["train_loss"], rel=1e-3)
        assert second["valid_loss"] == pytest.approx(first["valid_loss"], rel=1e-3)
    assert (tmp_path / "spread" / "model" / "model.onnx").exists()


def _dataset(config: str, folder: Path) -> Path:
    from pipelines.steps.build_dataset import build_dataset
    from pipelines.steps.ingest import ingest
    from pipelines.steps.validate import validate

    ingest("news", config, "", str(folder / "data"), str(folder / "manifest"))
    validate("news", config, str(folder / "manifest"), str(folder / "clean"))
    (folder / "features").write_text("{}")
    build_dataset("news", config, *(str(folder / name) for name in ("clean", "features", "dataset")))
    return folder / "dataset"


def _history(folder: Path) -> Any:
    return json.loads((folder / "train.json").read_text())["history"]
