"""Detectors: what a scene asks for, changes at random, the loss, the graph, and a training that was killed."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from contracts.images import ImageSpec
from contracts.problems.detection import overlaps, read_truth
from pipelines.evaluation.scoring import fields_of, provisional
from pipelines.recipes.detection.base import read_labelled
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.objects.parts import trays
from pipelines.training.detector import (
    MOST,
    STRIDE,
    decoded,
    detector,
    export,
    mirrored_too,
    residual_body,
)
from pipelines.training.detector_loss import detector_loss
from pipelines.training.image_backbone import pretrained_maps
from pipelines.training.scenes import Scene, SceneAugment, SceneReader, changed, targets
from pipelines.training.shards import LoaderConfig, ShardLoader
from tests.late import Late

torch = Late("torch")

CELLS = (24, 32)


def scene(*rows: tuple[float, float, float, float, int], crowd: Any = ()) -> Scene:
    numbers = np.array(rows, np.float32).reshape(-1, 5)
    kinds = np.zeros(len(rows), bool)
    kinds[list(crowd)] = True
    return Scene(numbers[:, :4], numbers[:, 4].astype(np.int64), kinds)


SOME = scene((8, 8, 40, 48, 0), (60, 20, 100, 36, 1), (70, 60, 78, 70, 1))


def perfect(some: Scene, classes: int) -> tuple[Any, Any]:
    """What a network would answer that has learned `some` by heart: logits and sides, one row."""
    heat, boxes, weight = targets(some, classes, CELLS, STRIDE)
    y, x = np.mgrid[: CELLS[0], : CELLS[1]].astype(np.float32)
    x, y = (x + 0.5) * STRIDE, (y + 0.5) * STRIDE
    sides = np.stack([x - boxes[0], y - boxes[1], boxes[2] - x, boxes[3] - y])
    sides = np.where(weight > 0, sides, 1.0).astype(np.float32)
    logits = np.where(heat == 1, 12.0, np.log(np.clip(heat, 1e-4, 0.9)) - 3).astype(np.float32)
    return torch.from_numpy(logits)[None], torch.from_numpy(sides)[None]


def loss(logits: Any, sides: Any, some: Scene, classes: int = 2) -> float:
    wanted = targets(some, classes, CELLS, STRIDE)
    total = [float((wanted[0] == 1).sum()), float(wanted[2].sum())]
    tensors = [torch.from_numpy(one)[None] for one in wanted]
    return float(detector_loss(logits, sides, *tensors, stride=STRIDE, total=total))


def test_a_scene_asks_for_a_middle_of_each_object_and_its_sides() -> None:
    heat, boxes, weight = targets(SOME, 2, CELLS, STRIDE)
    assert (heat == 1).sum() == 3
    assert (heat[0, 7, 6], heat[1, 7, 20], heat[1, 16, 18]) == (1, 1, 1)
    assert boxes[:, 7, 6].tolist() == [8, 8, 40, 48]
    assert weight[0, 0] == 0
    assert ((heat >= 0) & (heat <= 1)).all()


def test_nothing_is_asked_within_a_crowd() -> None:
    heat, _, weight = targets(scene((8, 8, 40, 40, 0), crowd=[0]), 2, CELLS, STRIDE)
    assert (heat[0, 2:10, 2:10] == -1).all()
    assert (heat[1] == 0).all()
    assert weight.sum() == 0


def test_the_boxes_of_a_perfect_answer_are_the_scene_s_and_cost_little() -> None:
    logits, sides = perfect(SOME, 2)
    boxes, scores = (one[0].numpy() for one in decoded(logits, sides))
    best = np.argsort(-scores.max(axis=0))[:3]
    assert overlaps(boxes[best], SOME.boxes).max(axis=1).min() > 0.999
    assert (
        scores[:, best].argmax(axis=0).tolist()
        == SOME.labels[overlaps(boxes[best], SOME.boxes).argmax(axis=1)].tolist()
    )
    right = loss(logits, sides, SOME)
    assert right < loss(logits, sides + 2, SOME)
    assert right < loss(-logits, sides, SOME)
    assert loss(torch.full_like(logits, -9), sides, scene()) < 0.01, "an image without objects asks for silence"


def test_the_loss_of_a_batch_is_the_sum_of_its_shares() -> None:
    rng = torch.Generator().manual_seed(1)
    logits, sides = torch.randn(4, 2, *CELLS, generator=rng), torch.rand(4, 4, *CELLS, generator=rng) * 20 + 1
    parts = [targets(SOME, 2, CELLS, STRIDE) for _ in range(4)]
    heat, boxes, weight = (torch.from_numpy(np.stack(some)) for some in zip(*parts, strict=True))
    total = [float((heat == 1).sum()), float(weight.sum())]

    def of(rows: slice) -> float:
        some = (one[rows] for one in (logits, sides, heat, boxes, weight))
        return float(detector_loss(*some, stride=STRIDE, total=total))

    assert of(slice(0, 1)) + of(slice(1, 4)) == pytest.approx(of(slice(0, 4)), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        SceneAugment, flip=st.booleans(), upend=st.booleans(), scale=st.floats(1, 2), shift=st.floats(0, 0.3),
        color=st.floats(0, 0.5),
    ),
    st.integers(0, 99),
)  # fmt: skip
def test_boxes_go_with_what_they_are_around(config: SceneAugment, seed: int) -> None:
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[20:60, 30:80] = 255
    some = scene((30, 20, 80, 60, 1))
    made, found = changed(pixels, some, config, np.random.default_rng(seed))
    assert (made.shape, made.dtype) == (pixels.shape, np.uint8)
    assert (pixels[20:60, 30:80] == 255).all(), "the image itself stays as it is"
    for left, top, right, bottom in found.boxes:
        assert 0 <= left < right <= 128
        assert 0 <= top < bottom <= 96
        bright = np.argwhere(made.max(axis=2) > (int(made.max()) + int(made.min())) / 2)
        assert np.abs(bright.min(axis=0) - [top, left]).max() <= 1.6
        assert np.abs(bright.max(axis=0) + 1 - [bottom, right]).max() <= 1.6


def test_without_changes_a_scene_stays() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    config = SceneAugment(flip=False, scale=1, shift=0, color=0)
    made, found = changed(pixels, SOME, config, np.random.default_rng(0))
    assert np.array_equal(made, pixels)
    assert np.allclose(found.boxes, SOME.boxes, atol=1e-4)


def test_an_object_that_is_mostly_out_of_the_image_is_left_out() -> None:
    config = SceneAugment(flip=False, scale=1, shift=0.5, color=0)
    pixels = np.zeros((96, 128, 3), np.uint8)
    kept = [
        len(changed(pixels, scene((0, 0, 20, 20, 0)), config, np.random.default_rng(at))[1].boxes) for at in range(30)
    ]
    assert set(kept) == {0, 1}


@pytest.mark.parametrize("classes", [1, 3])
def test_the_graph_gives_the_boxes_of_the_network_of_which_none_overlaps_a_better_one(classes: int) -> None:
    torch.manual_seed(3)
    network = detector(classes, residual_body(3, (4, 8, 8), 1), (8, 8), 8).eval()
    with torch.no_grad():
        network.heat[-1].bias.fill_(0.0)
    session = ort.InferenceSession(export(network, (3, 48, 64), 0.3), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).normal(0, 1, (3, 3, 48, 64)).astype(np.float32)
    found, vectors = session.run(None, {"pixels": pixels})
    assert (found.shape, vectors.shape) == ((3, MOST, 6), (3, 8))
    alone, vector = session.run(None, {"pixels": pixels[1:2]})
    assert np.allclose(alone[0], found[1], atol=1e-4)
    assert np.allclose(vector[0], vectors[1], atol=1e-4)
    with torch.no_grad():
        boxes, scores = (one.numpy() for one in decoded(*network(torch.from_numpy(pixels))))
    for row, some in enumerate(found):
        there = some[some[:, 4] > 0]
        assert len(there)
        assert (np.diff(there[:, 4]) <= 0).all()
        assert there[0, 4] == pytest.approx(scores[row].max(), abs=1e-5)
        for one in there:  # each is a box of the network, with its class and score
            same = np.abs(boxes[row] - one[:4]).max(axis=1) < 1e-2
            assert np.abs(scores[row, int(one[5]), same] - one[4]).min() < 1e-4
        for kind in range(classes):
            same = there[there[:, 5] == kind][:, :4]
            near = overlaps(same, same) - np.eye(len(same))
            assert near.max(initial=0) <= 0.3 + 1e-4


@pytest.mark.parametrize("down", [False, True])
def test_the_mean_over_mirror_images_is_mirrored_with_the_image(down: bool) -> None:
    torch.manual_seed(1)
    network = mirrored_too(detector(2, residual_body(3, (4, 8), 0), (8,), 8).eval(), True, down)
    pixels = torch.randn(1, 3, 16, 32)
    with torch.no_grad():
        logits, sides = network(pixels)
        for way, swapped in (([3], [2, 1, 0, 3]), ([2], [0, 3, 2, 1])):
            other, far = network(pixels.flip(way))
            alike = torch.allclose(other.flip(way), logits, atol=1e-4)
            alike = alike and torch.allclose(far.flip(way)[:, swapped], sides, atol=1e-3)
            assert alike == (down or way == [3])


def test_a_graph_without_an_object_gives_none() -> None:
    network = detector(2, residual_body(3, (4, 8), 0), (8,), 8).eval()
    with torch.no_grad():
        network.heat[-1].bias.fill_(-50.0)
    session = ort.InferenceSession(export(network, (3, 16, 16), 0.5), providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"pixels": np.zeros((2, 3, 16, 16), np.float32)})
    assert (found[..., 4] == 0).all()


SMALL = {
    "image.width": 80,
    "image.height": 64,
    "model.widths": [4, 8, 16],
    "model.head": 8,
    "training.epochs": 3,
    "training.warmup": 2,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trays")
    rows = list(trays(5, 36))
    for name, some in (("train", rows[:28]), ("valid", rows[28:])):
        frame = pd.DataFrame({"image": [one[1] for one in some], "label": [one[2] for one in some]})
        frame.to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_that_was_killed_goes_on_to_the_same_model(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    task = get_task("objects")
    config = recipe_config(task, None, {**SMALL, "loader.workers": workers, "loader.window": 16})
    monkeypatch.setattr(ShardLoader, "running", lambda self: nullcontext())  # what workers do is done here

    def run(name: str, most: int = 99) -> dict[str, Any]:
        def progress(done: int, total: int, **_: Any) -> None:
            if done >= most:
                raise KeyboardInterrupt

        found: dict[str, Any] = config.train(
            task, dataset, tmp_path / name / "model", tmp_path / f"{name}-state", progress
        )
        return found

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("killed", 2)
    again = run("killed")
    assert again == whole
    one, other = ((tmp_path / name / "model" / "model.onnx").read_bytes() for name in ("whole", "killed"))
    assert one == other
    assert [entry["epoch"] for entry in whole["history"]] == [1, 2, 3]
    assert whole["history"][-1]["train_loss"] < whole["history"][0]["train_loss"]
    train = pd.read_parquet(dataset / "train.parquet")["label"]
    assert whole["output"]["labels"] == sorted({one.label for text in train for one in read_truth(text)})
    document = provisional(tmp_path / "whole", fields_of(task, config, whole)).document
    assert json.loads((tmp_path / "whole" / "model" / "image.json").read_text())["fit"] == "pad"
    assert document.signature.output.problem == "detection"


@pytest.mark.parametrize("color", [0.0, 0.3])
def test_processes_have_their_share_of_the_scenes_that_one_has(dataset: Path, color: float) -> None:
    labels = pd.read_parquet(dataset / "train.parquet")["label"]
    classes = sorted({one.label for text in labels for one in read_truth(text)})
    reader = SceneReader(ImageSpec(width=80, height=64, fit="pad"), classes, SceneAugment(color=color))
    config = LoaderConfig(window=16)
    loader = ShardLoader([str(dataset / "train.parquet")], "image", reader, size=6, seed=2, config=config)
    whole = list(loader.epoch(1))
    assert [len(scenes) for _, scenes in whole] == [6, 6, 6, 6, 4]
    for rank in (0, 1):

        def share(epoch: int, batch: int, rows: int, rank: int = rank) -> Any:
            return np.arange(rank, rows, 2)

        mine = list(loader.epoch(1, 0, share))
        for (pixels, scenes), (some, known) in zip(whole, mine, strict=True):
            assert np.array_equal(some, pixels[rank::2])
            for one, other in zip(scenes, known, strict=True):
                assert np.array_equal(one.boxes, other.boxes), "also of images that are not decoded"
                assert np.array_equal(one.labels, other.labels)


def test_scenes_are_in_pixels_of_the_network(dataset: Path, tmp_path: Path) -> None:
    task = get_task("objects")
    config: Any = recipe_config(task, None, SMALL)
    images = read_labelled(task, config, dataset, tmp_path)
    said = read_truth(pd.read_parquet(dataset / "valid.parquet")["label"].iloc[0])
    assert np.allclose(images.valid.scenes[0].boxes, np.array([one.box for one in said]).reshape(-1, 4) / 2, atol=1e-3)
    assert images.train.pixels.shape == (28, 64, 80, 3)
    assert images.train.fingerprint() != images.valid.fingerprint()


def small_resnet(folder: Path) -> Path:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8, 8], depths=[1, 1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    return folder


def test_a_pretrained_network_learns_to_find_objects(dataset: Path, tmp_path: Path) -> None:
    task = get_task("objects")
    sides: dict[str, float] = {
        "image.width": 96,
        "image.height": 64,
        "training.epochs": 2,
        "training.warmup": 2,
        "model.head": 8,
    }
    sides["training.learning_rate"] = 0.01
    weights = small_resnet(tmp_path / "weights")
    config: Any = recipe_config(task, "finetune", sides | {"model.backbone": str(weights)})
    found = config.train(task, dataset, tmp_path / "made" / "model", tmp_path / "state", lambda *_, **__: None)
    assert found["history"][1]["train_loss"] < found["history"][0]["train_loss"]
    session = ort.InferenceSession(str(tmp_path / "made" / "model" / "model.onnx"), providers=["CPUExecutionProvider"])
    said, _ = session.run(None, {"pixels": np.zeros((1, 3, 64, 96), np.float32)})
    assert said.shape == (1, MOST, 6)
    with pytest.raises(PlatformError, match="none are named"):
        recipe_config(task, "finetune", sides).train(task, dataset, tmp_path / "x" / "model", tmp_path, print)


def test_a_network_without_fine_maps_is_refused(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path)
    with pytest.raises(PlatformError, match="no usable backbone") as caught:
        pretrained_maps(tmp_path, ImageSpec(width=64, height=64))
    assert "its maps have strides [4], expected 4, 8 and so on" in str(caught.value.detail)
