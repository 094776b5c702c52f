"""Training on images: changes at random, pixels as they are served, and a training that was killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.images import ImageSpec, read_pixels
from pipelines.data import file_rows
from pipelines.data.file_rows import FileRows, shards_of
from pipelines.evaluation.scoring import provisional
from pipelines.recipes.image.neural import ImageLoop, scaled, share_of
from pipelines.recipes.image.resnet import ResnetModel
from pipelines.tasks import get_task, recipe_config
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.distributed import Group
from pipelines.training.pictures import AugmentConfig, augmented, decode_part, drawn_changes, mixed, shuffled
from pipelines.training.shards import LoaderConfig
from tests.image_bundle import picture, shades

TASK = get_task("images")
share = st.floats(0, 1)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 12),
    st.integers(2, 12),
    st.integers(1, 5),
    st.builds(
        AugmentConfig, flip=st.booleans(), crop=share, turn=st.floats(0, 90), color=share, erase=share, mixup=share,
        cutmix=share,
    ),
    st.integers(0, 9),
)  # fmt: skip
def test_changed_images_keep_their_form_and_targets_their_sum(
    high: int, wide: int, rows: int, config: AugmentConfig, seed: int
) -> None:
    given_pixels = np.random.default_rng(0).integers(0, 256, (rows, high, wide, 3), dtype=np.uint8)
    before = given_pixels.copy()
    targets = np.eye(4, dtype=np.float32)[np.arange(rows) % 4]

    def made() -> Any:
        rng = np.random.default_rng(seed)
        return mixed(augmented(given_pixels, config, rng), targets, config, rng)

    pixels, shares = made()
    assert (pixels.shape, pixels.dtype) == (given_pixels.shape, np.uint8)
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(given_pixels, before)
    assert all(np.array_equal(*pair) for pair in zip(made(), (pixels, shares), strict=True))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.builds(AugmentConfig, turn=st.floats(0, 90), color=share, erase=share, mixup=share, cutmix=share),
    st.integers(0, 9),
)
def test_the_shares_of_processes_are_together_the_batch_of_one(
    rows: int, processes: int, config: AugmentConfig, seed: int
) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (rows, 6, 5, 3), dtype=np.uint8)
    targets = np.eye(4, dtype=np.float32)[np.arange(rows) % 4]
    rng = np.random.default_rng(seed)
    pixels, shares = mixed(augmented(whole, config, rng), targets, config, rng)
    for rank in range(processes):
        rng = np.random.default_rng(seed)
        changes = drawn_changes(whole.shape, config, rng)
        mine = share_of(Group(rank, processes), (rows, 6, 5), config, rng)
        found = mine.made(changes.made(whole[mine.needed], mine.needed))
        expected = range(rank, rows, processes) if rows >= 2 * processes else range(rows)
        assert mine.rows.tolist() == list(expected)
        assert mine.copies == (1 if rows >= 2 * processes else processes)
        assert np.array_equal(found, pixels[mine.rows])
        assert len(mine.needed) <= 2 * len(mine.rows)
        assert mine.mix is not None or mine.needed is mine.rows, "nothing else is decoded"
        assert mine.mix is None or np.array_equal(mine.mix.targets(targets), shares)


def test_without_changes_images_stay_and_a_mirror_image_is_one() -> None:
    given_pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    still = AugmentConfig(flip=False, crop=0)
    assert np.array_equal(augmented(given_pixels, still, np.random.default_rng(1)), given_pixels)
    flipped = augmented(given_pixels, replace(still, flip=True), np.random.default_rng(1))
    same = [np.array_equal(one, other) for one, other in zip(flipped, given_pixels, strict=True)]
    mirrored = [np.array_equal(one[:, ::-1], other) for one, other in zip(flipped, given_pixels, strict=True)]
    assert 8 < sum(same) < 32
    assert [a != b for a, b in zip(same, mirrored, strict=True)] == [True] * 40


def test_a_cut_rectangle_has_the_share_of_its_class() -> None:
    pixels = np.stack([np.full((10, 10, 1), shade, np.uint8) for shade in (0, 255)])
    found = [
        mixed(pixels, np.eye(2, dtype=np.float32), AugmentConfig(cutmix=1.0), np.random.default_rng(seed))
        for seed in range(20)
    ]
    for changed, targets in found:
        assert np.allclose(changed.mean(axis=(1, 2, 3)) / 255, targets[:, 1], atol=1e-6)
    assert any(0.2 < targets[0, 1] < 0.8 for _, targets in found)


@given(st.integers(2, 60), st.integers(2, 20))
def test_every_image_is_in_one_batch_of_two_or_more(rows: int, size: int) -> None:
    found = list(shuffled(rows, size, np.random.default_rng(0)))
    assert sorted(np.concatenate(found)) == list(range(rows))
    assert min(map(len, found)) >= 2


def test_pixels_of_training_are_those_that_a_service_decodes(tmp_path: Path) -> None:
    spec = ImageSpec(width=6, height=4, fit="crop", crop_share=0.8)
    files = [picture((200, 10, 90), kind=kind, size=size) for kind in ("JPEG", "PNG") for size in (3, 8, 31)]
    frame = pd.DataFrame({"image": files, "label": ["a", "b"] * 3})
    frame.to_parquet(tmp_path / "train.parquet")
    found = decode_part(tmp_path / "train.parquet", "image", spec, ["a", "b"], tmp_path)
    assert np.array_equal(found.pixels, np.stack([read_pixels(file, spec, 10_000)[0] for file in files]))
    assert found.labels.tolist() == [0, 1] * 3


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return shades(tmp_path / "dataset")


def small(model: Any = None, **change: Any) -> Any:
    config: Any = recipe_config(TASK, "resnet", {"image.width": 8, "image.height": 8, "augment.mixup": 0.5})
    return replace(
        config,
        model=ResnetModel(widths=(4, 8), blocks=(1,), **(model or {})),
        training=ImageLoop(epochs=3, batch_size=8, warmup=2, learning_rate=0.05, average=0.8, **change),
    )


@pytest.mark.parametrize("model", [{}, {"stem": "whitened", "halve": "pool"}])
def test_a_training_that_was_killed_gives_the_same_bytes(tmp_path: Path, dataset: Path, model: Any) -> None:
    config = small(model)

    def train(name: str, progress: Any = lambda *args, **kwargs: None) -> bytes:
        config.train(TASK, dataset, tmp_path / name, tmp_path / "checkpoints" / name, progress)
        return (tmp_path / name / "model.onnx").read_bytes()

    def killed(done: int, total: int, **metrics: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("again", killed)
    assert train("again") == whole
    assert [path.name for path in tmp_path.glob(".pixels*")] == []


def in_shards(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training part as a data set that is larger than memory has it."""
    monkeypatch.setattr(file_rows, "_GROUP_ROWS", 6)
    monkeypatch.setattr(file_rows, "_SHARD_BYTES", 3000)
    files = FileRows([dataset / "train.parquet"], "image")
    files.write(files.frame(), dataset / "shards")
    (dataset / "train.parquet").unlink()
    (dataset / "shards").rename(dataset / "train.parquet")
    assert len(shards_of(dataset / "train.parquet")) > 2


