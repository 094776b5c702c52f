"""Recipe `finetune`: a pretrained network of images goes on learning from the task's; torch, then ONNX."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from pipelines.recipes.image.base import Images
from pipelines.recipes.image.neural import ImageLoop, NeuralImage, begin, fit
from pipelines.recipes.image.resnet import finish
from pipelines.task import STRICT, Progress


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FinetuneModel:
    """Where the network is, see `pipelines.recipes.image.probe.ProbeModel`.

    features: of a graph, a value of it, as there.  mirror: as of `pipelines.recipes.image.resnet.ResnetModel`.
    """

    backbone: str = ""
    features: str = ""
    mirror: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FinetuneImage(NeuralImage):
    """All layers of a pretrained network, and a new linear one."""

    model: FinetuneModel = field(default_factory=FinetuneModel)
    training: ImageLoop = field(default_factory=lambda: ImageLoop(epochs=4, learning_rate=0.01, batch_size=32))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.training.start_scale < 1:
            raise ValueError("training.start_scale is of the recipe resnet: a pretrained network has sides of its own")
        return self

    def learn(self, images: Images, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Train, calibrate on ``valid``, and write the graph and ``image.json`` to `out`."""
        from pipelines.training.graph_network import graph_network
        from pipelines.training.image_backbone import backbone_here, pretrained_network

        device = begin(self)
        with backbone_here(self.model.backbone) as place:
            if place.is_file():
                network = graph_network(place, self.model.features, images.spec, len(images.classes)).to(device)
            else:
                network = pretrained_network(place, images.spec, len(images.classes)).to(device)
        history = fit(network, images, self, device, checkpoints, progress)
        return finish(network, images, self, device, history, out, self.model.mirror)
