"""The recipe `transformer`: trained, exported, quantised when that costs nothing, and exported again from a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.bundle import Bundle, GateDecision, write_bundle
from contracts.engines import load_engine
from contracts.errors import PlatformError
from pipelines.pages.card import render_card
from pipelines.steps.evaluate import evaluate
from pipelines.steps.gate import gate
from pipelines.steps.train import train
from pipelines.task import dump_config
from pipelines.tasks import get_task, recipe_config
from tests.chain import Chain

LINEAGE = {"code_version": "c", "data_version": "d", "source": "s"}
SMALL = {
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "model.inner": 32,
    "training.epochs": 2,
    "text.max_tokens": 24,
    "gate.int8_tolerance": 0.5,
}


class Story(Chain):
    """Trains with other settings on one data set."""

    def config_of(self, changes: dict[str, Any], recipe: str = "transformer") -> str:
        given = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
        return dump_config(recipe_config(get_task(self.task), recipe, given))

    def publish(self, name: str, recipe: str = "transformer", **changes: Any) -> Bundle:
        """A bundle of what training gives, without what evaluation adds."""
        home = self.path(name)
        train(
            self.task, self.config_of(changes, recipe), str(self.path("dataset")), str(home / "c"), str(home / "model")
        )
        trained = json.loads((home / "model" / "train.json").read_text())
        (home / "model" / "train.json").unlink()
        signature = {"inputs": [item.model_dump() for item in get_task("news").inputs(None)]}
        fields = {
            "name": "news",
            "task": "news",
            "recipe": recipe,
            "modality": "text",
            "engine": trained["engine"],
            "signature": signature | {"output": trained["output"]},
            "parameters": trained["parameters"],
            "gate": {"passed": False, "checks": [one for one in trained.get("choices", []) if one["passed"]]},
            "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 7, "created": "now"},
        }
        return write_bundle(home / "model", self.home / "bundles", fields)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    pytest.importorskip("transformers", reason="it is part of the extra torch")
    made = Story(task="news", recipe="transformer", home=tmp_path_factory.mktemp("transformer"))
    made.dataset()
    return made


@pytest.fixture(scope="module")
def fp32(story: Story) -> Bundle:
    return story.publish("fp32", model__int8=False)


@pytest.fixture(scope="module")
def weights(story: Story) -> Bundle:
    return story.publish("weights", model__engine="torch")


def answers(bundle: Bundle, story: Story) -> Any:
    test = pd.read_parquet(story.path("dataset") / "test.parquet")
    return load_engine(bundle).predict({name: test[name].to_numpy(object) for name in ("title", "content")})


def int8_check(bundle: Bundle) -> Any:
    return next(check for check in bundle.document.gate.checks if "int8" in check.metric)


def test_int8_is_served_when_the_validation_rows_allow_it(story: Story, fp32: Bundle) -> None:
    bundle = story.publish("int8")
    check, parameters = int8_check(bundle), bundle.document.parameters
    assert (check.passed, check.against) == (True, "fp32")
    assert parameters["form"] == "int8"
    assert parameters["valid_macro_f1_int8"] == check.value >= check.limit
    assert parameters["valid_macro_f1_fp32"] - 0.5 == pytest.approx(check.limit)
    small, large = ((one.model_path / "model.onnx").stat().st_size for one in (bundle, fp32))
    assert small < 0.65 * large  # of a model so small that names and nodes are half of the file
    np.testing.assert_allclose(answers(bundle, story), answers(fp32, story), atol=0.1)


def test_the_choice_is_in_the_gate_and_in_the_card(story: Story) -> None:
    home, dataset, config = story.path("whole"), str(story.path("dataset")), story.config_of({"training__epochs": 1})
    model, candidate, file = (home / part for part in ("model", "candidate", "gate.json"))
    train("news", config, dataset, str(home / "c"), str(model))
    evaluate("news", config, dataset, str(model), json.dumps(LINEAGE), str(candidate))

    def decide() -> GateDecision:
        gate("news", config, dataset, str(candidate), story.endpoints.model_dump_json(), str(file))
        return GateDecision.model_validate_json(file.read_text())

    taken = decide()
    assert [check.passed for check in taken.checks if "int8" in check.metric] == [True]
    fields = json.loads((candidate / "candidate.json").read_text()) | {"gate": taken.model_dump()}
    fields["lineage"]["created"] = "now"
    card = render_card(candidate, fields, "News")
    assert "valid macro f1 fp32" in card
    assert "of int8 on the validation rows" in card
    golden = [json.loads(line) for line in (candidate / "golden.jsonl").read_text().splitlines()]
    assert min(example["tolerance"] for example in golden) >= 1e-3  # int8 depends a little on a row's neighbours

    evaluation = json.loads((candidate / "evaluation.json").read_text())
    evaluation["choices"][0]["passed"] = False
    (candidate / "evaluation.json").write_text(json.dumps(evaluation))
    turned_down = decide()
    assert [check for check in turned_down.checks if "int8" in check.metric] == []
    assert any("not taken: macro_f1 of int8" in reason for reason in turned_down.reasons)


def test_int8_that_costs_too_much_is_not_served(story: Story) -> None:
    bundle = story.publish("refused", gate__int8_tolerance=-1.0, training__epochs=1)
    assert bundle.document.parameters["form"] == "fp32"
    assert b"MatMulInteger" not in (bundle.model_path / "model.onnx").read_bytes()


def test_a_published_graph_becomes_int8_as_a_new_version_without_training(story: Story, fp32: Bundle) -> None:
    bundle = story.publish("again", model__bundle=str(fp32.path))
    assert bundle.digest != fp32.digest
    parameters = bundle.document.parameters
    assert (parameters["form"], parameters["exported_from"]) == ("int8", fp32.digest[:12])
    assert int8_check(bundle).passed
    with pytest.raises(PlatformError, match="8 bits already"):
        story.publish("twice", model__bundle=str(bundle.path))


def test_published_weights_become_a_graph_and_answer_alike(story: Story, fp32: Bundle, weights: Bundle) -> None:
    assert weights.document.engine == "torch"
    assert sorted(file.name for file in weights.model_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "text.json",
        "tokenizer.json",
    ]
    np.testing.assert_allclose(answers(weights, story), answers(fp32, story), atol=1e-5)
    exported = story.publish("graph", model__bundle=str(weights.path), model__int8=False)
    assert exported.document.engine == "onnx"
    np.testing.assert_allclose(answers(exported, story), answers(weights, story), atol=1e-5)


def test_a_bundle_that_does_not_fit_is_refused(story: Story, fp32: Bundle) -> None:
    with pytest.raises(PlatformError, match=r"model\.bundle cannot be used") as caught:
        story.publish("wrong", model__bundle=str(fp32.path), model__engine="torch")
    assert "cannot get the weights back" in caught.value.detail


def test_training_goes_on_from_pretrained_weights(story: Story, weights: Bundle) -> None:
    begun = story.publish("begun", model__pretrained=str(weights.model_path), training__learning_rate=1e-9)
    parameters = begun.document.parameters
    assert parameters["vocabulary"] == weights.document.parameters["vocabulary"]
    np.testing.assert_allclose(answers(begun, story).argmax(axis=1), answers(weights, story).argmax(axis=1))
    with pytest.raises(PlatformError, match="no usable weights"):
        story.publish("nothing", model__pretrained=str(story.home))


def test_a_killed_training_ends_with_the_same_bytes(story: Story, fp32: Bundle, tmp_path: Path) -> None:
    config = recipe_config(get_task("news"), "transformer", SMALL | {"model.int8": False})

    def kill(done: int, total: int, **metrics: Any) -> None:
        raise KeyboardInterrupt

    task, dataset = get_task("news"), story.path("dataset")
    with pytest.raises(KeyboardInterrupt):
        config.train(task, dataset, tmp_path / "model", tmp_path / "c", kill)
    config.train(task, dataset, tmp_path / "model", tmp_path / "c", lambda *_, **__: None)
    for file in fp32.model_path.iterdir():
        assert file.read_bytes() == (tmp_path / "model" / file.name).read_bytes()


def test_an_lstm_on_top_learns_is_exported_and_answers_alone_as_together(story: Story, weights: Bundle) -> None:
    bundle = story.publish("lstm", recipe="transformer_lstm", model__hidden=8, model__int8=False)
    together = answers(bundle, story)
    engine = load_engine(bundle)
    rows = pd.read_parquet(story.path("dataset") / "valid.parquet")
    columns = {name: rows[name].astype("string").fillna("").to_numpy(object) for name in ("title", "content")}
    alone = [engine.predict({k: v[at : at + 1] for k, v in columns.items()})[0] for at in range(5)]
    np.testing.assert_allclose(engine.predict(columns)[:5], alone, atol=1e-5)
    assert together.std(axis=0).max() > 0
    from_weights = story.publish("lstm-on", recipe="transformer_lstm", model__pretrained=str(weights.model_path))
    assert from_weights.document.parameters["width"] == SMALL["model.width"]


def test_an_lstm_on_top_goes_through_the_whole_loop(story: Story) -> None:
    home, dataset = story.path("lstm-whole"), str(story.path("dataset"))
    config = story.config_of({"model__hidden": 8}, "transformer_lstm")
    train("news", config, dataset, str(home / "c"), str(home / "model"))
    evaluate("news", config, dataset, str(home / "model"), json.dumps(LINEAGE), str(home / "candidate"))
    gate("news", config, dataset, str(home / "candidate"), story.endpoints.model_dump_json(), str(home / "gate.json"))
    decided = GateDecision.model_validate_json((home / "gate.json").read_text())
    assert any("int8" in check.metric for check in decided.checks) or decided.reasons
    golden = [json.loads(line) for line in (home / "candidate" / "golden.jsonl").read_text().splitlines()]
    fields = json.loads((home / "candidate" / "candidate.json").read_text()) | {"gate": decided.model_dump()}
    fields["lineage"]["created"] = "now"
    engine = load_engine(write_bundle(home / "candidate", home / "bundles", fields))
    for example in golden:
        row = {name: np.array([value], object) for name, value in example["inputs"].items()}
        expected = example.get("expected", example.get("probabilities"))
        np.testing.assert_allclose(engine.predict(row)[0], expected, atol=example["tolerance"])
