"""The network of flow matching: what it answers, what it learns, and that its graph says the same."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.training.pictures import Pictures
from tests import image_bundle
from tests.late import Late, needs

needs("torch")
torch = Late("torch")
SIDE = 8


def shades(rows: int) -> Pictures:
    """Dark images of class 0, light ones of class 1."""
    labels = np.arange(rows) % 2
    pixels = np.repeat((labels * 200 + 20).astype(np.uint8), SIDE * SIDE).reshape(rows, SIDE, SIDE, 1)
    return Pictures(pixels, labels.astype(np.int64))


def recipe(**training: Any) -> Any:
    from pipelines.recipes.drawing.flow import FlowLoop, FlowRecipe, UnetModel
    from pipelines.recipes.image.base import ImageConfig

    return FlowRecipe(
        recipe="flow",
        image=ImageConfig(width=SIDE, height=SIDE, mode="L"),
        model=UnetModel(widths=(8, 16), heads=2),
        training=FlowLoop(batch_size=16, warmup=0, device="cpu", **training),
    )


def sketched(config: Any) -> Any:
    from pipelines.recipes.drawing.base import Sketches

    task: Any = None
    given = {"spec": config.image.spec(), "dataset": Path(), "column": "image", "classes": ["dark", "light"]}
    return Sketches(task=task, train=shades(64), valid=shades(16), **given)


def test_the_graph_says_what_the_network_says(tmp_path: Path) -> None:
    import onnxruntime as ort

    from pipelines.training.flow_network import export, unet

    torch.manual_seed(0)
    network = unet(3, 3, (8, 16), 1, 2, 2)
    for one in network.parameters():
        torch.nn.init.normal_(one, std=0.2)
    images, times, labels = torch.randn(3, 3, 12, 8), torch.tensor([0.0, 0.4, 0.9]), torch.tensor([0, 2, 3])
    with torch.no_grad():
        wanted = network(images, times, labels).numpy()
    assert wanted.shape == (3, 3, 12, 8)
    session = ort.InferenceSession(export(network, (3, 12, 8)))
    given = {"pixels": images.numpy(), "time": times.numpy(), "label": labels.numpy()}
    np.testing.assert_allclose(session.run(["direction"], given)[0], wanted, atol=2e-5)
    one = {name: value[:1] for name, value in given.items()}
    np.testing.assert_allclose(session.run(["direction"], one)[0], wanted[:1], atol=2e-5)


def test_it_learns_which_class_is_light_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    from contracts.engines.flow import follow
    from pipelines.recipes.drawing.flow import fit

    def trained(epochs: int, folder: str) -> tuple[Any, list[dict[str, float]]]:
        config = recipe(epochs=epochs, learning_rate=0.01, average=0.9)
        torch.manual_seed(config.seed)
        network = config.network(2)
        (tmp_path / folder).mkdir(exist_ok=True)
        history = fit(network, sketched(config), config, "cpu", tmp_path / folder, lambda *_, **__: None)
        return network, history

    network, history = trained(12, "a")
    assert history[-1]["valid_loss"] < 0.5 * history[0]["valid_loss"]
    again = trained(12, "a")[1]  # from its checkpoint
    assert again == history
    noise = np.random.default_rng(0).standard_normal((2, 1, SIDE, SIDE), dtype=np.float32)

    def direction(now: Any, time: float) -> Any:
        with torch.no_grad():
            return network(torch.from_numpy(now), torch.full((2,), time), torch.tensor([0, 1])).numpy()

    dark, light = list(follow(direction, noise, 6, "heun"))[-1].mean(axis=(1, 2, 3))
    assert dark < -0.5 < 0.4 < light


@pytest.mark.parametrize("rows", [2, 7])
def test_the_shares_of_processes_are_together_the_batch_of_one(rows: int) -> None:
    from pipelines.recipes.drawing.flow import drawn_batch

    given = shades(rows)
    whole = drawn_batch(given.pixels, given.labels, np.random.default_rng(3))
    for rank in range(2):
        mine = np.arange(rows)[rank::2]
        found = drawn_batch(given.pixels[mine], given.labels[mine], np.random.default_rng(3), rows, mine)
        assert all(np.array_equal(one, other[mine]) for one, other in zip(found, whole, strict=True))


def test_drawings_are_streamed_from_shards_and_after_a_kill_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.data import file_rows
    from pipelines.data.file_rows import FileRows, shards_of
    from pipelines.recipes.drawing.base import read_sketches
    from pipelines.recipes.drawing.flow import fit
    from pipelines.tasks import get_task
    from pipelines.training import pictures
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.shards import LoaderConfig, ShardLoader

    dataset = image_bundle.shades(tmp_path / "dataset")
    monkeypatch.setattr(file_rows, "_GROUP_ROWS", 6)
    monkeypatch.setattr(file_rows, "_SHARD_BYTES", 3000)
    files = FileRows([dataset / "train.parquet"], "image")
    files.write(files.frame(), dataset / "shards")
    (dataset / "train.parquet").unlink()
    (dataset / "shards").rename(dataset / "train.parquet")
    assert len(shards_of(dataset / "train.parquet")) > 2
    # Windows are made in this process, by the code of the workers.
    monkeypatch.setattr(ShardLoader, "running", lambda self: nullcontext())
    monkeypatch.setattr("pipelines.recipes.drawing.flow._HELD", 10)
    decoded: list[int] = []
    read: Any = vars(pictures)["read_pixels"]
    monkeypatch.setattr(pictures, "read_pixels", lambda *given: decoded.append(1) or read(*given))
    config = recipe(epochs=2, checkpoint_steps=2, average=0.9)
    config = replace(config, loader=LoaderConfig(workers=1, window=16), model=replace(config.model, widths=(8,)))

    def train(name: str) -> bytes:
        images = read_sketches(get_task("drawings"), config, dataset, tmp_path)
        torch.manual_seed(config.seed)
        network = config.network(2)
        fit(network, images, config, "cpu", tmp_path / name, lambda *_, **__: None)
        return b"".join(one.numpy().tobytes() for one in network.state_dict().values())

    whole = train("whole")
    assert len(decoded) == 10 + 10, "all of valid, and some of train: the others are read as they are learned"
    save, seen = Checkpoint.save, []

    def killed(self: Any, tensors: Any, notes: Any) -> None:
        save(self, tensors, notes)
        seen.append((len(notes["history"]), notes.get("within", 0)))
        if seen[-1] == (1, 2):
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train("again")
    seen.clear()
    assert train("again") == whole
    assert seen == [(1, 4), (2, 0)], "what was done is not done again"


@pytest.mark.parametrize(
    ("share", "light", "low", "high"), [(0.9, 255, 248, 250), (0.5, 255, 252, 253), (0.9, 254, 255, 255)]
)
def test_images_get_as_much_white_as_those_that_were_learned(
    tmp_path: Path, share: float, light: int, low: int, high: int
) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from pipelines.recipes.drawing.base import SamplingConfig, sampled_levels

    nodes = [
        helper.make_node("Sub", ["paper", "pixels"], ["apart"]),
        helper.make_node("Mul", ["apart", "near"], ["direction"]),  # whatever the time and the class
    ]
    rows: dict[str, tuple[int, list[Any]]] = {
        "pixels": (1, ["rows", 1, SIDE, SIDE]),
        "time": (1, ["rows"]),
        "label": (TensorProto.INT64, ["rows"]),
    }
    given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in rows.items()]
    made = [helper.make_tensor_value_info("direction", 1, ["rows", 1, SIDE, SIDE])]
    known = {"paper": 1.0, "near": 0.98}
    weights = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in known.items()]
    graph = helper.make_graph(nodes, "paper", given, made, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    onnx.save(model, str(tmp_path / "model.onnx"))
    images = sketched(recipe())
    flat = images.train.pixels.reshape(-1)
    flat[:] = 100
    flat[: int(share * len(flat))] = light  # sampled ones are 252.5, with a deviation of 2.5
    found = sampled_levels(tmp_path / "model.onnx", images, SamplingConfig(steps=1, method="euler"), 1)
    assert found[0] == 0
    assert low <= found[1] <= high


def test_the_reference_tells_the_classes_and_names_itself(tmp_path: Path) -> None:
    import hashlib
    import json

    import pandas as pd

    from contracts.provenance import plain_png
    from pipelines.training.reference_network import ReferenceConfig, write_reference

    for name, rows in (("train", 60), ("valid", 20)):
        part = shades(rows)
        files = [plain_png(one) for one in part.pixels]
        frame = pd.DataFrame({"image": files, "label": [("dark", "light")[at] for at in part.labels]})
        frame.to_parquet(tmp_path / f"{name}.parquet")
    made = tmp_path / "made"
    made.mkdir()
    config = ReferenceConfig(widths=(4, 8), epochs=3)
    about = write_reference(tmp_path, "image", recipe().image.spec(), config, 1, made, lambda *_, **__: None)
    assert about["valid_accuracy"] == 1.0
    assert about["sha256"] == hashlib.sha256((made / "reference.onnx").read_bytes()).hexdigest()
    assert json.loads((made / "reference.json").read_text())["features"] == 8