def test_shards_are_learned_from_as_one_file_is(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(name: str) -> bytes:
        small().train(TASK, dataset, tmp_path / name, tmp_path / "kept" / name, lambda *args, **kwargs: None)
        return (tmp_path / name / "model.onnx").read_bytes()

    whole = train("whole")
    in_shards(dataset, monkeypatch)
    assert train("parts") == whole


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_that_was_killed_within_an_epoch_gives_the_same_bytes(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    if workers:
        in_shards(dataset, monkeypatch)
    config = replace(small(checkpoint_steps=4), loader=LoaderConfig(workers=workers, window=16))
    seen: list[tuple[int, int]] = []

    def train(name: str) -> bytes:
        config.train(TASK, dataset, tmp_path / name, tmp_path / "checkpoints" / name, lambda *args, **kwargs: None)
        return (tmp_path / name / "model.onnx").read_bytes()

    whole = train("whole")
    save = Checkpoint.save

    def killed(self: Any, tensors: Any, notes: Any) -> None:
        save(self, tensors, notes)
        seen.append((len(notes["history"]), notes.get("within", 0)))
        if seen[-1] == (1, 8):
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train("again")
    assert seen == [(0, 4), (0, 8), (1, 0), (1, 4), (1, 8)]
    seen.clear()
    assert train("again") == whole
    assert seen == [(2, 0), (2, 4), (2, 8), (3, 0)], "what was done is not done again"


def test_streamed_images_are_learned_as_well(tmp_path: Path, dataset: Path) -> None:
    config = replace(small(), loader=LoaderConfig(workers=1))
    found = config.train(TASK, dataset, tmp_path / "model", tmp_path / "kept", lambda *args, **kwargs: None)
    assert found["history"][-1]["valid_accuracy"] >= 0.8
    assert config.decoded() > 0 == small().decoded()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_served_is_what_was_trained(tmp_path: Path, dataset: Path, precision: Any) -> None:
    out = tmp_path / "model"
    config = replace(small(precision=precision), model=ResnetModel(widths=(4, 8), blocks=(0,), mirror=True))
    found = config.train(TASK, dataset, out, tmp_path / "checkpoints", lambda *args, **kwargs: None)
    json.dumps(found)
    signature = {"inputs": [item.model_dump() for item in TASK.inputs(config)], "output": found["output"]}
    lineage = {"code_version": "", "data_version": "", "source": "", "seed": 1}
    about = {"name": "images", "task": "images", "recipe": "resnet", "modality": "image", "engine": "onnx"}
    engine: Any = load_engine(provisional(tmp_path, {**about, "signature": signature, "lineage": lineage}))
    rows = pd.read_parquet(dataset / "valid.parquet")
    answers = engine.predict({"image": rows["image"].to_numpy(object)})
    assert (np.array(found["output"]["classes"])[answers.argmax(axis=1)] == rows["label"]).mean() >= 0.9
    pixels = engine.decode({"image": rows["image"].to_numpy(object)})["image"]
    vectors = np.array([engine.vector(one) for one in pixels])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    [dark, bright] = [units[rows["label"] == label] for label in found["output"]["classes"][::-1]]
    assert vectors.shape == (10, 8)
    assert (dark @ dark.T).mean() > (dark @ bright.T).mean(), "images of one class are nearer to each other"
    [reasons, *_] = engine.explain({"image": rows["image"].to_numpy(object)[:1]}, 3)
    assert len(reasons) == 3
    assert abs(reasons[0].contribution) >= abs(reasons[2].contribution) > 0


@given(st.integers(2, 6), st.sampled_from([1, 3]))
@settings(max_examples=10, deadline=None)
def test_a_whitened_layer_gives_directions_of_one_variance_in_both_signs(kept: int, channels: int) -> None:
    import torch

    from pipelines.training.image_network import whitened

    rng = np.random.default_rng(kept)
    rough = rng.normal(2, 1, (60, channels, 9, 9)).astype(np.float32)
    pixels = rough + np.roll(rough, 1, axis=3) + np.roll(rough, 1, axis=2)  # neighbours have much in common
    layer = whitened(pixels, 2 * kept)
    assert not any(weights.requires_grad for weights in layer.parameters())
    inner = layer[0](torch.from_numpy(pixels))[:, :, 1:-1, 1:-1].numpy()  # away from the border
    found = inner.transpose(1, 0, 2, 3).reshape(2 * kept, -1)
    assert np.allclose(found[:kept], -found[kept:], atol=1e-4)
    assert np.abs(found.mean(axis=1)).max() < 0.1
    assert np.allclose(np.cov(found[:kept]), np.eye(kept), atol=0.2)


def test_a_whitened_layer_is_not_trained(tmp_path: Path, dataset: Path) -> None:
    import onnx

    def first(epochs: int) -> Any:
        made = small({"stem": "whitened"})
        config = replace(made, training=replace(made.training, epochs=epochs))
        out = tmp_path / str(epochs)
        config.train(TASK, dataset, out, out / "kept", lambda *args, **kwargs: None)
        weights = {
            item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(out / "model.onnx").graph.initializer
        }
        return {name: value for name, value in weights.items() if value.shape in ((4, 3, 3, 3), (8, 4, 3, 3))}

    [(stem, was), (layer, before)] = sorted(first(1).items(), key=lambda item: len(item[1]))
    after = first(2)
    assert np.array_equal(after[stem], was)
    assert not np.array_equal(after[layer], before)


def test_images_grow_to_their_sides_by_three_quarters_of_the_epochs() -> None:
    import torch

    training = ImageLoop(epochs=8, start_scale=0.5)
    pixels = torch.rand(2, 3, 32, 16)
    sides = [tuple(scaled(pixels, training, epoch).shape[2:]) for epoch in range(8)]
    assert sides == [(16, 8), (20, 8), (20, 12), (24, 12), (28, 12), (28, 16), (32, 16), (32, 16)]
    small = scaled(pixels, training, 0)
    assert torch.allclose(small.mean(dim=(2, 3)), pixels.mean(dim=(2, 3)), atol=0.03)
    assert scaled(pixels, ImageLoop(epochs=8), 0) is pixels
    tiny = torch.rand(1, 3, 6, 6)
    assert scaled(tiny, training, 0) is tiny


def test_images_that_grow_are_learned(tmp_path: Path) -> None:
    config = replace(
        small({"halve": "pool", "stem": "whitened"}, start_scale=0.5),
        image=replace(small().image, width=16, height=16),
    )
    found = config.train(
        TASK, shades(tmp_path / "dataset", 16), tmp_path / "model", tmp_path / "kept", lambda *args, **kwargs: None
    )
    assert found["history"][-1]["valid_accuracy"] >= 0.8


@pytest.mark.parametrize("first", [5, 56])
def test_a_whitened_layer_has_an_even_number_of_channels(first: int) -> None:
    with pytest.raises(PlatformError, match=f"begins with {first}, expected an even number up to 54"):
        recipe_config(TASK, "resnet", {"model.stem": "whitened", "model.widths": [first, 8, 8]})


def test_a_pretrained_network_keeps_its_sides() -> None:
    with pytest.raises(PlatformError, match="start_scale is of the recipe resnet"):
        recipe_config(TASK, "finetune", {"training.start_scale": 0.5})


def test_numbers_of_blocks_must_fit_the_widths() -> None:
    with pytest.raises(PlatformError, match="blocks needs 2 numbers"):
        recipe_config(TASK, "resnet", {"model.blocks": [1]})
