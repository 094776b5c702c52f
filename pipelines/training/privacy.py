"""Differential privacy: what is asked, how much noise that takes, what several trainings cost together, who pays.

A model is (epsilon, delta)-private in its training rows when no single row changes the chance of any outcome by more
than the factor exp(epsilon), but for delta (C. Dwork, A. Roth: The algorithmic foundations of differential privacy,
2014). Costs are kept as what was done, (noise multiplier, share of the rows that a step draws, steps), and added up by
Opacus' accountant of privacy loss random variables (S. Gopi et al.: Numerical composition of differential privacy,
2021): that is less than the sum of the epsilons, never below what is true, and above it by the share `_ERROR` at most.
"""

from __future__ import annotations

import json
import secrets
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass as plain
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.privacy_ledger import Charge, PrivacyLedger, Release
from pipelines.io.files import write_json
from pipelines.settings import setting
from pipelines.task import STRICT, PrivacyBudget
from pipelines.training.device import import_torch
from pipelines.training.ghost_clipping import GhostLayers, ghost_optimizer, is_linear

_ERROR = 0.004  # share of epsilon by which the accountant's answer may be above the true one
_FAR = 20.0  # an epsilon beyond which the error grows no more
_TRIES = 12  # of a noise multiplier
_CLOSE = 0.99  # share of the epsilon that is asked for that a noise multiplier must use up
_FEWER = 0.85
_MOST = 4096.0  # of a noise multiplier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrivacyConfig:
    """Differential privacy of the training rows.

    epsilon: what a model may cost, at most 50, where nothing is promised any more; None for one that is not private.
    delta: the chance that the promise does not hold; below one in the number of rows.  clip: the largest norm of the
    gradient of one row, what is above is cut; where it is small, classes with few rows are said too seldom.
    """

    epsilon: Annotated[float, Field(gt=0, le=50)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @property
    def is_on(self) -> bool:
        """Whether a model is to be private."""
        return self.epsilon is not None


@plain(frozen=True, kw_only=True)
class Account:
    """Who pays for trainings: a data set in a ledger, and how much of it a model may have used up with all before."""

    ledger: PrivacyLedger
    data_version: str
    task: str
    recipe: str
    budget: PrivacyBudget


_paying: ContextVar[Account | None] = ContextVar("privacy account", default=None)
_free: ContextVar[bool] = ContextVar("privacy of public rows", default=False)


@contextmanager
def paid_by(account: Account | None) -> Iterator[None]:
    """Charge private trainings to `account` meanwhile."""
    token = _paying.set(account)
    try:
        yield
    finally:
        _paying.reset(token)


@contextmanager
def of_public_rows() -> Iterator[None]:
    """Let private trainings cost nothing meanwhile: everybody knows the rows, as those of a bench."""
    token = _free.set(True)
    try:
        yield
    finally:
        _free.reset(token)


def account_of(ledger: str, dataset: dict[str, Any], task: str, recipe: str, budget: PrivacyBudget) -> Account:
    """The account of a data set; `ledger` is JSON of `Endpoints`, `dataset` is ``dataset.json``.

    Raises:
        PlatformError: ``code="no_ledger"``: the run knows no registry, or the data set is of no version.
    """
    version = dataset.get("data_version")
    if not ledger or not version:
        raise PlatformError(
            "a private training needs a ledger to be charged to",
            detail="the run names no registry" if not ledger else "dataset.json does not name the data's version",
            fix="start a new run: fairlead run " + task,
            code="no_ledger",
        )
    where = Endpoints.model_validate_json(ledger)
    return Account(ledger=PrivacyLedger(where), data_version=version, task=task, recipe=recipe, budget=budget)


def spent(releases: Sequence[Release], delta: float) -> float:
    """The epsilon of all `releases` together, at `delta`.

    Raises:
        PlatformError: ``code="missing_package"`` without Opacus.
    """
    return _spent(_history(releases), delta) if releases else 0.0


@lru_cache(maxsize=256)
def _spent(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """It takes a second, and a training asks again for what its search for a noise multiplier has asked."""
    rough = _roughly(history, delta)
    accountant = _opacus().accountants.PRVAccountant()
    accountant.history = list(history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a logarithm of 0, where the accountant means it
        return float(accountant.get_epsilon(delta, eps_error=_ERROR * min(rough, _FAR)))


@lru_cache(maxsize=256)
def _roughly(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """More than the epsilon, by an accountant that is fast (I. Mironov: Renyi differential privacy, 2017)."""
    accountant = _opacus().accountants.RDPAccountant()
    accountant.history = list(history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the best order is the largest, so it says too much, as it may
        return float(accountant.get_epsilon(delta))


def _history(releases: Sequence[Release]) -> tuple[tuple[float, float, int], ...]:
    """As Opacus has it; equal releases are one of more steps, which is counted faster."""
    together = Counter[tuple[float, float]]()
    for one in releases:
        together[one.noise, one.share] += one.steps
    return tuple((noise, share, steps) for (noise, share), steps in together.items())


def noise_for(config: PrivacyConfig, share: float, steps: int, before: Sequence[Release] = ()) -> float:
    """The least noise multiplier, nearly, with which `steps` and what was released `before` cost at most the epsilon.

    Raises:
        PlatformError: ``code="bad_config"``: what was released before costs as much already.
    """
    wanted = float(config.epsilon or 0)

    def cost(noise: float) -> float:
        return spent([*before, Release(noise=noise, share=share, steps=steps)], config.delta)

    high = _enough(config, share, steps, before)
    low = _FEWER * high
    while (found := cost(low)) <= wanted:
        if found >= _CLOSE * wanted:
            return low
        low, high = _FEWER * low, low
    for _ in range(_TRIES):
        middle = (low + high) / 2
        found = cost(middle)
        if _CLOSE * wanted <= found <= wanted:
            return middle
        low, high = (middle, high) if found > wanted else (low, middle)
    return high


def _enough(config: PrivacyConfig, share: float, steps: int, before: Sequence[Release]) -> float:
    """A noise multiplier that is more than needed."""
    wanted = float(config.epsilon or 0)

    def cost(noise: float) -> float:
        return _roughly(_history([*before, Release(noise=noise, share=share, steps=steps)]), config.delta)

    low, high = 0.0, 1.0
    while cost(high) > wanted:
        low, high = high, high * 2
        if high > _MOST:
            raise PlatformError(
                f"privacy.epsilon={wanted:g} cannot be reached",
                detail=f"{steps} steps, each with {share:.2%} of the rows, delta {config.delta:g}",
                fix=f"allow more, or train for fewer epochs: {setting('privacy.epsilon', 2 * wanted)}",
                code="bad_config",
            )
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) > wanted else (low, middle)
    return high


def charge(config: PrivacyConfig, releases: Sequence[Release], rows: int, checkpoints: Path) -> dict[str, Any]:
    """Pay for `releases` before they are made; what a model and its card say of it.

    A training that goes on from `checkpoints` was paid for when it began.

    Raises:
        PlatformError: ``code="no_ledger"``: nobody pays, as in a plan, whose trainings would tell of rows too.
        PlatformError: ``code="privacy_budget"``: the data set's budget does not allow it; nothing is charged then.
    """
    file, account = checkpoints / "privacy.json", _paying.get()
    if file.exists():
        known: dict[str, Any] = json.loads(file.read_text())
        return known
    if account is None and not _free.get():
        raise PlatformError(
            "a private training needs a ledger to be charged to",
            detail="it is not the training of a run",
            fix="train by fairlead run; plan without privacy.epsilon, which takes about as much memory and less time",
            code="no_ledger",
        )
    step = releases[-1]
    told: dict[str, Any] = {
        "id": secrets.token_hex(8),
        "epsilon": spent(releases, config.delta),
        "asked": config.epsilon,
        "delta": config.delta,
        "clip": config.clip,
        "noise_multiplier": step.noise,
        "sample_rate": step.share,
        "steps": step.steps,
        "rows": rows,
        "releases": [one.as_dict() for one in releases],
        "accountant": f"PRV, Opacus {_opacus().__version__}",
        "charge": "",
        "data_version": "",
    }
    if account is not None:
        made = Charge(
            data_version=account.data_version,
            task=account.task,
            recipe=account.recipe,
            delta=config.delta,
            epsilon=told["epsilon"],
            releases=tuple(releases),
        )
        paid = account.ledger.charge(made)
        if refusal := over_budget(account, paid):
            account.ledger.give_back(paid)
            raise refusal
        told |= {"charge": paid.id, "data_version": paid.data_version}
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_json(file, told)
    return told


def over_budget(account: Account, paid: Charge) -> PlatformError | None:
    """Why the data set cannot pay for the newest charge."""
    limit = account.budget.epsilon
    charges = account.ledger.charges(paid.data_version)
    before = [release for one in charges if one.id != paid.id for release in one.releases]
    total = spent([*before, *paid.releases], account.budget.delta)
    if limit is None or total <= limit:
        return None
    used = spent(before, account.budget.delta)
    return PlatformError(
        f"the privacy budget of data version {paid.data_version} does not allow this training",
        detail=f"{len(charges) - 1} trainings have cost epsilon {used:.3g}, with this one it were {total:.3g}; "
        f"the budget is {limit:g}, at delta {account.budget.delta:g}",
        fix=f"ask for less: {setting('privacy.epsilon', round(paid.epsilon / 2, 3))}; see: fairlead privacy",
        code="privacy_budget",
        data_version=paid.data_version,
    )


def check_settings(config: PrivacyConfig, rows: int, refused: dict[str, tuple[bool, str, Any]]) -> None:
    """Refuse what would tell about rows beside the gradients.

    Args:
        refused: setting -> (whether it is wrong, why, a value that is right).

    Raises:
        PlatformError: ``code="not_private"``, with the setting that mends it.
    """
    wanted = {
        "privacy.delta": (
            config.delta >= 1 / max(rows, 1),
            f"it must be below one in the number of training rows, which are {rows}",
            float(f"{0.1 / max(rows, 1):.0e}"),
        ),
        **refused,
    }
    for key, (wrong, why, value) in wanted.items():
        if wrong:
            raise PlatformError(
                f"a private model cannot be trained with this {key}", detail=why, fix=setting(key, value),
                code="not_private",
            )  # fmt: skip


def pay(
    config: PrivacyConfig, rows: int, batch: int, epochs: int, checkpoints: Path, before: Sequence[Release] = ()
) -> dict[str, Any]:
    """`charge` for a loop over batches of `batch` rows in the mean, and for what is released `before`."""
    share, steps = steps_of(rows, batch)
    noise = noise_for(config, share, steps * epochs, before)
    return charge(config, [*before, Release(noise=noise, share=share, steps=steps * epochs)], rows, checkpoints)


@contextmanager
def as_private(
    model: Any, optimizer: Any, config: PrivacyConfig, told: Mapping[str, Any], batch: int, fix: str
) -> Iterator[Any]:
    """The optimizer that cuts the gradient of every row of `model`, adds noise to their sum, and steps.

    The loss must be the sum over the rows of a batch, of which there are `batch` in the mean. `told` is of `charge`.
    The operating system's randomness seeds the generator of the noise, so that nobody can subtract it; the generator
    itself is none for cryptography.

    Raises:
        PlatformError: ``code="not_private"``: a layer of `model` mixes rows, such as batch norm; `fix` says what to do.
    """
    opacus, torch = _opacus(), import_torch()
    if faults := opacus.validators.ModuleValidator.validate(model, strict=False):
        raise PlatformError(
            "this network cannot be trained privately", detail=str(faults[0]), fix=fix, code="not_private"
        )
    generator = torch.Generator(device=next(model.parameters()).device)
    generator.manual_seed(secrets.randbits(63))
    settings = {
        "noise_multiplier": told["noise_multiplier"],
        "max_grad_norm": config.clip,
        "expected_batch_size": batch,
        "loss_reduction": "mean",
        "generator": generator,
    }
    made = opacus.optimizers.DPOptimizer
    if is_linear(model):
        ghosts = GhostLayers(model)
        yield ghost_optimizer(made, ghosts, optimizer, **settings)
        ghosts.remove()
        return
    by_row = opacus.GradSampleModule(model, loss_reduction="sum")  # hooks of the model's own layers
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook")  # of a first layer, whose inputs learn nothing
        yield made(optimizer, **settings)
    by_row.to_standard_module()


@contextmanager
def privately(
    model: Any, optimizer: Any, private: tuple[PrivacyConfig, Mapping[str, Any]] | None, batch: int, fix: str
) -> Iterator[Any]:
    """`as_private` where that was paid for, else the optimizer itself."""
    if private is None:
        yield optimizer
        return
    with as_private(model, optimizer, *private, batch, fix) as steps_by:
        yield steps_by


def drawn(rows: int, share: float, steps: int) -> Iterator[Any]:
    """Batches of row numbers: every row is in each by chance, by itself (Poisson); a batch may be empty.

    Which rows they are is nobody's to know, and is drawn from the operating system's randomness.
    """
    import numpy as np

    rng = np.random.default_rng(secrets.randbits(128))
    for _ in range(steps):
        yield np.flatnonzero(rng.random(rows) < share)


def steps_of(rows: int, batch: int) -> tuple[float, int]:
    """The share of the rows that a step draws, and the steps of an epoch."""
    share = min(1.0, batch / rows)
    return share, max(1, round(1 / share))


def private_loop(training: Any) -> Any:
    """The same settings of a loop without what reads rows beside the gradients: it does not stop early, and classes
    weigh the same."""
    return replace(training, class_weights=False, patience=training.epochs + 1)


def _opacus() -> Any:
    import_torch()
    try:
        import opacus
        import opacus.accountants
        import opacus.validators
    except ImportError as err:
        raise PlatformError(
            "private models need Opacus, which is not installed",
            fix="pip install 'fairlead[torch]'",
            code="missing_package",
        ) from err
    return opacus
