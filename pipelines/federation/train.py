"""Training by sites in place of one that has all rows; what comes of it is a model like any other.

The coordinator keeps the validation and the test rows of its own data: they decide about calibration, threshold and
gate. Its training rows are shared out among the sites of a simulation, and are not used when partners' sites train.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.ports import free_port
from contracts.privacy_ledger import Release
from pipelines.federation.certificates import AUTHORITY, make_certificates
from pipelines.federation.coordinator import Coordinator, Member
from pipelines.federation.engine import Hub
from pipelines.federation.learner import Local, Valid, measured
from pipelines.federation.local_sites import LocalSites
from pipelines.federation.models import Model
from pipelines.federation.settings import FederationConfig
from pipelines.federation.splitting import shared_out
from pipelines.io.files import write_json
from pipelines.settings import setting
from pipelines.task import Progress
from pipelines.training.network import Spread
from pipelines.training.privacy import charge, check_settings, noise_for
from pipelines.training.tabular import CostConfig, row_costs

if TYPE_CHECKING:
    from pipelines.task import Task

Floats = NDArray[np.float64]
_KEPT = "federation.npz"
_ARRAYS = ("weights", "velocity", "average", "mean", "deviation")  # of a `_State`
_AVERAGED = 0.8  # at most, of the running mean that each of the last rounds leaves of what was before
_LINEAR = Local(epochs=1, batch_size=512, learning_rate=0.02, decay=0.0, clip=1.0, proximal=0.0)


@dataclass(kw_only=True)
class _State:
    """Where a training is after a round: what goes on from here goes on as if nothing had been."""

    weights: Floats
    velocity: Floats
    average: Floats
    round: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    mean: Floats = field(default_factory=lambda: np.zeros(0))
    deviation: Floats = field(default_factory=lambda: np.zeros(0))

    def spread(self) -> Spread:
        return Spread(mean=self.mean, deviation=self.deviation, counts={})


def train_federated(
    recipe: Any,
    task: Task,
    classes: Sequence[str],
    dataset: Path,
    out: Path,
    checkpoints: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train by the sites of ``recipe.federation``; the result is TaskConfig.train's, and ``federation`` for the card.

    Args:
        recipe: with the sections model and federation, and maybe cost, mitigation, privacy and training; its method
            ``federated`` gives what sites train together.

    Raises:
        PlatformError: ``code="no_sites"``, ``code="quorum"``; ``code="bad_config"``, what cannot be federated.
    """
    config, inputs = recipe.federation, task.inputs(recipe)
    model: Model = recipe.federated(task, classes)
    if recipe.mitigates:
        raise PlatformError(
            "a mitigation needs the groups of all rows in one place",
            detail=f"mitigation.method is {recipe.mitigation.method}",
            fix=setting("mitigation.method", "none"),
            code="bad_config",
        )
    private = _paid(recipe, checkpoints) if recipe.is_private else None
    valid = _valid_rows(recipe, task, model, classes, dataset)
    told = {
        "task": task.name,
        "model": model.told(),
        "secure": config.secure,
        "privacy": _told(config, private) if private else None,
    }
    imports = (*model.imports, "opacus") if private else model.imports
    with _sites(config, recipe.seed, inputs, classes, dataset, checkpoints, imports) as (hub, alive):
        leader = Coordinator(hub, config, told, alive)
        try:
            leader.admit([one.model_dump() for one in inputs], list(classes))
            state = _resumed(checkpoints, leader, model, recipe, private, valid)
            _rounds(state, leader, model, recipe, valid, checkpoints, progress)
            out.mkdir(parents=True, exist_ok=True)
            found = model.finish(state.average, state.spread(), recipe, valid, bool(private), out)
            arrays = {"weights": state.average, "mean": state.mean, "deviation": state.deviation}
            leader.finish({**arrays, "model": np.frombuffer((out / "model.onnx").read_bytes(), np.uint8)})
        except PlatformError:
            leader.end()
            raise
    (checkpoints / _KEPT).unlink(missing_ok=True)
    return {
        **found,
        "engine": "onnx",
        "output": {"problem": "classification", "classes": list(classes)},
        "history": state.history,
        "parameters": {**_parameters(recipe, state, model.count), **found["parameters"]},
        "device": "cpu",
        "federation": _document(config, leader.members, state, bool(private)),
        **({"privacy": private} if private else {}),
    }


