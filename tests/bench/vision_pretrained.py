"""A pretrained network for ``make bench-vision ARGS=pretrained``: the ResNet-20 of weights/ learned CIFAR-10 before
JPEG; as a graph of ONNX it goes on learning, and a linear model is put on its features.

It has seen the training images of CIFAR-10, which are those of image/ before they became JPEG, and none of the test.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import process_time
from typing import Any

from tests.bench.report import Row
from tests.chain import Chain

# Of the images that the network learned from.
_SCALE = {"image.mean": [0.485, 0.456, 0.406], "image.std": [0.229, 0.224, 0.225], "model.mirror": True}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "linear_probe": {"model.strengths": [0.001, 0.01, 0.1]},
    "finetune": {
        "augment.flip": True,
        "augment.color": 0.0,
        "training.epochs": 3,
        "training.batch_size": 128,
        "training.learning_rate": 0.05,
        "training.warmup": 60,
        "training.class_weights": False,
        "training.threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
    },
}
_GOALS = {"linear_probe": ">= 84", "finetune": ">= 89"}


def pretrained(folder: Path, weights: str, source: str, split: Mapping[str, Any]) -> Iterator[Row]:
    """What each recipe reaches, and the processor time of its training.

    Args:
        weights: the file of the network.  source, split: as of the other networks of these images.
    """
    write_resnet20(Path(weights), folder / "resnet20" / "model.onnx")
    dataset = None
    for recipe, settings in RECIPES.items():
        given = {**split, **_SCALE, "model.backbone": str(folder / "resnet20"), **settings}
        chain = Chain(task="images", recipe=recipe, home=folder / recipe, source=source, overrides=given)
        if dataset is None:
            dataset = chain.dataset()
        began = process_time()
        chain.call("train", dataset, chain.path("checkpoints"), chain.path("model"))
        spent = process_time() - began
        lineage = '{"code_version": "", "data_version": "", "source": "CIFAR-10"}'
        chain.call("evaluate", dataset, chain.path("model"), lineage, chain.path("candidate"))
        case, found = "CIFAR-10 JPEG, a ResNet-20 of CIFAR-10", 100 * chain.evaluation()["metrics"]["accuracy"]
        goal = "<= 1200" if recipe == "finetune" else ""
        yield Row(case=case, contestant=f"fairlead {recipe}, training", value=spent, unit="processor s", goal=goal)
        yield Row(case=case, contestant=f"fairlead {recipe}", value=found, unit="% right", goal=_GOALS[recipe])


def write_resnet20(weights: Path, out: Path) -> None:
    """The features of the network, shape (rows, 64), with its batch norms; short cuts are those of option A."""
    import torch
    from torch import nn
    from torch.nn.functional import pad, relu

    class Block(nn.Module):
        def __init__(self, given: int, made: int) -> None:
            super().__init__()
            stride, self.more = (1, 0) if given == made else (2, (made - given) // 2)
            self.conv1, self.bn1 = nn.Conv2d(given, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made)
            self.conv2, self.bn2 = nn.Conv2d(made, made, 3, 1, 1, bias=False), nn.BatchNorm2d(made)

        def forward(self, values: Any) -> Any:
            found = self.bn2(self.conv2(relu(self.bn1(self.conv1(values)))))
            short = pad(values[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more)) if self.more else values
            return relu(found + short)

    class Net(nn.Module):
        layer1: Any
        layer2: Any
        layer3: Any

        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            for at, (given, made) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
                setattr(self, f"layer{at}", nn.Sequential(Block(given, made), Block(made, made), Block(made, made)))
            self.linear = nn.Linear(64, 10)  # of the weights; left out of the graph

        def forward(self, pixels: Any) -> Any:
            found: Any = relu(self.bn1(self.conv1(pixels)))
            for layer in (self.layer1, self.layer2, self.layer3):
                found = layer(found)
            return found.mean(dim=(2, 3))

    network, found = Net(), torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict({name.removeprefix("module."): one for name, one in found["state_dict"].items()})
    out.parent.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 3, 32, 32),),
            str(out),
            dynamo=False,
            opset_version=17,
            input_names=["pixels"],
            output_names=["features"],
            dynamic_axes={"pixels": {0: "rows"}, "features": {0: "rows"}},
            training=torch.onnx.TrainingMode.PRESERVE,  # batch norms stay what they are
            do_constant_folding=False,
        )
