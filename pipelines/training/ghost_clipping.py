"""The gradient of every row of a network of linear layers is cut without being made: from what a layer was given and
what came back to it.

The gradient of a row in a linear layer is the outer product of both, so its norm is the product of theirs (I.
Goodfellow: Efficient per-example gradient computations, 2015), and the sum of the cut ones is one product of matrices
(Z. Bu et al.: Differentially private optimization on large model at small cost, 2023). Noise, scale and step are those
of Opacus.
"""

from __future__ import annotations

from typing import Any


def is_linear(model: Any) -> bool:
    """Whether `model` is a chain whose weights are all those of linear layers, each used once."""
    from torch import nn

    chain = list(model) if isinstance(model, nn.Sequential) else [model]
    weighing = [one for one in chain if next(one.parameters(), None) is not None]
    once = len({id(one) for one in weighing}) == len(weighing)
    return once and all(type(one) is nn.Linear and one.bias is not None for one in weighing)


class GhostLayers:
    """What went in and came back of each linear layer of `model`, of the latest batch; `remove` ends it."""

    def __init__(self, model: Any) -> None:
        from torch import nn

        self.layers: list[Any] = [one for one in model.modules() if type(one) is nn.Linear]
        self._given: list[Any] = [None] * len(self.layers)
        self._back: list[Any] = [None] * len(self.layers)
        self._hooks = [one.register_forward_hook(self._hook(at)) for at, one in enumerate(self.layers)]

    def cut(self, clip: float) -> list[tuple[Any, Any]]:
        """Of each layer, the sum over the rows of the gradients of weight and bias, those of a row cut to `clip`."""
        pairs = list(zip(self._given, self._back, strict=True))
        squares: Any = sum(back.square().sum(1) * (given.square().sum(1) + 1) for given, back in pairs)
        factor = (clip / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        scaled = [(given, back * factor[:, None]) for given, back in pairs]
        return [(back.T @ given, back.sum(0)) for given, back in scaled]

    def remove(self) -> None:
        """Take the hooks from the layers."""
        for one in self._hooks:
            one.remove()

    def _hook(self, at: int) -> Any:
        # A closure, as copies of the model share it; they are asked without gradients, and leave nothing here.
        def came_back(gradient: Any) -> None:
            self._back[at] = gradient

        def went_in(_: Any, given: tuple[Any, ...], made: Any) -> None:
            if made.requires_grad:
                self._given[at] = given[0].detach()
                made.register_hook(came_back)

        return went_in


def ghost_optimizer(base: Any, ghosts: GhostLayers, optimizer: Any, **settings: Any) -> Any:
    """Opacus' optimizer, `base`, for one batch a step, with sums of cut gradients by `ghosts`."""

    class Ghost(base):  # type: ignore[misc]
        accumulated_iterations = 1

        @property
        def grad_samples(self) -> list[Any]:
            """Something of each layer: they are never made."""
            return list(ghosts.layers)

        def clip_and_accumulate(self) -> None:
            """Keep the sums where the optimizer looks for them."""
            for layer, (weight, bias) in zip(ghosts.layers, ghosts.cut(self.max_grad_norm), strict=True):
                layer.weight.summed_grad, layer.bias.summed_grad = weight, bias

    return Ghost(optimizer, **settings)
