"""Networks whose weights are a state dict in a federation: transformers of texts, and residual networks of images."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.images import read_pixels
from pipelines.federation.aggregate import RULES, Rule, Updates, bounded
from pipelines.federation.learner import Local, Valid, learned, learned_privately, loaded, measured, weights_of
from pipelines.federation.models import model_told
from pipelines.federation.pictures import Probe, Residual
from pipelines.federation.state_dict import tensors_of
from pipelines.federation.train import averaged
from pipelines.federation.words import Transformer
from pipelines.recipes.image.base import AbstainConfig, ImageConfig
from pipelines.recipes.image.probe import LinearProbe, ProbeModel
from pipelines.recipes.image.resnet import ResnetImage, ResnetModel
from pipelines.recipes.text.transformer import TransformerModel, TransformerText
from pipelines.recipes.text.transformer_lstm import TransformerLstmModel, TransformerLstmText
from pipelines.tasks import get_task
from pipelines.training.network import Spread
from pipelines.training.pictures import AugmentConfig
from pipelines.training.privacy import PrivacyConfig
from tests.late import needs

needs("torch", "transformers")

CLASSES = ["food", "sport", "weather"]
WORDS = {"food": "soup bread salt", "sport": "ball goal team", "weather": "rain wind sun"}
COLORS = {"food": (200, 60, 60), "sport": (60, 200, 60), "weather": (60, 60, 200)}
NOTHING = Spread(mean=np.zeros(0), deviation=np.zeros(0), counts={})
TEXTS = [Input(name="title", dtype="string"), Input(name="content", dtype="string")]
IMAGES = [Input(name="image", dtype="bytes")]
SGD = Local(epochs=2, batch_size=16, learning_rate=0.05, decay=0.0, clip=5.0, proximal=0.0, momentum=0.9)
ADAM = Local(epochs=3, batch_size=16, learning_rate=0.01, decay=0.0, clip=1.0, proximal=0.0)


class Sample:
    """As much of a task as a recipe of texts reads: the sample that everybody knows."""

    name, modality, problem, classes = "news", "text", "classification", tuple(CLASSES)

    def inputs(self, config: Any) -> list[Input]:
        return TEXTS

    def default_source(self, config: Any) -> Any:
        import pyarrow as pa

        yield pa.table({"title": ["the a"] * 3, "content": list(WORDS.values())})


def texts(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, rows)
    said = [" ".join(rng.choice([*WORDS[label].split(), "the", "a"], 8)) for label in labels]
    return pd.DataFrame({"title": ["the"] * rows, "content": said, "label": labels})


def images(rows: int, seed: int) -> pd.DataFrame:
    from PIL import Image

    rng = np.random.default_rng(seed)
    labels, files = rng.choice(CLASSES, rows), []
    for label in labels:
        pixels = np.clip(np.array(COLORS[label]) + rng.normal(0, 40, (10, 10, 3)), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return pd.DataFrame({"image": files, "label": labels})


def numbers(rows: pd.DataFrame) -> Any:
    return rows["label"].map({name: at for at, name in enumerate(CLASSES)}).to_numpy(np.int64)


def of_texts(with_lstm: bool = False, **sizes: Any) -> tuple[TransformerText, Transformer]:
    small: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "inner": 16, "dropout": 0.0, "int8": False, **sizes}
    text = replace(TransformerText(recipe="transformer").text, vocabulary=50, min_frequency=1, max_tokens=20)
    recipe = TransformerText(recipe="transformer", model=TransformerModel(**small), text=text)
    if with_lstm:
        recipe = TransformerLstmText(
            recipe="transformer_lstm", model=TransformerLstmModel(hidden=4, **small), text=text
        )
    task: Any = Sample()
    return recipe, recipe.federated(task, CLASSES)


def of_images(norm: Any = "group", **more: Any) -> tuple[ResnetImage, Residual]:
    recipe = ResnetImage(
        recipe="resnet",
        image=ImageConfig(width=8, height=8),
        model=ResnetModel(widths=(4, 8), blocks=(0,), norm=norm),
        augment=AugmentConfig(flip=False, crop=0.1),
        **more,
    )
    return recipe, recipe.federated(get_task("images"), CLASSES)


@pytest.mark.parametrize("with_lstm", [False, True])
def test_a_site_makes_the_same_transformer_of_what_it_is_told(with_lstm: bool) -> None:
    _, made = of_texts(with_lstm)
    told = json.loads(json.dumps(made.told()))
    site: Any = model_told(told, TEXTS, CLASSES)
    rows, weights = texts(6, 1), made.first(7)
    assert site.layout() == made.layout()
    assert [row.tolist() for row in site.read(rows)] == [row.tolist() for row in made.read(rows)]
    assert site.scores(weights, site.read(rows)) == pytest.approx(made.scores(weights, made.read(rows)))
    assert weights_of(made, loaded(made, weights)) == pytest.approx(weights), (
        "the first weights are those it began with"
    )
    for change in ({"shape": {"model_type": "none"}}, {"shape": {}}, {"tokenizer": "{}"}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            model_told({**told, **change}, TEXTS, CLASSES)


def test_sites_of_texts_learn_together_though_one_of_five_sends_the_opposite() -> None:
    _, model = of_texts(width=32)
    sites, valid, weights = [texts(48, seed) for seed in range(5)], texts(60, 9), model.first(7)
    before = measured(model.scores(weights, model.read(valid)), numbers(valid))
    for number in range(3):
        updates = np.stack(
            [
                learned(model, weights, model.read(rows), numbers(rows), ADAM, [7, number, at])
                for at, rows in enumerate(sites)
            ]
        )
        updates[2] *= -50
        cut, was = bounded(Updates(values=updates, rows=np.full(5, 48.0)), 2.0)
        assert was.tolist() == [False, False, True, False, False]
        weights = weights + RULES["trimmed"](cut, Rule(trim=0.2, loss=lambda step: 0.0))
    after = measured(model.scores(weights, model.read(valid)), numbers(valid))
    assert before["accuracy"] < 0.7 < 0.9 < after["accuracy"]
    undone = weights + RULES["mean"](Updates(values=updates, rows=np.full(5, 48.0)), Rule(trim=0.2, loss=lambda _: 0.0))
    spoiled = measured(model.scores(undone, model.read(valid)), numbers(valid))
    assert spoiled["accuracy"] < after["accuracy"] - 0.2, "a plain mean is spoiled"


def test_a_training_of_few_rounds_forgets_how_it_began() -> None:
    rounds, mean, seen = 8, np.zeros(1), []
    for number in range(1, rounds + 1):
        mean = averaged(mean, np.array([float(number)]), number - rounds // 2)
        seen.append(float(mean[0]))
    assert seen == pytest.approx([1, 2, 3, 4, 5, 5.5, 6, 6.5])  # nothing of the first half
    assert averaged(np.zeros(1), np.ones(1), 30)[0] == pytest.approx(0.2)


def test_a_proximal_term_holds_a_transformer_back() -> None:
    _, model = of_texts()
    rows = texts(32, 1)
    given = (model, model.first(7), model.read(rows), numbers(rows))
    once, again, held = (learned(*given, how, [1]) for how in (ADAM, ADAM, replace(ADAM, proximal=50.0)))
    assert np.array_equal(once, again)
    assert np.linalg.norm(held) < 0.8 * np.linalg.norm(once)


def test_the_graph_of_a_transformer_answers_as_the_coordinator_measured(tmp_path: Path) -> None:
    import onnxruntime

    recipe, model = of_texts()
    valid, weights = texts(40, 3), model.first(3)
    weights = weights + learned(model, weights, model.read(valid), numbers(valid), ADAM, [1])
    task: Any = Sample()
    given = Valid(x=model.read(valid), y=numbers(valid), losses=np.ones(40), task=task, frame=valid)
    found = model.finish(weights, NOTHING, recipe, given, False, tmp_path)
    raw = model.scores(weights, given.x) / found["parameters"]["temperature"]
    expected = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    graph = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    answers = [graph.run(["probabilities"], {"ids": row[None]})[0][0] for row in given.x]
    assert np.array(answers) == pytest.approx(expected, abs=1e-4)
    assert (found["decision"], found["engine"], found["parameters"]["form"]) == (None, "onnx", "fp32")


def test_what_a_federation_of_a_transformer_cannot_have_is_refused_with_the_fix() -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"engine": "torch"}, "model.engine=onnx"),
        ({"bundle": "s3://one"}, "model.bundle="),
    ]
    for change, fix in changes:
        with pytest.raises(PlatformError, match="a federation cannot have") as failed:
            of_texts(**change)
        assert fix in failed.value.fix


def test_batch_norm_is_refused_with_the_fix_wherever_it_stands() -> None:
    from torch import nn

    with pytest.raises(PlatformError, match="batch norm") as failed:
        of_images(norm="batch")
    assert "--set model.norm=group" in failed.value.fix
    assert "running_mean" in failed.value.detail
    recipe, _ = of_images()
    whitened = replace(recipe, model=replace(recipe.model, stem="whitened"))
    with pytest.raises(PlatformError, match="whitened first layer"):
        whitened.federated(get_task("images"), CLASSES)
    with pytest.raises(PlatformError, match="batch norm"):
        tensors_of(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2))))
    assert tensors_of(nn.Linear(2, 3)) == [("weight", (3, 2)), ("bias", (3,))]


def test_sites_of_images_agree_on_colors_without_showing_one() -> None:
    _, model = of_images()
    parts = [model.read(images(rows, seed)) for seed, rows in enumerate((12, 30))]
    found = model.agree(np.sum([model.sums(part) for part in parts], axis=0))
    values = np.concatenate(parts).reshape(-1, 3) / 255
    assert found.mean == pytest.approx(values.mean(axis=0))
    assert found.deviation == pytest.approx(values.std(axis=0))
    seen = model.features(parts[0], found)
    assert seen.spec.normalised(seen.pixels).transpose(1, 0, 2, 3).reshape(3, -1).std(axis=1) == pytest.approx(
        1, abs=0.2
    )
    _, told = of_images()
    fixed = replace(told, agreed=False, spec=told.spec.model_copy(update={"mean": (0.5,) * 3, "std": (0.2,) * 3}))
    assert fixed.sums(parts[0]).size == 0
    assert fixed.features(parts[0], fixed.agree(np.zeros(0))).spec.mean == (0.5,) * 3


def test_a_site_makes_the_same_network_of_images_of_what_it_is_told() -> None:
    _, model = of_images()
    told = json.loads(json.dumps(model.told()))
    site: Any = model_told(told, IMAGES, CLASSES)
    assert asdict(site) == asdict(model)
    assert np.array_equal(site.first(7), model.first(7))
    for change in ({"widths": ["many"]}, {"spec": {"width": 0}}, {"augment": {"flip": "perhaps"}}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            model_told({**told, **change}, IMAGES, CLASSES)


def test_sites_of_images_learn_together_and_the_graph_answers_as_measured(tmp_path: Path) -> None:
    import onnxruntime

    recipe, model = of_images(abstain=AbstainConfig(false_refusals=0.05))
    sites, valid = [images(40, seed) for seed in range(3)], images(40, 9)
    x = [model.read(rows) for rows in sites]
    spread = model.agree(np.sum([model.sums(one) for one in x], axis=0))
    seen, weights = model.features(model.read(valid), spread), model.first(7)
    before = measured(model.scores(weights, seen), numbers(valid))
    for number in range(4):
        updates = [
            learned(model, weights, model.features(one, spread), numbers(rows), SGD, [7, number, at])
            for at, (one, rows) in enumerate(zip(x, sites, strict=True))
        ]
        weights = weights + np.mean(updates, axis=0)
    after = measured(model.scores(weights, seen), numbers(valid))
    assert before["loss"] > 2 * after["loss"]
    assert after["accuracy"] > 0.9
    given = Valid(x=seen.pixels, y=numbers(valid), losses=np.ones(40), task=get_task("images"), frame=valid)
    found = model.finish(weights, spread, recipe, given, False, tmp_path)
    graph = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    names = [one.name for one in graph.get_outputs()]
    answers = dict(zip(names, graph.run(None, {"pixels": seen.spec.normalised(seen.pixels)}), strict=True))
    expected = model.scores(weights, seen) / found["parameters"]["temperature"]
    assert answers["probabilities"] == pytest.approx(expected, abs=1e-3)
    assert {"vector", "ood_score"} <= set(names)
    assert found["parameters"]["ood_refused"] == 0.05


def of_features(folder: Path, **more: Any) -> tuple[LinearProbe, Probe]:
    """A linear model on the means of six channels of a convolution."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.random.default_rng(3).normal(size=(6, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["given", "kernel"], ["places"], kernel_shape=[3, 3]),
            helper.make_node("Relu", ["places"], ["features"]),
        ],
        "frozen",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, ["rows", 3, 8, 8])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 6, 6, 6])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9), folder / "model.onnx"
    )
    model = ProbeModel(backbone=str(folder), mirror=True)
    recipe = LinearProbe(recipe="linear_probe", image=ImageConfig(width=8, height=8), model=model, **more)
    return recipe, recipe.federated(get_task("images"), CLASSES)


