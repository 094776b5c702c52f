"""Networks that turn noise into images by flow matching, trained with torch and exported to ONNX.

Y. Lipman et al.: Flow matching for generative modeling, 2023; X. Liu et al.: Flow straight and fast, 2023. The network
says in which direction an image between noise (time 0) and data (time 1) moves; `contracts.engines.flow` follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

from pipelines.training.onnx_export import graph

_FASTEST = 1000.0  # what a time is multiplied by before it becomes waves


def unet(classes: int, channels: int, widths: Sequence[int], blocks: int, patch: int, heads: int) -> Any:
    """A small U-Net (O. Ronneberger et al., 2015; P. Dhariwal, A. Nichol: Diffusion models beat GANs, 2021): images
    (rows, channels, height, width), times (rows,) and class numbers (rows,) to directions of the images' shape.

    Squares of `patch` pixels are its smallest places. Each of `widths` has `blocks` residual blocks on the way down and
    one more on the way up, each but the first at half the sides; the coarsest looks at all places (attention). Time
    and class scale and shift what a block has. Class number `classes` is none of them, for guidance.
    """
    import torch
    from torch import nn

    inner = 4 * widths[0]

    class Block(nn.Module):
        def __init__(self, given: int, made: int) -> None:
            super().__init__()
            self.before = nn.GroupNorm(gcd(8, given), given)
            self.first = nn.Conv2d(given, made, 3, 1, 1)
            self.between = nn.GroupNorm(gcd(8, made), made)
            self.told = nn.Linear(inner, 2 * made)
            self.second = nn.Conv2d(made, made, 3, 1, 1)
            self.past = nn.Conv2d(given, made, 1) if given != made else nn.Identity()
            nn.init.zeros_(self.second.weight)

        def forward(self, values: Any, told: Any) -> Any:
            found = self.first(nn.functional.silu(self.before(values)))
            scale, shift = self.told(told)[:, :, None, None].chunk(2, dim=1)
            found = self.between(found) * (1 + scale) + shift
            return self.past(values) + self.second(nn.functional.silu(found))

    class Attention(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.before = nn.GroupNorm(gcd(8, width), width)
            self.asked = nn.Linear(width, 3 * width)
            self.answer = nn.Linear(width, width)
            nn.init.zeros_(self.answer.weight)

        def forward(self, values: Any) -> Any:
            rows, width, high, wide = values.shape
            places = self.before(values).flatten(2).transpose(1, 2)
            parts = self.asked(places).reshape(rows, high * wide, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            query, key, value = parts[0], parts[1], parts[2]
            weight = (query @ key.transpose(-1, -2) * (width // heads) ** -0.5).softmax(-1)
            seen = (weight @ value).transpose(1, 2).reshape(rows, high * wide, width)
            return values + self.answer(seen).transpose(1, 2).reshape(rows, width, high, wide)

    class Unet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Sequential(nn.Linear(widths[0], inner), nn.SiLU(), nn.Linear(inner, inner))
            self.label = nn.Embedding(classes + 1, inner)
            self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, 1, 1)
            self.down: Any = nn.ModuleList()
            self.up: Any = nn.ModuleList()
            self.shrink: Any = nn.ModuleList()
            kept, width = [widths[0]], widths[0]
            for level, made in enumerate(widths):
                self.down.append(nn.ModuleList(Block(width if at == 0 else made, made) for at in range(blocks)))
                width = made
                kept += [made] * blocks
                if level < len(widths) - 1:
                    self.shrink.append(nn.Conv2d(made, made, 3, 2, 1))
                    kept.append(made)
            self.middle = nn.ModuleList([Block(width, width), Attention(width), Block(width, width)])
            for made in reversed(widths):
                stage = nn.ModuleList()
                for _ in range(blocks + 1):
                    stage.append(Block(width + kept.pop(), made))
                    width = made
                self.up.append(stage)
            last = nn.Conv2d(width, channels * patch**2, 3, 1, 1)
            nn.init.zeros_(last.weight)
            self.last = nn.Sequential(nn.GroupNorm(gcd(8, width), width), nn.SiLU(), last)

        def forward(self, pixels: Any, time: Any, label: Any) -> Any:
            half = widths[0] // 2
            rates = torch.exp(torch.arange(half, device=pixels.device) * (-torch.log(torch.tensor(1e4)) / half))
            waves = time[:, None] * _FASTEST * rates[None]
            told = self.time(torch.cat([waves.cos(), waves.sin()], dim=1)) + self.label(label)
            told = nn.functional.silu(told)
            values = self.stem(nn.functional.pixel_unshuffle(pixels, patch))
            kept = [values]
            for level, stage in enumerate(self.down):
                for block in stage:
                    values = block(values, told)
                    kept.append(values)
                if level < len(self.shrink):
                    values = self.shrink[level](values)
                    kept.append(values)
            first, look, second = self.middle
            values = second(look(first(values, told)), told)
            for level, stage in enumerate(self.up):
                for block in stage:
                    values = block(torch.cat([values, kept.pop()], dim=1), told)
                if level < len(self.up) - 1:
                    values = nn.functional.interpolate(values, size=kept[-1].shape[2:], mode="nearest")
            return nn.functional.pixel_shuffle(self.last(values), patch)

    return Unet()


def export(network: Any, shape: Sequence[int]) -> bytes:
    """The ONNX graph of ``pixels`` (rows, *shape), ``time`` (rows,) and ``label`` (rows,) to ``direction``."""
    import torch

    given = (torch.zeros(2, *shape), torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    names = ["pixels", "time", "label"]
    return graph(network.cpu(), given, names, ["direction"], {key: {0: "rows"} for key in (*names, "direction")})
