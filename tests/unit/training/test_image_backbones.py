"""Pretrained networks of images, the form that is served, and how a model is measured on images that are worse."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from contracts.engines import load_engine
from contracts.errors import PlatformError
from pipelines.evaluation.image_corruptions import CORRUPTIONS, STRENGTHS, corrupted
from pipelines.evaluation.scoring import provisional
from pipelines.recipes.image.neural import ImageLoop
from pipelines.recipes.image.resnet import ResnetModel
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.images.signs import signs
from tests.image_bundle import shades

TASK = get_task("images")
SIDES = {"image.width": 8, "image.height": 8}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return shades(tmp_path / "dataset")


def backbone(folder: Path, side: int = 8, odd: bool = False) -> Path:
    """A graph of ONNX: four channels of a convolution, by place; and their sum as a second output."""
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "weights")
    nodes = [
        helper.make_node("Conv", ["pixels_in", "weights"], ["places"], kernel_shape=[3, 3]),
        helper.make_node("ReduceMean", ["places"], ["means"], axes=[2, 3], keepdims=0),
        *([helper.make_node("Cos", ["means"], ["angles"])] if odd else []),
    ]
    graph = helper.make_graph(
        nodes,
        "backbone",
        [helper.make_tensor_value_info("pixels_in", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("places", TensorProto.FLOAT, [1, 4, side - 2, side - 2])],
        [weights],
    )
    folder.mkdir(exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    return folder


def learned(config: Any, dataset: Path, out: Path) -> tuple[dict[str, Any], float]:
    """What training says, and the accuracy of what it wrote, as it is served."""
    found = config.train(TASK, dataset, out, out.parent / "checkpoints", lambda *args, **kwargs: None)
    json.dumps(found)
    signature = {"inputs": [item.model_dump() for item in TASK.inputs(config)], "output": found["output"]}
    lineage = {"code_version": "", "data_version": "", "source": "", "seed": 1}
    about = {"name": "images", "task": "images", "recipe": "r", "modality": "image", "engine": "onnx"}
    engine: Any = load_engine(provisional(out.parent, {**about, "signature": signature, "lineage": lineage}))
    rows = pd.read_parquet(dataset / "valid.parquet")
    answers = engine.predict({"image": rows["image"].to_numpy(object)})
    [pixels, *_] = engine.decode({"image": rows["image"].to_numpy(object)})["image"]
    assert engine.has_vector
    assert len(engine.vector(pixels)) == found["parameters"].get("features", len(engine.vector(pixels)))
    return found, float((np.array(found["output"]["classes"])[answers.argmax(axis=1)] == rows["label"]).mean())


@pytest.mark.parametrize("features", ["", "means"])
def test_a_linear_model_on_the_features_of_a_graph(tmp_path: Path, dataset: Path, features: str) -> None:
    given = {"model.backbone": str(backbone(tmp_path / "backbone")), "model.features": features}
    found, accuracy = learned(recipe_config(TASK, "linear_probe", given | SIDES), dataset, tmp_path / "model")
    assert found["parameters"]["features"] == 4
    assert accuracy >= 0.9


def test_a_linear_model_looks_at_the_mirror_image_too(tmp_path: Path, dataset: Path) -> None:
    import onnxruntime as ort

    given = {"model.backbone": str(backbone(tmp_path / "backbone")), "model.mirror": True}
    _, accuracy = learned(recipe_config(TASK, "linear_probe", given | SIDES), dataset, tmp_path / "model")
    assert accuracy >= 0.9
    session = ort.InferenceSession(str(tmp_path / "model" / "model.onnx"))
    alone = ort.InferenceSession(str(tmp_path / "backbone" / "model.onnx"))
    pixels = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    [found] = session.run(["vector"], {"pixels_in": pixels})
    sides = [
        alone.run(None, {"pixels_in": np.ascontiguousarray(one[None])})[0].mean(axis=(2, 3))
        for image in pixels
        for one in (image, image[..., ::-1])
    ]
    np.testing.assert_allclose(found, np.concatenate(sides).reshape(3, 2, 4).mean(axis=1), atol=1e-6)


def small_resnet(file: Path) -> None:
    """A graph with the operators that residual networks have, as another library may have written it."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
            self.second, self.pool = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.MaxPool2d(2)
            self.last = nn.Linear(4, 6)

        def forward(self, pixels: Any) -> Any:
            found = torch.relu(self.norm(self.first(pixels)))
            found = self.pool(found + nn.functional.hardswish(self.second(found)))
            return self.last(nn.functional.adaptive_avg_pool2d(found, 1).flatten(1)).clamp(-5, 5)

    net = Net()
    net.norm.running_mean = torch.rand(4)
    torch.onnx.export(
        net.eval(), (torch.zeros(2, 3, 8, 8),), str(file), dynamo=False, opset_version=17, input_names=["pixels"],
        dynamic_axes={"pixels": {0: "rows"}}, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
    )  # fmt: skip


