"""A federation of real processes over mutual TLS on this machine, from rows to a graph that answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import PlatformError
from contracts.ports import free_port
from pipelines.federation.certificates import make_certificates
from pipelines.federation.engine import Hub
from pipelines.federation.messages import Message
from pipelines.federation.settings import FederationConfig
from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.recipes.tabular.task import TabularTask
from pipelines.task import Column
from pipelines.training.network import NetworkConfig
from pipelines.training.tabular import CostConfig
from tests.chain import Chain

pytestmark = pytest.mark.integration


SITE = """
import pathlib, sys, time
from pipelines.federation.engine import attend

class Over:
    def wait(self):
        print("connecting", flush=True)
        time.sleep(60)

attend("bank-a", sys.argv[1], pathlib.Path(sys.argv[2]), lambda asked: asked, Over())
"""


class Loans(TabularTask):
    name, title, id, label = "loans", "Who repays?", "id", "label"
    classes = ("no", "yes")
    columns = (
        Column(name="id", dtype="string"),
        Column(name="income", dtype="float64"),
        Column(name="debt", dtype="float64", nullable=True),
        Column(name="kind", dtype="string", categories=("a", "b")),
        Column(name="label", dtype="string"),
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    import pandas as pd

    folder = tmp_path / "dataset"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name, rows in (("train", 900), ("valid", 400)):
        made = pd.DataFrame(
            {
                "id": [f"{name}-{at}" for at in range(rows)],
                "income": rng.lognormal(3, 1, rows),
                "debt": rng.lognormal(2, 1, rows),
                "kind": rng.choice(["a", "b"], rows),
            }
        )
        odds = np.log1p(made["income"]) - np.log1p(made["debt"]) + (made["kind"] == "a")
        made["label"] = np.where(odds + rng.normal(0, 0.5, rows) > 1.5, "yes", "no")
        made.to_parquet(folder / f"{name}.parquet")
    return folder


def trained(dataset: Path, home: Path, **federation: Any) -> dict[str, Any]:
    recipe = TabularRecipe(
        recipe="network",
        model=NetworkConfig(hidden=(4,), calibration="none"),
        cost=CostConfig(rule="expected"),
        federation=FederationConfig(**federation),
    )
    (home / "checkpoints").mkdir(parents=True, exist_ok=True)
    task: Any = Loans()
    return recipe.train(task, dataset, home / "model", home / "checkpoints", lambda *_, **__: None)


def test_sites_die_and_misbehave_and_a_training_goes_on_after_a_quorum_was_missed(
    dataset: Path, tmp_path: Path
) -> None:
    asked = {"clients": 5, "rounds": 7, "deadline": 20}
    with pytest.raises(PlatformError) as failed:
        trained(dataset, tmp_path, **asked, secure=True, quorum=0.8, faults={"site-2": "drop", "site-4": "drop"})
    assert failed.value.code == "quorum"
    assert "in round 3" in str(failed.value)
    assert "site-2: it is gone" in failed.value.detail
    faults = {"site-2": "drop", "site-3": "nan", "site-5": "schema"}
    found = trained(dataset, tmp_path, **asked, quorum=0.4, faults=faults)
    sites = {one["name"]: one for one in found["federation"]["sites"]}
    assert [row["round"] for row in found["history"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["sites"] for row in found["history"]] == [5, 5, 3, 3, 2, 2, 2]  # the first two were of the first time
    assert found["history"][-1]["valid_roc_auc"] > 0.8
    assert sites["site-2"]["decision"] is None
    assert "not finite" in sites["site-3"]["refused"]
    assert "another schema" in sites["site-5"]["refused"]
    assert all(sites[name]["decision"]["accepted"] for name in ("site-1", "site-4"))
    assert (tmp_path / "model" / "model.onnx").stat().st_size > 500
    assert not [name for name in os.listdir("/proc") if name.isdigit() and _runs(name, str(tmp_path))]


def test_sites_train_a_recipe_of_texts_and_its_bundle_answers(tmp_path: Path) -> None:
    given = {"federation.clients": 3, "federation.rounds": 4, "federation.local_epochs": 5, "federation.momentum": 0.0}
    sizes = {"model.embedding": 24, "model.hidden": 8, "training.learning_rate": 0.02, "training.batch_size": 8}
    chain = Chain(task="news", recipe="embedding_lstm", home=tmp_path, overrides={**given, **sizes})
    chain.dataset()
    chain.candidate()
    found = chain.evaluation()
    sites = found["federation"]["sites"]
    assert [one["rounds"] for one in sites] == [4, 4, 4]
    assert all("accuracy" in one["decision"]["measured"] for one in sites)
    assert found["history"][-1]["valid_accuracy"] > 0.4
    assert found["metrics"]["accuracy"] > 0.4, "a guess has 0.2"
    assert (chain.path("candidate") / "plots" / "federation.png").exists()


@pytest.mark.parametrize(
    ("at", "copied"),
    [
        ("site", {"bank-a.crt": "bank-b.crt", "bank-a.key": "bank-b.key"}),
        ("site", {"ca.pem": "other/ca.pem", "bank-a.crt": "other/bank-a.crt", "bank-a.key": "other/bank-a.key"}),
        ("server", {"server.crt": "bank-b.crt", "server.key": "bank-b.key"}),
        ("site", {}),
    ],
    ids=["a site as another", "a site of another authority", "a site as the coordinator", "who it says"],
)
def test_only_who_is_who_it_says_is_connected(at: str, copied: dict[str, str], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    make_certificates(keys, ["bank-a", "bank-b"], ["localhost"])
    make_certificates(keys / "other", ["bank-a"], ["localhost"])
    for place, own in (("site", "bank-a"), ("server", "server")):
        (tmp_path / place).mkdir()
        for file in ("ca.pem", f"{own}.crt", f"{own}.key"):
            shutil.copy(keys / file, tmp_path / place / file)
    for name, source in copied.items():
        shutil.copy(keys / source, tmp_path / at / name)
    server = f"localhost:{free_port()}"
    with Hub(server, tmp_path / "server", ["bank-a"]) as hub:
        command = [sys.executable, "-c", SITE, server, str(tmp_path / "site")]
        site = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert site.stdout is not None
        assert site.stdout.readline() == "connecting\n"
        came = hub.wait_for_sites(2.0 if copied else 30.0)
        found = hub.ask({"bank-a": Message(document={"ask": "hello"})}, 5.0, lambda left, answered: True)
        site.kill()
        site.communicate()
    assert came == (set() if copied else {"bank-a"})
    assert {name: answer.document for name, answer in found.items()} == ({} if copied else {"bank-a": {"ask": "hello"}})


def _runs(process: str, text: str) -> bool:
    try:
        return text in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False
