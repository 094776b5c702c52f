"""A small network of a table's values, trained with torch, privately if that is asked for, and written as ONNX.

Numbers are bent by a signed logarithm, and shifted and scaled; strings are one input for each category. A private
network knows how numbers are spread by a noisy histogram over fixed bins, which is paid for like a step of training.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.privacy_ledger import Release
from pipelines.io.files import write_json
from pipelines.search_space import Dimension
from pipelines.task import STRICT, Progress
from pipelines.training.adversary import Opponent, against, opposed
from pipelines.training.boosting import Floats, Rows, Share
from pipelines.training.loop import LoopConfig
from pipelines.training.onnx_tabular import NetworkForm
from pipelines.training.privacy import (
    PrivacyConfig,
    check_settings,
    drawn,
    pay,
    private_loop,
    privately,
    steps_of,
)

_REACH, _BIN = 22.0, 0.25  # of bent numbers: up to 3.6e9 either way
_FAR = 5.0  # deviations, beyond which a number is as far
_SPREAD_NOISE = 20.0  # deviations of noise in the histograms, over epsilon: they are a fiftieth of the cost


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NetworkConfig:
    """A network with `hidden` units in each layer. hide_share: as in LightGBMConfig.

    A private network has neither rows with hidden features, which would be there twice, nor a calibration.
    """

    kind: Literal["network"] = "network"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=8)] = (32,)
    training: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            epochs=20, batch_size=512, learning_rate=0.01, average=0.95, class_weights=False
        )
    )
    calibration: Literal["platt", "isotonic", "none"] = "platt"
    hide_share: Share = 0.1

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "training.learning_rate": Dimension(low=1e-3, high=3e-2, log=True),
        "training.weight_decay": Dimension(low=1e-4, high=0.3, log=True),
    }


@plain(frozen=True, kw_only=True)
class Spread:
    """How the numbers of a table lie when they are bent: arrays of shape (numbers,).

    counts: of each input by name the rows in each bin and, last, without a value; noisy, of a private network only.
    """

    mean: Floats
    deviation: Floats
    counts: Mapping[str, Floats]


@plain(frozen=True, kw_only=True)
class Fit:
    """A trained network: what is left to write, and the log-odds of the validation rows."""

    layers: list[tuple[Floats, Floats]]
    spread: Spread
    raw: Floats
    history: list[dict[str, float]]
    parameters: dict[str, Any]
    device: str
    privacy: dict[str, Any] | None


def bent(numbers: Floats) -> Floats:
    """A signed logarithm: amounts and counts have long tails."""
    return np.asarray(np.sign(numbers) * np.log1p(np.abs(numbers)))


def vectors(inputs: Sequence[Input], x: Floats, spread: Spread) -> NDArray[np.float32]:
    """What the network sees of rows `x`, shape (rows, inputs): numbers, which are missing, and categories."""
    numbers, names = numbers_of(inputs), categories_of(inputs)
    given = bent(x[:, numbers])
    missing = np.isnan(given)
    scaled = np.where(missing, 0.0, (given - spread.mean) / spread.deviation).clip(-_FAR, _FAR)
    parts = [scaled, missing, *(x[:, [at]] == np.arange(count) for at, count in names)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def numbers_of(inputs: Sequence[Input]) -> list[int]:
    """Where the inputs are that are numbers."""
    return [at for at, item in enumerate(inputs) if item.dtype != "string"]


def categories_of(inputs: Sequence[Input]) -> list[tuple[int, int]]:
    """Where the inputs are that are strings, and of how many categories."""
    return [(at, len(item.categories or ())) for at, item in enumerate(inputs) if item.dtype == "string"]


def fit_network(
    rows: tuple[Rows, Rows],
    inputs: Sequence[Input],
    config: NetworkConfig,
    privacy: PrivacyConfig,
    seed: int,
    checkpoints: Path,
    progress: Progress,
    opponent: Opponent | None = None,
) -> Fit:
    """Train until the loss of the validation rows stops falling; for all epochs if privately or against an opponent.

    Raises:
        PlatformError: ``code="bad_data"``: strings without a list of categories.
    """
    from pipelines.training.device import import_torch, resolve_device

    torch, device = import_torch(), resolve_device(config.training.device)
    torch.set_num_threads(config.training.threads)
    torch.manual_seed(seed)
    if open_ended := [item.name for item in inputs if item.dtype == "string" and not item.categories]:
        raise PlatformError(
            f"a network needs the categories of {open_ended[0]!r}, which the task does not list",
            fix="give the column its categories in the task's columns, or train another recipe, with --recipe",
            code="bad_data",
            column=open_ended[0],
        )
    train = rows[0]
    paid = None
    if privacy.is_on:
        before = [Release(noise=_SPREAD_NOISE / float(privacy.epsilon or 1), share=1.0, steps=1)]
        loop = config.training
        paid = pay(privacy, len(train.y), loop.batch_size, loop.epochs, checkpoints, before)
    spread = _spread(train.x, inputs) if paid is None else _noisy_spread(train.x, inputs, paid, checkpoints)
    seen = [torch.from_numpy(vectors(inputs, one.x, spread)).to(device) for one in rows]
    labels = [torch.from_numpy(np.asarray(one.y, np.float32)).to(device) for one in rows]
    given = train.weight if train.weight is not None else np.ones(len(train.y))
    weight = torch.from_numpy(given.astype(np.float32)).to(device)
    model = _perceptron(seen[0].shape[1], config.hidden).to(device)
    _, steps = steps_of(len(train.y), config.training.batch_size)
    trained = model if opponent is None else opposed(model, opponent, 1, steps * config.training.epochs)
    history = _run(trained, seen, labels, weight, config, privacy, paid, seed, checkpoints, progress, device, opponent)
    with torch.no_grad():
        raw = model(seen[1])[:, 0].double().cpu().numpy()
    layers = [
        (one.weight.detach().double().cpu().numpy(), one.bias.detach().double().cpu().numpy())
        for one in model
        if hasattr(one, "weight")
    ]
    parameters = {"epochs_run": len(history), "weights": sum(one.numel() for one in model.parameters())}
    return Fit(
        layers=layers, spread=spread, raw=raw, history=history, parameters=parameters, device=device, privacy=paid
    )


def check_private(model: Any, cost: Any, weighs: bool, privacy: PrivacyConfig | None, rows: int) -> None:
    """Refuse what tells about rows beside the noisy gradients; `weighs`: whether a mitigation does.

    Raises:
        PlatformError: ``code="not_private"``.
    """
    if not isinstance(model, NetworkConfig):
        raise PlatformError(
            f"a {model.kind} cannot be trained privately",
            detail="differential privacy is built for recipes that train with torch",
            fix="train a network, with --recipe network",
            code="not_private",
        )
    check_settings(
        privacy or PrivacyConfig(),
        rows,
        {
            "mitigation.method": (weighs, "it weighs rows by how many there are of each group", "none"),
            "cost.rule": (cost.rule == "observed", "it takes the threshold from rows and pays nothing", "expected"),
            "cost.false_negative": (isinstance(cost.false_negative, str), "it takes the mean of a column", 5.0),
        },
    )


def form_of(inputs: Sequence[Input], found: Fit) -> NetworkForm:
    """What is written of a trained network."""
    return form_of_layers(inputs, found.layers, found.spread)


def form_of_layers(inputs: Sequence[Input], layers: Sequence[tuple[Floats, Floats]], spread: Spread) -> NetworkForm:
    """What is written of a network, wherever it was trained."""
    return NetworkForm(
        numbers=numbers_of(inputs),
        mean=spread.mean,
        deviation=spread.deviation,
        far=_FAR,
        categories=categories_of(inputs),
        layers=layers,
    )


def _perceptron(width: int, hidden: Sequence[int]) -> Any:
    from torch import nn

    layers: list[Any] = []
    for before, made in zip((width, *hidden), hidden, strict=False):
        layers += [nn.Linear(before, made), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


def _run(
    model: Any,
    seen: Sequence[Any],
    labels: Sequence[Any],
    weight: Any,
    config: NetworkConfig,
    privacy: PrivacyConfig,
    paid: Mapping[str, Any] | None,
    seed: int,
    checkpoints: Path,
    progress: Progress,
    device: str,
    opponent: Opponent | None,
) -> list[dict[str, float]]:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as entropy

    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.loop import eager, run_epochs

    training, rows = config.training, len(labels[0])
    share, steps = steps_of(rows, training.batch_size)

    def batches(epoch: int) -> Any:
        order = np.random.default_rng([seed, epoch]).permutation(rows)
        chosen = drawn(rows, share, steps) if paid else np.array_split(order, steps)
        for at in chosen:
            yield torch.from_numpy(np.asarray(at, np.int64)).to(device)

    guessed = against(opponent, device)

    def loss(current: Any, at: Any) -> Any:
        answers, extra = guessed(current, (seen[0][at],), labels[0][at], at)
        found = entropy(answers[:, 0], labels[0][at], weight=weight[at], reduction="sum")
        return found if paid else found / weight[at].sum().clamp(min=1e-9) + extra

    def evaluate(current: Any) -> dict[str, float]:
        with torch.no_grad():
            return {"valid_loss": float(entropy(current(seen[1])[:, 0], labels[1]))}

    optimizer: Any = eager(torch.optim.AdamW)(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    rows_seen = hashlib.sha256(b"".join(one.cpu().numpy().tobytes() for one in (*seen, *labels, weight)))
    faced = opponent.fingerprint() if opponent else ""
    decides = paid["id"] if paid else f"{config}|{seed}|{device}|{rows_seen.hexdigest()}{faced}"
    private = (privacy, paid) if paid else None
    with privately(model, optimizer, private, training.batch_size, "--recipe network") as steps_by:
        return run_epochs(
            model,
            steps_by,
            batches=batches,
            steps_per_epoch=steps,
            loss=loss,
            evaluate=evaluate,
            monitor=None if paid or opponent else "valid_loss",
            config=private_loop(training) if paid else training,
            seed=seed,
            checkpoint=Checkpoint(checkpoints / "network.pt", decides),
            progress=progress,
        )


def _spread(x: Floats, inputs: Sequence[Input]) -> Spread:
    given = bent(x[:, numbers_of(inputs)])
    mean, deviation = (np.nan_to_num(found(given, axis=0)) for found in (np.nanmean, np.nanstd))
    return Spread(mean=mean, deviation=np.where(deviation > 0, deviation, 1.0), counts={})


def _noisy_spread(x: Floats, inputs: Sequence[Input], paid: Mapping[str, Any], checkpoints: Path) -> Spread:
    """From a histogram of every input; one row is in one bin of each, so it changes the root of their number.

    It is drawn once: a training that goes on reads what it drew.
    """
    file = checkpoints / "spread.json"
    if not file.exists():
        rng = np.random.default_rng(secrets.randbits(128))
        deviations = paid["releases"][0]["noise"] * np.sqrt(len(inputs))
        found = {}
        for at, item in enumerate(inputs):
            counts = _counted(x[:, at], item)
            found[item.name] = (counts + rng.normal(0, deviations, len(counts))).tolist()
        write_json(file, {"counts": found, "deviation": float(deviations)})
    kept = json.loads(file.read_text())
    histograms = {name: np.asarray(values) for name, values in kept["counts"].items()}
    middles = np.arange(-_REACH, _REACH, _BIN) + _BIN / 2
    mean, deviation = [], []
    for at in numbers_of(inputs):
        # What noise alone may have made is nothing.
        some = np.where(histograms[inputs[at].name][:-1] > 3 * kept["deviation"], histograms[inputs[at].name][:-1], 0.0)
        total = some.sum()
        middle = float(some @ middles / total) if total else 0.0
        mean.append(middle)
        deviation.append(float(np.sqrt(some @ (middles - middle) ** 2 / total + _BIN**2 / 12)) if total else 1.0)
    return Spread(mean=np.array(mean), deviation=np.array(deviation), counts=histograms)


def _counted(values: Floats, item: Input) -> Floats:
    """Rows in each bin, or of each category, and last without a value, or of another."""
    if item.dtype == "string":
        size = len(item.categories or ())
        codes = np.where(np.isnan(values), size, values).astype(np.int64)
    else:
        size = round(2 * _REACH / _BIN)
        places = np.floor((bent(values).clip(-_REACH, _REACH - 1e-9) + _REACH) / _BIN)
        codes = np.where(np.isnan(values), size, places).astype(np.int64)
    return np.bincount(codes, minlength=size + 1).astype(np.float64)
