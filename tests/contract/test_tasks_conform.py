"""Every discovered task keeps the promises that the platform makes for it, from raw data to a prediction."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.request
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.bundle import read_bundle
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.registry import Registry
from contracts.settings import load
from pipelines.data.seen import read_seen, row_hashes
from pipelines.data.sensitive import sensitive_of
from pipelines.steps.build_dataset import SPLITS
from pipelines.task import dump_config
from pipelines.tasks import get_task, load_config, recipe_config, task_names
from services.server.lifecycle import MODALITIES
from tests.chain import Chain

ROOT = Path(__file__).parents[2]
TASKS = task_names()
# What takes minutes to train is trained for seconds here, and its gate asks nothing; docs has the numbers.
QUICK: dict[str, dict[str, Any]] = {
    "drawings": {
        "training.epochs": 1,
        "model.widths": [8, 16],
        "reference.epochs": 1,
        "sampling.steps": 2,
        "gate.thresholds": [],
    },
    "translation": {
        "sample.sentences": 300,
        "training.epochs": 1,
        "decoding.max_tokens": 12,
        "gate.thresholds": [],
    },
    "writing": {
        "rows": 150,
        "training.steps": 12,
        "training.evaluate": 2,
        "training.threads": 1,
        "model.max_tokens": 24,
        "gate.thresholds": [],
        "gate.tuning.above_ngram": None,
    },
}
RECIPES = [(name, recipe) for name in TASKS for recipe in get_task(name).recipes]


@pytest.mark.parametrize(("name", "recipe"), RECIPES)
def test_a_recipe_survives_json(name: str, recipe: str) -> None:
    task = get_task(name)
    config = recipe_config(task, recipe)
    assert load_config(task, dump_config(config)) == config
    assert config.recipe == recipe


@pytest.mark.parametrize(("name", "recipe"), RECIPES)
def test_a_recipe_is_frozen_and_refuses_unknown_keys(name: str, recipe: str) -> None:
    task = get_task(name)
    config = recipe_config(task, recipe)
    assert is_dataclass(config)
    with pytest.raises(AttributeError):
        setattr(config, fields(config)[0].name, "other")
    with pytest.raises(PlatformError, match="nonsense"):
        recipe_config(task, recipe, {"data.nonsense": 1})


@pytest.mark.parametrize("name", TASKS)
def test_names_agree_across_the_tree(name: str) -> None:
    task = get_task(name)
    assert task.name == name
    assert task.default_recipe in task.recipes
    columns = {column.name for column in task.columns}
    assert {task.id, task.label, *task.entities, *([task.timestamp] if task.timestamp else [])} <= columns
    assert task.modality in MODALITIES.names()
    assert (ROOT / "pipelines" / "tasks" / name / "README.md").exists()
    if task.feature_service:
        assert task.feature_service in (ROOT / "feature_repo" / f"{name}.py").read_text()


@pytest.mark.parametrize("name", TASKS)
def test_its_readme_names_every_recipe(name: str) -> None:
    readme = (ROOT / "pipelines" / "tasks" / name / "README.md").read_text()
    assert [recipe for recipe in get_task(name).recipes if f"`{recipe}`" not in readme] == []


@pytest.mark.parametrize("name", TASKS)
def test_its_deployment_validates(name: str) -> None:
    from deploy.cli.profiles.deployment import Deployment

    values = load(Deployment, ROOT / "deploy" / "env" / "local" / "models" / f"{name}.yaml", environ={})
    assert values.modality in ("", get_task(name).modality)


@pytest.fixture(scope="module", params=TASKS)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, registry_tables: Path) -> Chain:
    """The task's default recipe on its built-in data, published."""
    made = Chain(
        task=request.param, home=tmp_path_factory.mktemp(request.param), overrides=QUICK.get(request.param, {})
    )
    shutil.copy(registry_tables, made.home)
    made.dataset()
    try:
        made.candidate()
    except PlatformError as err:
        if err.code == "no_weights":
            pytest.skip(str(err))  # nothing here may be downloaded
        raise
    made.published()
    return made


@pytest.mark.integration
def test_the_default_recipe_passes_its_gate_and_becomes_champion(chain: Chain) -> None:
    champion = Registry(chain.endpoints).resolve(chain.task)
    assert champion.gate_passed
    document = read_bundle(champion.path).document
    assert document.lineage.data_version == chain.version
    without = {name for name in document.slices if name.startswith("features:")}
    assert without >= ({"features:unknown entity", "features:stale"} if document.feature_service else set())
    assert bool(without) == bool(document.feature_service)