def test_a_graph_is_a_network_that_says_the_same_and_goes_on_learning(tmp_path: Path, dataset: Path) -> None:
    import onnxruntime as ort
    import torch

    from contracts.images import ImageSpec
    from pipelines.training.graph_network import graph_network

    (tmp_path / "graph").mkdir()
    file = tmp_path / "graph" / "model.onnx"
    small_resnet(file)
    network = graph_network(file, "", ImageSpec(width=8, height=8), 2)
    pixels = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    [wanted] = ort.InferenceSession(str(file)).run(None, {"pixels": pixels})
    found = network.body.eval()(torch.from_numpy(pixels)).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert [one.shape for one in network.buffers()] == [(4,), (4,)], "means and variances are counted, not learned"
    change = {"training.epochs": 3, "training.batch_size": 8, "training.warmup": 1, "training.average": 0.5}
    given = {"model.backbone": str(tmp_path / "graph"), "training.learning_rate": 0.05, **SIDES, **change}
    tuned, accuracy = learned(recipe_config(TASK, "finetune", given), dataset, tmp_path / "tuned" / "model")
    assert len(tuned["history"]) == 3
    assert accuracy >= 0.8


def cut_and_padded(file: Path) -> None:
    """A graph whose short cuts take every other pixel and pad channels, and whose sizes are computed in it."""
    import torch
    from torch import nn
    from torch.nn.functional import pad

    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 8, 3, 2, 1)
            self.last = nn.Linear(12 * 16, 6)

        def forward(self, pixels: Any) -> Any:
            found = torch.relu(self.first(pad(pixels, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1]))
            short = pad(found[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))  # of K. He et al., 2016, option A
            found = torch.relu(self.second(found) + short)
            rows, channels, high, wide = found.shape
            found = found.reshape(rows, 2, channels // 2, high, wide).transpose(1, 2).reshape(rows, -1, high, wide)
            found = torch.cat([found + found.flip(3), torch.ones(rows, 4, high, wide)], dim=1)
            return self.last(found.unsqueeze(1).view(found.size(0), -1))

    torch.onnx.export(
        Net().eval(), (torch.zeros(2, 3, 8, 8),), str(file), dynamo=False, opset_version=17, input_names=["pixels"],
        dynamic_axes={"pixels": {0: "rows"}}, do_constant_folding=False,
    )  # fmt: skip


def older(file: Path) -> None:
    """The same operators as before version 10, whose attributes say how."""
    nodes = [
        helper.make_node("Slice", ["pixels"], ["cut"], starts=[1, -7], ends=[7, 100], axes=[2, 3]),
        helper.make_node("Pad", ["cut"], ["edges"], mode="edge", pads=[0, 0, 1, 0, 0, 0, 0, 2]),
        helper.make_node("Pad", ["edges"], ["padded"], pads=[0, 1, 0, 0, 0, 0, -1, 0], value=2.0),
        helper.make_node("Transpose", ["padded"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("Shape", ["turned"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["rows"]),
        helper.make_node("Unsqueeze", ["rows"], ["row_list"], axes=[0]),
        helper.make_node("Concat", ["row_list", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["turned", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["features"]),
    ]
    rng = np.random.default_rng(0)
    known = {"first": np.array(0), "rest": np.array([-1]), "weights": rng.normal(size=(216, 6)).astype(np.float32)}
    graph = helper.make_graph(
        nodes,
        "older",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["rows", 3, 8, 8])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 6])],
        [numpy_helper.from_array(values, name) for name, values in known.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=9), str(file))


@pytest.mark.parametrize("write", [cut_and_padded, older])
def test_what_is_cut_padded_and_computed_of_sizes_is_the_same_for_any_number_of_images(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    import onnxruntime as ort
    import torch

    from contracts.images import ImageSpec
    from pipelines.training.graph_network import graph_network
    from pipelines.training.image_network import export

    file = tmp_path / "model.onnx"
    write(file)
    network = graph_network(file, "", ImageSpec(width=8, height=8), 6)
    network.head = torch.nn.Identity()
    again = export(network, (3, 8, 8), 1.0)
    for rows in (1, 5):
        pixels = np.random.default_rng(rows).normal(size=(rows, 3, 8, 8)).astype(np.float32)
        [wanted] = ort.InferenceSession(str(file)).run(None, {"pixels": pixels})
        found = network.eval()(torch.from_numpy(pixels)).detach().numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        np.testing.assert_allclose(ort.InferenceSession(again).run(None, {"pixels": pixels})[0], wanted, atol=1e-5)
    network.train()(torch.from_numpy(pixels)).sum().backward()
    assert all(one.grad is not None for one in network.parameters() if one.numel())


@pytest.mark.integration
def test_a_folder_of_transformers_is_a_backbone_and_goes_on_learning(tmp_path: Path, dataset: Path) -> None:
    import torch
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    sizes = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    ResNetModel(sizes).save_pretrained(tmp_path / "weights")
    given = {"model.backbone": str(tmp_path / "weights"), "image.width": 16, "image.height": 16}
    probe, accuracy = learned(recipe_config(TASK, "linear_probe", given), dataset, tmp_path / "probe" / "model")
    assert probe["parameters"]["features"] == 8
    assert accuracy >= 0.8
    change = {"training.epochs": 3, "training.batch_size": 8, "training.warmup": 1, "training.average": 0.5}
    tuned, accuracy = learned(recipe_config(TASK, "finetune", given | change), dataset, tmp_path / "tuned" / "model")
    assert len(tuned["history"]) == 3
    assert accuracy >= 0.8
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(PlatformError) as caught:
        learned(recipe_config(TASK, "finetune", given), dataset, tmp_path / "model")
    assert "transformers cannot read it" in str(caught.value.detail)


@pytest.mark.parametrize(
    ("recipe", "change", "said"),
    [
        ("linear_probe", {}, "starts from pretrained weights, and none are named"),
        ("linear_probe", {"model.backbone": "{empty}"}, "neither model.onnx nor config.json"),
        ("linear_probe", {"model.backbone": "{text}"}, "it is no graph"),
        ("linear_probe", {"model.backbone": "{good}", "image.width": 16}, r"its input is \[1, 3, 8, 8\]"),
        ("linear_probe", {"model.backbone": "{good}", "image.mode": "L"}, r"images are rows of \[1, 8, 8\]"),
        ("linear_probe", {"model.backbone": "{good}", "model.features": "tail"}, "it has no value 'tail'"),
        ("finetune", {"model.backbone": "{good}", "model.features": "angles"}, "it has the operator Cos"),
    ],
)
def test_a_backbone_that_does_not_fit_says_why(
    tmp_path: Path, dataset: Path, recipe: str, change: dict[str, Any], said: str
) -> None:
    places = {name: tmp_path / name for name in ("empty", "text", "good")}
    for place in places.values():
        place.mkdir()
    backbone(places["good"], odd=recipe == "finetune")
    (places["text"] / "model.onnx").write_text("no graph")
    given = {key: value.format(**places) if isinstance(value, str) else value for key, value in change.items()}
    with pytest.raises(PlatformError) as caught:
        learned(recipe_config(TASK, recipe, SIDES | given), dataset, tmp_path / "model")
    assert said.replace("\\", "") in f"{caught.value.headline} {caught.value.detail}"


@pytest.mark.parametrize(("tolerance", "form"), [(1.0, "int8"), (-0.1, "fp32")])
def test_int8_is_served_where_the_gate_allows_what_it_costs(
    tmp_path: Path, dataset: Path, tolerance: float, form: str
) -> None:
    config: Any = recipe_config(TASK, "resnet", {**SIDES, "int8": True, "gate.int8_tolerance": tolerance})
    config = replace(
        config.training_part(),
        model=ResnetModel(widths=(4, 8), blocks=(1,)),
        training=ImageLoop(epochs=3, batch_size=8, warmup=2, learning_rate=0.05, average=0.8),
    )
    found, accuracy = learned(config, dataset, tmp_path / "model")
    graph = onnx.load(str(tmp_path / "model" / "model.onnx")).graph
    assert ("QuantizeLinear" in {node.op_type for node in graph.node}) == (form == "int8")
    assert found["parameters"]["form"] == form
    assert found["choices"][0]["passed"] == (form == "int8")
    assert ("tolerance" in found) == (form == "int8")
    assert accuracy >= 0.9


def test_images_get_worse_with_each_strength() -> None:
    [(_, sign, _), *_] = signs(seed=1, each=1)
    frame = pd.DataFrame({"image": [sign] * 3, "label": ["ahead"] * 3})
    before = np.asarray(Image.open(io.BytesIO(sign)), np.float64)
    away = {}
    for name, rows in corrupted(frame, "image"):
        found = [np.asarray(Image.open(io.BytesIO(file)), np.float64) for file in rows["image"]]
        away[name] = np.mean([np.abs(one - before).mean() for one in found])
        assert list(rows["label"]) == ["ahead"] * 3
    assert list(away) == [f"corrupted:{kind} {strength}" for kind in CORRUPTIONS for strength in STRENGTHS]
    for kind in CORRUPTIONS:
        first, second, third = (away[f"corrupted:{kind} {strength}"] for strength in STRENGTHS)
        assert 0 < first < second < third, kind