def _rounds(
    state: _State,
    leader: Coordinator,
    model: Model,
    recipe: Any,
    valid: Valid,
    checkpoints: Path,
    progress: Progress,
) -> None:
    config, seen = recipe.federation, model.features(valid.x, state.spread())
    how = asdict(_local(recipe))

    def quality(weights: Floats) -> dict[str, float]:
        return measured(model.scores(weights, seen), valid.y)

    while state.round < config.rounds:
        number = state.round + 1
        arrays = {"weights": state.weights, "mean": state.mean, "deviation": state.deviation}
        start = state.weights

        def loss(step: Floats, at: Floats = start) -> float:
            return quality(at + step)["loss"]

        added, sites = leader.learn(number, arrays, {"how": how, "seed": recipe.seed}, loss)
        state.velocity = config.momentum * state.velocity + added
        state.weights = state.weights + state.velocity
        state.average = averaged(state.average, state.weights, number - config.rounds // 2)
        found = {f"valid_{name}": value for name, value in quality(state.average).items()}
        state.history.append({"round": float(number), **found, "sites": float(sites)})
        state.round = number
        _keep(checkpoints, state, leader.members)
        progress(number, config.rounds, **found, sites=sites)


def averaged(mean: Floats, weights: Floats, late: int) -> Floats:
    """The running mean of the weights, with those of one more round.

    Of the first `late` rounds, from 1 on, it is the plain mean, so that a training of few rounds soon forgets how it
    began; before them, from 0 down, it is the weights themselves.
    """
    kept = min(_AVERAGED, 1 - 1 / late) if late > 0 else 0.0
    return kept * mean + (1 - kept) * weights


def _local(recipe: Any) -> Local:
    config = recipe.federation
    how, loop = _LINEAR, getattr(recipe, "training", getattr(recipe.model, "training", None))
    if loop is not None:
        names = {"batch_size": "batch_size", "learning_rate": "learning_rate", "weight_decay": "decay", "clip": "clip"}
        told = {ours: getattr(loop, theirs) for theirs, ours in names.items()}
        how = replace(how, **told, momentum=getattr(loop, "momentum", None))
    return replace(how, epochs=config.local_epochs, proximal=config.proximal)


def _paid(recipe: Any, checkpoints: Path) -> dict[str, Any]:
    """Pay for the rounds: for every step that a row may be in, or for every sum of updates.

    Of those, one row, or all rows of one site, change the sum by twice the clip at most, which is what noise is of.
    """
    config, privacy = recipe.federation, recipe.privacy
    rows = config.unit == "row"
    check_settings(
        privacy,
        1,
        {
            "federation.rule": (not rows and config.rule != "mean", "noise counts on the sum of all sites", "mean"),
            **_from_rows(getattr(recipe, "cost", None)),
        },
    )  # fmt: skip
    share, steps = (config.drawn, config.rounds * _steps(config)) if rows else (1.0, config.rounds)
    noise = noise_for(privacy, share, steps)
    return charge(privacy, [Release(noise=noise, share=share, steps=steps)], len(config.names), checkpoints)


def _from_rows(cost: CostConfig | None) -> dict[str, tuple[bool, str, Any]]:
    """What a table's costs would take from rows and pay nothing for."""
    if cost is None:
        return {}
    return {
        "cost.rule": (cost.rule == "observed", "it takes the threshold from rows", "expected"),
        "cost.false_negative": (isinstance(cost.false_negative, str), "it takes the mean of a column", 5.0),
    }


def _steps(config: FederationConfig) -> int:
    """Of a site in a round."""
    return config.local_epochs * max(1, round(1 / config.drawn))


def _told(config: FederationConfig, private: Mapping[str, Any]) -> dict[str, Any]:
    """What sites are told of the noise that they are to add."""
    return {
        "unit": config.unit,
        "clip": private["clip"],
        "noise": private["noise_multiplier"],
        "epsilon": private["epsilon"],
        "least": config.least,
        "drawn": config.drawn,
        "steps": _steps(config),
    }


def _valid_rows(recipe: Any, task: Task, model: Model, classes: Sequence[str], dataset: Path) -> Valid:
    import pandas as pd

    frame = pd.read_parquet(dataset / "valid.parquet")
    index = {name: at for at, name in enumerate(classes)}
    cost = getattr(recipe, "cost", None)
    return Valid(
        x=model.read(frame),
        y=np.asarray(frame["label"].map(index), dtype=np.int64),
        losses=row_costs(cost, frame) if cost is not None else np.ones(len(frame)),
        task=task,
        frame=frame,
    )


@contextmanager
def _sites(
    config: FederationConfig,
    seed: int,
    inputs: Sequence[Input],
    classes: Sequence[str],
    dataset: Path,
    checkpoints: Path,
    imports: Sequence[str],
) -> Iterator[tuple[Hub, Callable[[], None]]]:
    """The coordinator's end, and what raises when the simulated sites have died."""
    if config.sites:
        with Hub(config.listen, Path(config.certificates), config.sites) as hub:
            yield hub, lambda: None
        return
    folder = checkpoints / "sites"
    shutil.rmtree(folder, ignore_errors=True)
    _share_out(config, seed, inputs, classes, dataset, folder)
    make_certificates(folder / "certificates", config.names, ["localhost"], days=30)
    for name in config.names:
        (folder / name / "keys").mkdir(mode=0o700)
        for file in (AUTHORITY, f"{name}.crt", f"{name}.key"):
            shutil.copy(folder / "certificates" / file, folder / name / "keys" / file)
    server = f"localhost:{free_port()}"
    with (
        Hub(server, folder / "certificates", config.names) as hub,
        LocalSites(folder, config.names, server, config.faults, imports) as sites,
    ):
        yield hub, sites.check


def _share_out(
    config: FederationConfig, seed: int, inputs: Sequence[Input], classes: Sequence[str], dataset: Path, folder: Path
) -> None:
    """Files of rows for every simulated site; what is learned from and what a site judges by are split alike."""
    import pandas as pd

    frames = {name: pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid")}
    whole = pd.concat(list(frames.values()), ignore_index=True)
    parts = shared_out(whole, config.clients, config.split, config.alpha, seed)
    learns = len(frames["train"])
    for name, rows in zip(config.names, parts, strict=True):
        (folder / name).mkdir(parents=True)
        whole.iloc[rows[rows < learns]].to_parquet(folder / name / "train.parquet")
        whole.iloc[rows[rows >= learns]].to_parquet(folder / name / "valid.parquet")
        known = {"inputs": [one.model_dump() for one in inputs], "classes": list(classes)}
        write_json(folder / name / "site.json", known)


def _resumed(
    checkpoints: Path,
    leader: Coordinator,
    model: Model,
    recipe: Any,
    private: Mapping[str, Any] | None,
    valid: Valid,
) -> _State:
    """What an earlier process of this training has kept, or the beginning."""
    file = checkpoints / _KEPT
    if file.exists():
        with np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in _ARRAYS}
            document = json.loads(kept["document"].tobytes())
        for name, member in document["members"].items():
            refused = leader.members[name].refused
            leader.members[name] = Member(**{**member, "refused": member["refused"] or refused})
        return _State(**arrays, round=document["round"], history=document["history"])
    # How the coordinator's rows lie costs nothing of the sites' privacy.
    width = len(model.sums(valid.x))
    spread = model.agree(model.sums(valid.x) if private or not width else leader.sums(width))
    first = model.first(recipe.seed)
    return _State(
        weights=first, velocity=np.zeros_like(first), average=first, mean=spread.mean, deviation=spread.deviation
    )


def _keep(checkpoints: Path, state: _State, members: Mapping[str, Member]) -> None:
    told = {name: asdict(member) for name, member in members.items()}
    document = json.dumps({"members": told, "round": state.round, "history": state.history})
    file, arrays = checkpoints / _KEPT, {name: getattr(state, name) for name in _ARRAYS}
    part = file.with_name(f".{file.name}")
    np.savez(part, document=np.frombuffer(document.encode(), np.uint8), **arrays)
    os.replace(part, file)


def _parameters(recipe: Any, state: _State, weights: int) -> dict[str, Any]:
    config = recipe.federation
    names = ("rule", "rounds", "local_epochs", "proximal", "momentum", "secure", "split")
    told = {f"federation.{name}": getattr(config, name) for name in names}
    return {**told, "federation.sites": len(config.names), "weights": weights, "rounds_run": state.round}


def _document(config: FederationConfig, members: Mapping[str, Member], state: _State, private: bool) -> dict[str, Any]:
    """What the card says of the sites."""
    return {
        "rule": config.rule,
        "secure": config.secure,
        "private": private,
        "simulated": bool(config.clients),
        "split": config.split if config.clients else "",
        "rounds": state.round,
        "faults": dict(config.faults),
        "sites": [asdict(member) for member in members.values()],
    }
