"""Federated learning on Adult, a part of ``make bench-trust``: ten sites with whole occupations, real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from contracts.engines import load_engine
from contracts.errors import PlatformError
from pipelines.evaluation import get_evaluation
from pipelines.evaluation.scoring import columns_of, predict, provisional
from pipelines.federation.settings import Fault, FederationConfig
from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.training.network import NetworkConfig
from pipelines.training.privacy import PrivacyConfig, of_public_rows
from pipelines.training.tabular import CostConfig
from tests.bench.report import Row

SITES = FederationConfig(clients=10, split="occupation", rounds=80)
ALONE = FederationConfig()
POISONERS = ("site-2", "site-5")  # of the larger ones
LOST: Mapping[str, Fault] = {"site-3": "drop", "site-9": "drop"}
COST = CostConfig(false_negative=1.0, rule="expected")
SEED = 7


def silent(*_: Any, **__: Any) -> None:
    """Progress that nobody looks at."""


def federated(home: Path, files: Any) -> Iterator[Row]:
    """Central training beside sites, of which some lie or die. `files` is `tests.bench.trust.AdultData`."""
    cases: Mapping[str, FederationConfig] = {
        "ten sites": SITES,
        "ten sites, by chance": replace(SITES, split="iid"),
        "ten sites, FedProx 0.01": replace(SITES, proximal=0.01),
        "two undo what others learn": _poisoned("screened", "sign"),
        "two learn wrong labels": _poisoned("screened", "flip"),
        "the same, trimmed": _poisoned("trimmed", "flip"),
        "the same, mean": _poisoned("mean", "flip"),
        "two of ten lost": replace(SITES, faults=LOST),
        "two of ten lost, secure": replace(SITES, faults=LOST, secure=True),
    }
    goals = {"ten sites", "two undo what others learn", "two learn wrong labels"}
    central = _measured(home / "central", files, NetworkConfig(), ALONE, None)
    yield from _rows("central", central)
    for at, (name, config) in enumerate(cases.items()):
        failed, found = 0, {}
        try:
            found = _measured(home / str(at), files, NetworkConfig(), config, None)
            yield from _rows(name, found)
        except PlatformError:
            failed = 1
        if name in goals and found:
            yield _behind(name, "AUC", 100 * (central["roc_auc"] - found["roc_auc"]))
            yield _behind(name, "accuracy", 100 * (central["accuracy"] - found["accuracy"]))
        if "lost" in name:
            yield Row(case="Adult, failed runs", contestant=name, value=failed, unit="runs", goal="<= 0")
    asked = replace(SITES, rounds=30, drawn=0.2, momentum=0.5)
    for epsilon, unit in ((8.0, "row"), (3.0, "row"), (8.0, "site")):
        noisy = replace(asked, unit=unit, rounds=30 if unit == "row" else 10)  # type: ignore[arg-type]
        with of_public_rows():
            privacy = PrivacyConfig(epsilon=epsilon, clip=1.0)
            found = _measured(home / f"{unit}-{epsilon:g}", files, NetworkConfig(), noisy, privacy)
        yield from _rows(f"ten sites, epsilon {epsilon:g} of each {unit}", found)


def _poisoned(rule: Any, fault: Any) -> FederationConfig:
    return replace(SITES, rule=rule, faults=dict.fromkeys(POISONERS, fault))


def _rows(name: str, found: Mapping[str, float]) -> Iterator[Row]:
    yield Row(case="Adult, network, ROC AUC", contestant=name, value=found["roc_auc"], unit="AUC")
    yield Row(case="Adult, network", contestant=name, value=100 * found["accuracy"], unit="% accuracy")
    yield Row(case="Adult, network, time", contestant=name, value=found["seconds"], unit="s")


def _behind(name: str, metric: str, points: float) -> Row:
    return Row(case=f"Adult, {metric} behind central", contestant=name, value=points, unit="points", goal="<= 0.5")


def _measured(
    home: Path, files: Any, model: Any, federation: FederationConfig, privacy: PrivacyConfig | None
) -> dict[str, float]:
    """Train, and ask the engine of the bundle about Adult's test file."""
    recipe = TabularRecipe(
        recipe="adult", model=model, cost=COST, federation=federation, privacy=privacy or PrivacyConfig()
    )
    (home / "checkpoints").mkdir(parents=True)
    (home / "model").mkdir()
    began = time.perf_counter()
    trained = recipe.train(files.task, files.folder, home / "model", home / "checkpoints", silent)
    seconds = time.perf_counter() - began
    inputs = [item.model_dump() for item in files.task.inputs(recipe)]
    fields = {
        "name": "adult",
        "task": "adult",
        "recipe": "adult",
        "modality": "tabular",
        "engine": trained["engine"],
        "signature": {"inputs": inputs, "output": trained["output"]},
        "decision": trained["decision"],
        "lineage": {"code_version": "", "data_version": "", "source": "", "seed": SEED},
    }
    bundle = provisional(home, fields)
    document, frame = bundle.document, files.test.assign(label=files.test["income"])
    answers = predict(load_engine(bundle), columns_of(frame, document.signature.inputs), document)
    given = (frame, answers, document.signature.output, document.decision)
    return {**get_evaluation("classification").measure_for(*given)(None), "seconds": seconds}