@pytest.mark.integration
def test_its_bundle_tells_what_the_model_has_learned_from(chain: Chain) -> None:
    bundle = Registry(chain.endpoints).fetch(chain.task)
    record = read_seen(bundle.path)
    for name in SPLITS:
        rows = pd.read_parquet(chain.path("dataset") / f"{name}.parquet", columns=["id", "row_key"])
        assert rows["row_key"].is_unique
        assert set(record.has(row_hashes(rows["row_key"]))) == {name != "test"}
    assert 8 * (len(record.hashes) + 1) == (bundle.path / "seen.bin").stat().st_size


@pytest.mark.integration
def test_its_sensitive_columns_are_measured_and_reach_no_model(chain: Chain) -> None:
    task, bundle = get_task(chain.task), Registry(chain.endpoints).fetch(chain.task)
    sensitive = {one.name for one in sensitive_of(task)}
    signature = bundle.document.signature
    assert not sensitive & {item.name for item in (*signature.inputs, *signature.request)}
    for name in SPLITS:
        columns = set(pd.read_parquet(chain.path("dataset") / f"{name}.parquet").columns)
        assert not (sensitive | {f"slice_{one}" for one in sensitive}) & columns
        assert (chain.path("dataset") / f"groups_{name}.parquet").exists() == bool(sensitive)
    measured = bundle.read_json("evaluation.json").get("fairness", {"columns": {}})
    assert sensitive <= set(measured["columns"])
    judged = {check.metric.partition(":")[0] for check in bundle.document.gate.checks}
    assert bool(sensitive & judged) == bool(sensitive)


@pytest.mark.integration
def test_reasons_that_its_gate_asks_for_are_there_and_truer_than_chance(chain: Chain) -> None:
    bundle, limits = Registry(chain.endpoints).fetch(chain.task), chain.settings.gate.explanations
    judged = {check.metric: check for check in bundle.document.gate.checks}
    for name in ("above_random", "stability"):
        asked = getattr(limits, name) is not None
        assert (f"explanations:{name}" in judged) == asked, "a model without reasons is not judged by them"
        assert not asked or judged[f"explanations:{name}"].passed
    told = bundle.read_json("evaluation.json").get("explanations", {})
    assert limits.above_random is None or told["above_random"] > 0


@pytest.mark.integration
def test_its_golden_examples_hold_for_the_published_bundle(chain: Chain) -> None:
    bundle = Registry(chain.endpoints).fetch(chain.task)
    golden = list(bundle.golden())
    assert len(golden) >= 5
    inputs = bundle.document.signature.inputs

    def column(name: str, dtype: str) -> Any:
        values = [example.inputs[name] for example in golden]
        if dtype == "string":
            return np.array(values, dtype=object)
        if dtype == "bytes":
            files = np.empty(len(values), dtype=object)
            files[:] = [base64.b64decode(str(value)) for value in values]
            return files
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)

    answered = load_engine(bundle).predict({item.name: column(item.name, item.dtype) for item in inputs})
    problem, output = bundle.document.signature.problem, bundle.document.signature.output
    assert problem.wrong(output, answered, len(golden)) == ""
    for row, example in enumerate(golden):
        assert problem.differs(output, example.expected, answered, row, example.tolerance) == ""


@pytest.mark.integration
def test_its_service_answers_the_example_of_its_own_page(chain: Chain) -> None:
    from contracts.ports import free_port
    from deploy.cli.serving.endpoint import Endpoint

    registry = Registry(chain.endpoints)
    version = registry.resolve(chain.task)
    bundle = registry.fetch(chain.task)
    with Endpoint(chain.endpoints, version, bundle, free_port()) as endpoint:
        endpoint.start()
        endpoint.wait_ready()
        body = json.dumps(endpoint.example()).encode()
        request = urllib.request.Request(endpoint.url + "/predict", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = json.load(response)
        with urllib.request.urlopen(endpoint.url + "/metrics", timeout=10) as response:
            metrics = response.read().decode()
    assert answer["version"] == version.version
    model = bundle.document.signature.problem.answer_model(bundle.document.signature.output)
    assert answer["predictions"]
    for prediction in answer["predictions"]:
        model.model_validate(prediction)
    assert "fairlead_model_info{" in metrics
