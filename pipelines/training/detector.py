"""A small detector without anchors: each cell of a map says what has its middle there, and how far its sides are.

X. Zhou, D. Wang, P. Krähenbühl: Objects as points, 2019; sides are learned around the middles too, as in Z. Liu et al.:
Training-time-friendly network for real-time object detection, 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipelines.training.image_network import exported

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRIDE = 4  # pixels of a cell
CANDIDATES, MOST = 300, 100  # peaks of an image that become boxes; boxes that are left after suppression
SCORED = 0.01  # boxes of a lower score are not given at all
_LARGEST = 6.0  # of the logarithm of a side, in cells


def detector(classes: int, body: Any, widths: Sequence[int], head: int) -> Any:
    """Answers on the maps of a `body`, added from coarse to fine (T.-Y. Lin et al.: Feature pyramid networks, 2017).

    Pixels to logits (rows, classes, height / 4, width / 4) and distances of the sides from the middle of a cell, left,
    top, right, bottom, in pixels, (rows, 4, height / 4, width / 4).

    body: pixels (rows, channels, height, width) to maps at strides 4, 8 and so on, of `widths` channels.  head:
    channels of the layer before each answer.
    """
    import torch
    from torch import nn

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body
            self.across = nn.ModuleList(nn.Conv2d(width, head, 1) for width in widths)
            self.smooth = nn.ModuleList(_layer(head, head) for _ in widths[1:])
            middles: Any = nn.Conv2d(head, classes, 1)
            self.heat = nn.Sequential(_layer(head, head), middles)
            self.sides = nn.Sequential(_layer(head, head), nn.Conv2d(head, 4, 1))
            nn.init.constant_(middles.bias, -4.6)  # objects are rare: 1 % to begin with

        def forward(self, pixels: Any) -> tuple[Any, Any]:
            maps = [across(one) for one, across in zip(self.body(pixels), self.across, strict=True)]
            found = maps[-1]
            for finer, smooth in zip(maps[-2::-1], self.smooth, strict=True):
                found = smooth(finer + nn.functional.interpolate(found, scale_factor=2.0, mode="nearest"))
            return self.heat(found), torch.exp(self.sides(found).clamp(max=_LARGEST)) * STRIDE

    return Detector()


def residual_body(channels: int, widths: Sequence[int], blocks: int) -> Any:
    """A small residual network (K. He et al.: Deep residual learning, 2016), which gives the maps at strides 4, 8 and
    so on; sides of an image must be multiples of ``2 ** len(widths)``.

    widths: channels at strides 2, 4, 8 and so on.  blocks: residual blocks of each but the first.
    """
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            last = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.inner = nn.Sequential(_layer(width, width), last, nn.BatchNorm2d(width))

        def forward(self, values: Any) -> Any:
            return torch.relu(values + self.inner(values))

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = _layer(channels, widths[0], 2)
            self.stages = nn.ModuleList(
                nn.Sequential(_layer(before, width, 2), *(Residual(width) for _ in range(blocks)))
                for before, width in pairwise(widths)
            )

        def forward(self, pixels: Any) -> list[Any]:
            values, maps = self.stem(pixels), []
            for stage in self.stages:
                values = stage(values)
                maps.append(values)
            return maps

    return Body()


def _layer(given: int, made: int, stride: int = 1) -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv2d(given, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU(inplace=True))


def mirrored_too(network: Any, across: bool, down: bool) -> Any:
    """The mean over an image and its mirror images, left to right, top to bottom and both, as far as they are asked
    for: of the scores, and of the sides as they are then called."""
    import torch
    from torch import nn

    ways = [[], *([[3]] if across else []), *([[2]] if down else []), *([[2, 3]] if across and down else [])]

    class Mirrored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Any) -> tuple[Any, Any]:
            scores: Any = 0.0
            distances: Any = 0.0
            for way in ways:
                logits, sides = self.network(pixels.flip(way) if way else pixels)
                logits, sides = (logits.flip(way), sides.flip(way)) if way else (logits, sides)
                left, top, right, bottom = sides.split(1, dim=1)
                left, right = (right, left) if 3 in way else (left, right)
                top, bottom = (bottom, top) if 2 in way else (top, bottom)
                scores = scores + torch.sigmoid(logits) / len(ways)
                distances = distances + torch.cat([left, top, right, bottom], dim=1) / len(ways)
            return torch.logit(scores, eps=1e-6), distances

    return Mirrored()


def decoded(logits: Any, sides: Any) -> tuple[Any, Any]:
    """The peaks of the answers of a `detector`: boxes (rows, candidates, 4), left, top, right and bottom in pixels of
    the input, and of each class their scores (rows, classes, candidates), 0 but for one."""
    import torch

    scores = torch.sigmoid(logits)
    peaks = scores * (torch.nn.functional.max_pool2d(scores, 3, 1, 1) == scores)
    classes, high, wide = (int(side) for side in scores.shape[1:])
    best, at = peaks.flatten(1).topk(min(CANDIDATES, classes * high * wide), dim=1)
    kind, cell = at // (high * wide), at % (high * wide)
    x, y = ((cell % wide).float() + 0.5) * STRIDE, ((cell // wide).float() + 0.5) * STRIDE
    away = sides.flatten(2).gather(2, cell[:, None].expand(-1, 4, -1))
    boxes = torch.stack([x - away[:, 0], y - away[:, 1], x + away[:, 2], y + away[:, 3]], dim=2)
    numbers = torch.arange(classes, device=kind.device)[None, :, None]
    return boxes, (kind[:, None] == numbers).float() * best[:, None]


def export(network: Any, shape: Sequence[int], overlap: float) -> bytes:
    """A graph of ``pixels`` (rows, *shape) to ``detections`` (rows, MOST, 6), the best first.

    Of each: left, top, right and bottom in pixels of the input, score, class number. What overlaps a better one of its
    class by more than `overlap` (intersection over union) is left out; places without a box have score 0.
    A second output, `contracts.engine.VECTOR`, tells images apart.
    """
    from torch import nn

    class Decoded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Any) -> tuple[Any, Any]:
            return decoded(*self.network(pixels))

    import onnx

    model = onnx.load_from_string(exported(Decoded(), shape, ["boxes", "scores"]))
    _suppress(model, overlap)
    _show_vector(model)
    onnx.checker.check_model(model)
    graph: bytes = model.SerializeToString()
    return graph


def _show_vector(model: Any) -> None:
    """Give a graph one more output, ``vector``: the mean over all places of its coarsest map, if it has several."""
    from onnx import TensorProto, helper

    from contracts.engine import VECTOR

    coarsest = next((node.input[0] for node in model.graph.node if node.op_type == "Resize"), None)
    if coarsest is not None:
        model.graph.node.append(helper.make_node("ReduceMean", [coarsest], [VECTOR], axes=[2, 3], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(VECTOR, TensorProto.FLOAT, ["rows", "features"]))


def _suppress(model: Any, overlap: float) -> None:
    """Turn the outputs ``boxes`` and ``scores`` (rows, classes, candidates) of a graph into that of `export`."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    constants: dict[str, NDArray[Any]] = {
        "most": np.array([CANDIDATES], np.int64),
        "overlap": np.array([overlap], np.float32),
        "least": np.array([SCORED], np.float32),
        "kept_count": np.array([MOST], np.int64),
        "nothing": np.array([0.0], np.float32),
        "last": np.array([2], np.int64),
        "flat": np.array([0, -1], np.int64),
        "repeats": np.array([1, 1, 4], np.int64),
        "padding": np.array([0, 0, 0, MOST], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["chosen"]),
        # Of the chosen (row, class, candidate) the scores stay, all others become 0.
        node("GatherND", ["scores", "chosen"], ["chosen_scores"]),
        node("Sub", ["scores", "scores"], ["no_scores"]),
        node("ScatterND", ["no_scores", "chosen", "chosen_scores"], ["left"]),
        node("Reshape", ["left", "flat"], ["left_flat"]),
        node("Pad", ["left_flat", "padding", "nothing"], ["left_enough"]),
        node("TopK", ["left_enough", "kept_count"], ["best", "places"], axis=1),
        node("Shape", ["scores"], ["shape"]),
        node("Gather", ["shape", "last"], ["candidates"]),
        node("Div", ["places", "candidates"], ["number"]),
        node("Mod", ["places", "candidates"], ["candidate"]),
        node("Unsqueeze", ["candidate", "last"], ["candidate_each"]),
        node("Tile", ["candidate_each", "repeats"], ["candidate_four"]),
        node("GatherElements", ["boxes", "candidate_four"], ["kept_boxes"], axis=1),
        node("Unsqueeze", ["best", "last"], ["kept_scores"]),
        node("Cast", ["number"], ["number_float"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["number_float", "last"], ["kept_classes"]),
        node("Concat", ["kept_boxes", "kept_scores", "kept_classes"], ["detections"], axis=2),
    ]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["rows", MOST, 6]))
