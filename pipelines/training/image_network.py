"""Networks that tell the class of an image, trained with torch and exported to ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.training.onnx_export import graph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_SIDE = 3  # of the patches that a fixed first layer looks at
_LEAST = 0.005  # added to variances: a direction that patches hardly have is noise, and is not made large


def residual_network(
    classes: int,
    channels: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    norm: Literal["batch", "group"] = "batch",
    *,
    halve: Literal["stride", "pool"] = "stride",
    stem: Any = None,
) -> Any:
    """A small residual network (K. He et al.: Deep residual learning, 2016): pixels (rows, channels, height, width) to
    logits (rows, classes).

    A convolution to ``widths[0]`` channels; then for each further width one that halves the sides, and as many residual
    blocks of two convolutions as `blocks` says. The largest value of each channel goes to a linear layer.
    norm: ``batch`` reads the other images of a batch, ``group`` (Y. Wu, K. He: Group normalization, 2018) only its own.
    halve: sides are halved by the step of the convolution, or ``pool``: by the largest of four values after it, which
    takes four times the work of these layers.  stem: a module in the place of the first convolution, with as many
    channels, such as `whitened`.
    """
    from torch import nn

    def layer(given: int, made: int, stride: int = 1) -> Any:
        pooled = [nn.MaxPool2d(2, ceil_mode=True)] if stride > 1 and halve == "pool" else []
        convolution = [nn.Conv2d(given, made, 3, 1 if pooled else stride, 1, bias=False), *pooled]
        if norm == "group":  # whose gradients are kept of each image, which forbids to write over values
            return nn.Sequential(*convolution, nn.GroupNorm(gcd(8, made), made), nn.ReLU())
        return nn.Sequential(*convolution, nn.BatchNorm2d(made), nn.ReLU(inplace=True))

    class Residual(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.inner = nn.Sequential(layer(width, width), layer(width, width))

        def forward(self, values: Any) -> Any:
            return values + self.inner(values)

    parts: list[Any] = [layer(channels, widths[0]) if stem is None else stem]
    for before, width, count in zip(widths, widths[1:], blocks, strict=False):
        parts += [layer(before, width, 2), *(Residual(width) for _ in range(count))]
    return nn.Sequential(*parts, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


def whitened(pixels: NDArray[np.float32], width: int) -> Any:
    """A first layer that is not trained: how much a patch of 3x3 pixels has of each main direction of patches.

    Directions are scaled to the same variance, and each is there twice, with both signs, before negative values become
    zero. A network on it learns in fewer epochs, and no gradients of whole images are needed (K. Jordan: 94 % on
    CIFAR-10 in 3.29 seconds on a single GPU, 2024).

    Args:
        pixels: images of the training part as the network gets them, shape (rows, channels, height, width).
        width: channels of the layer: even, and at most 18 for each channel of an image, see `widest`.
    """
    import torch
    from torch import nn

    images = torch.from_numpy(pixels)
    taken = (
        nn.functional.unfold(images, _SIDE, stride=_SIDE - 1).permute(0, 2, 1).reshape(-1, images.shape[1] * _SIDE**2)
    )
    mean = taken.double().mean(dim=0)
    moved = taken.double() - mean
    variance, directions = torch.linalg.eigh(moved.T @ moved / len(moved))
    kept = width // 2
    filters = (directions / (variance + _LEAST).sqrt()).flip(1)[:, :kept].T
    layer: Any = nn.Conv2d(images.shape[1], width, _SIDE, padding=_SIDE // 2)
    both = torch.cat((filters, -filters))
    with torch.no_grad():
        layer.weight.copy_(both.reshape(layer.weight.shape))
        layer.bias.copy_(-both @ mean)
    return nn.Sequential(layer.requires_grad_(False), nn.ReLU(inplace=True))


def widest(channels: int) -> int:
    """The most channels of `whitened` on images of so many."""
    return 2 * channels * _SIDE**2


def mirrored_too(network: Any) -> Any:
    """The mean of the logits of an image and of its mirror image."""
    from torch import nn

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Any) -> Any:
            return (self.network(pixels) + self.network(pixels.flip(3))) / 2

    return Both()


def export(network: Any, shape: Sequence[int], factor: float) -> bytes:
    """A graph of ``pixels`` (rows, *shape) to ``probabilities``: scaled logits, of which the engine takes softmax."""
    from torch import nn

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Any) -> Any:
            return self.network(pixels) * factor

    return exported(Scaled(), shape, ["probabilities"])


def exported(module: Any, shape: Sequence[int], outputs: Sequence[str]) -> bytes:
    """The ONNX graph of a module from ``pixels`` (rows, *shape) to its outputs, each with any number of rows."""
    import torch

    names = ("pixels", *outputs)
    return graph(module.cpu(), (torch.zeros(2, *shape),), names[:1], outputs, {key: {0: "rows"} for key in names})


def show_vector(file: Path) -> None:
    """Give the graph of a network one more output, ``vector``: the features that its last linear layer takes.

    Other outputs stay what they are; a graph that has no such layer stays as it is.
    """
    import onnx
    from onnx import TensorProto, helper

    from contracts.engine import VECTOR

    model = onnx.load(str(file))
    graph = model.graph
    names = {item.name for item in graph.output} | {name for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type == "Gemm"]
    if not layers or VECTOR in names:
        return
    graph.node.append(helper.make_node("Identity", [layers[-1].input[0]], [VECTOR]))
    graph.output.append(helper.make_tensor_value_info(VECTOR, TensorProto.FLOAT, ["rows", "features"]))
    file.write_bytes(model.SerializeToString())
