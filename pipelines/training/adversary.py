"""An adversary guesses from a network's answer to which group a row belongs; the network learns to give it no hint.

The adversary learns as usual, and what it sends back into the network is turned round (Y. Ganin et al.: Domain-
adversarial training of neural networks, 2016; for groups B. Zhang et al.: Mitigating unwanted biases with adversarial
learning, 2018). It is left out of what is served.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HIDDEN = 16
_WARM = 10.0  # how steeply the strength rises, as in Ganin
UNKNOWN = -1  # the number of the group of a row that says none


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """What an adversary needs.

    Attributes:
        groups: number of the group of each training row, or `UNKNOWN`, shape (rows,).
        strength: of what it sends back.
        sees_truth: whether it knows the label too, so that errors become equal and not selection.
    """

    groups: NDArray[np.int64]
    strength: float
    sees_truth: bool

    def fingerprint(self) -> str:
        """Names all that trained weights depend on."""
        told = f"|{self.strength}|{self.sees_truth}|".encode()
        return hashlib.sha256(told + self.groups.tobytes()).hexdigest()


def opposed(model: Any, opponent: Opponent, classes: int, steps: int) -> Any:
    """`model` with an adversary of its answers of width `classes`, as a torch module; ``.model`` is served.

    Of what `model` takes and no `truth` it gives the answers; with `truth`, the classes of the rows, also the guesses,
    shape (rows, groups). The strength rises over `steps` calls in training.
    """
    import torch
    from torch import nn

    count = int(opponent.groups.max()) + 1

    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, given: Any, strength: float) -> Any:
            ctx.strength = strength
            return given.view_as(given)

        @staticmethod
        def backward(ctx: Any, *back: Any) -> Any:
            return -ctx.strength * back[0], None

    turned: Any = Reversed.apply

    class Opposed(nn.Module):
        step: Any

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            seen = classes + (max(classes, 2) if opponent.sees_truth else 0)
            self.adversary = nn.Sequential(nn.Linear(seen, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, count))
            self.register_buffer("step", torch.zeros(()))

        def forward(self, *given: Any, truth: Any = None) -> Any:
            answers = self.model(*given)
            if truth is None:
                return answers
            if self.training:
                self.step += 1
            warm = 2 / (1 + np.exp(-_WARM * float(self.step) / max(steps, 1))) - 1
            seen = turned(answers, opponent.strength * warm)
            if opponent.sees_truth:
                known = nn.functional.one_hot(truth.long(), max(classes, 2)).to(seen.dtype)
                seen = torch.cat([seen, known], dim=1)
            return answers, self.adversary(seen)

    return Opposed().to(next(model.parameters()).device)


def against(opponent: Opponent | None, device: str) -> Callable[[Any, tuple[Any, ...], Any, Any], tuple[Any, Any]]:
    """What to ask in a step: of the module, its inputs, the classes of the rows and their numbers, to answers and loss.

    The loss is the adversary's, the mean over the rows that say their group; 0 without an opponent.
    """
    if opponent is None:
        return lambda current, given, truth, rows: (current(*given), 0.0)
    import torch
    from torch.nn.functional import cross_entropy

    counts = np.bincount(opponent.groups[opponent.groups >= 0])
    weight = torch.tensor(counts.sum() / (len(counts) * np.maximum(counts, 1)), dtype=torch.float32, device=device)
    groups = torch.from_numpy(opponent.groups).to(device)

    def asked(current: Any, given: tuple[Any, ...], truth: Any, rows: Any) -> tuple[Any, Any]:
        answers, guesses = current(*given, truth=truth)
        mine = groups[rows]
        total = cross_entropy(guesses, mine, weight=weight, ignore_index=UNKNOWN, reduction="sum")
        return answers, total / max(float(weight[mine[mine != UNKNOWN]].sum()), 1e-9)

    return asked