def test_a_site_has_the_frozen_network_from_the_coordinator_alone(tmp_path: Path) -> None:
    _, made = of_features(tmp_path)
    told = json.loads(json.dumps(made.told()))
    site, rows = model_told(told, IMAGES, CLASSES), images(5, 1)
    assert site.layout() == made.layout() == [("head.weight", (3, 6)), ("head.bias", (3,))]
    assert site.read(rows) == pytest.approx(made.read(rows))
    assert site.read(rows.iloc[:0]).shape == (0, 6)
    for change in ({"graph": "?"}, {"graph": "AAAA"}, {"width": 5}, {"spec": {}}):
        with pytest.raises(ValueError, match=r"."):
            model_told({**told, **change}, IMAGES, CLASSES)


def test_sites_learn_a_linear_model_on_frozen_features_and_the_graph_answers_as_measured(tmp_path: Path) -> None:
    import onnxruntime

    recipe, model = of_features(tmp_path, abstain=AbstainConfig(false_refusals=0.05))
    # Sites of one class each, so that none can learn to tell them apart by itself.
    whole, valid = images(120, 1), images(40, 9)
    sites = [whole[whole["label"] == label] for label in CLASSES]
    x = [model.read(rows) for rows in sites]
    spread = model.agree(np.sum([model.sums(one) for one in x], axis=0))
    assert spread.mean == pytest.approx(model.read(whole).mean(axis=0), rel=1e-4)
    held = model.read(valid)
    seen, weights = model.features(held, spread), model.first(7)
    for number in range(20):
        updates = [
            learned(model, weights, model.features(one, spread), numbers(rows), ADAM, [7, number, at])
            for at, (one, rows) in enumerate(zip(x, sites, strict=True))
        ]
        weights = weights + np.mean(updates, axis=0)
    assert measured(model.scores(weights, seen), numbers(valid))["accuracy"] > 0.9
    given = Valid(x=held, y=numbers(valid), losses=np.ones(40), task=get_task("images"), frame=valid)
    found = model.finish(weights, spread, recipe, given, False, tmp_path)
    graph = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    pixels = np.stack([read_pixels(content, model.spec, 1 << 20)[0] for content in valid["image"]])
    names = [one.name for one in graph.get_outputs()]
    answers = dict(zip(names, graph.run(None, {"given": model.spec.normalised(pixels)}), strict=True))
    expected = model.scores(weights, seen) / found["parameters"]["temperature"]
    assert answers["probabilities"] == pytest.approx(expected, abs=1e-3)
    assert {"vector", "ood_score"} <= set(names)


@pytest.mark.parametrize("drawn", [0.5, 1e-9])
def test_private_steps_on_images_are_noisy_also_where_no_row_is_drawn(drawn: float) -> None:
    pytest.importorskip("opacus")
    recipe, model = of_images(privacy=PrivacyConfig(epsilon=3.0))
    rows = images(12, 1)
    x = model.read(rows)
    seen = model.features(x, model.agree(model.sums(x)))
    private = {"noise": 1.0, "clip": 1.0, "drawn": drawn, "steps": 2}
    first, second = (learned_privately(model, model.first(7), seen, numbers(rows), SGD, private) for _ in range(2))
    assert np.isfinite(first).all()
    assert not np.allclose(first, second), "the noise is new each time"
    mixes = replace(recipe, augment=AugmentConfig(mixup=0.2))
    with pytest.raises(PlatformError, match=r"augment\.mixup"):
        mixes.federated(get_task("images"), CLASSES)
