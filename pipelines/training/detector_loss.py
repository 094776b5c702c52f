"""What a detector without anchors is trained to lower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SIDES = 5.0  # how much the sides count beside the middles, as TTFNet has it


def detector_loss(
    logits: Any, sides: Any, heat: Any, boxes: Any, weight: Any, *, stride: int, total: Sequence[float]
) -> Any:
    """The loss of a batch, a scalar tensor; targets as `pipelines.training.scenes.targets` makes them, stacked.

    total: how many objects there are, and the sum of `weight`, in the batch of which this may be a part.
    """
    middles = middles_loss(logits, heat) / max(total[0], 1.0)
    return middles + _SIDES * sides_loss(sides, boxes, weight, stride) / max(total[1], 1e-6)


def middles_loss(logits: Any, heat: Any) -> Any:
    """Focal loss for each object (H. Law, J. Deng: CornerNet, 2018): sure cells count little, as do those near a
    middle, and those whose target is below 0 nothing. The sum over all cells."""
    import torch
    from torch.nn.functional import logsigmoid

    score = torch.sigmoid(logits)
    middle = heat == 1
    hit = (1 - score) ** 2 * logsigmoid(logits) * middle
    rest = (1 - heat).clamp(max=1) ** 4 * score**2 * logsigmoid(-logits) * (~middle & (heat >= 0))
    return -(hit.sum() + rest.sum())


def sides_loss(sides: Any, boxes: Any, weight: Any, stride: int) -> Any:
    """1 - generalised intersection over union (H. Rezatofighi et al., 2019), the weighted sum over cells."""
    import torch

    high, wide = weight.shape[1:]
    x = (torch.arange(wide, device=sides.device) + 0.5) * stride
    y = ((torch.arange(high, device=sides.device) + 0.5) * stride)[:, None]
    left, top, right, bottom = x - sides[:, 0], y - sides[:, 1], x + sides[:, 2], y + sides[:, 3]
    across = (torch.minimum(right, boxes[:, 2]) - torch.maximum(left, boxes[:, 0])).clamp(min=0)
    down = (torch.minimum(bottom, boxes[:, 3]) - torch.maximum(top, boxes[:, 1])).clamp(min=0)
    shared = across * down
    union = (right - left) * (bottom - top) + (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) - shared
    around = (torch.maximum(right, boxes[:, 2]) - torch.minimum(left, boxes[:, 0])) * (
        torch.maximum(bottom, boxes[:, 3]) - torch.minimum(top, boxes[:, 1])
    )
    alike = shared / union.clamp(min=1e-6) - (around - union) / around.clamp(min=1e-6)
    return ((1 - alike) * weight).sum()
