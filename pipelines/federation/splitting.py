"""How the rows of a simulation are shared out among sites."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError
from pipelines.settings import setting

if TYPE_CHECKING:
    import pandas as pd

_RULES = ("iid", "dirichlet")
_TRIES = 100


def shared_out(frame: pd.DataFrame, sites: int, split: str, alpha: float, seed: int) -> list[NDArray[np.int64]]:
    """The places in `frame` of each site's rows; every row is at one site, and every site has some.

    A column keeps rows with the same value together: values go to the site with the fewest rows, the commonest first.

    Raises:
        PlatformError: ``code="bad_config"``: no such column, or too few rows or values.
    """
    rng = np.random.default_rng([seed, sites])
    if len(frame) < sites:
        raise _too_few(f"{len(frame)} training rows", sites, len(frame))
    if split == "iid":
        return [np.sort(part) for part in np.array_split(rng.permutation(len(frame)), sites)]
    if split == "dirichlet":
        return _by_dirichlet(frame["label"].to_numpy(), sites, alpha, rng)
    if split not in frame.columns:
        known = [str(name) for name in frame.columns if name not in ("id", "row_key")]
        raise PlatformError(
            f"the training rows have no column {split!r} to be split by",
            detail=f"columns: {', '.join(known)}; or {' or '.join(_RULES)}",
            fix="--split-by " + known[0],
            code="bad_config",
            column=split,
        )
    return _by_value(frame[split], sites)


def _by_value(column: pd.Series, sites: int) -> list[NDArray[np.int64]]:
    values = column.astype(str)
    counts = values.value_counts()
    if len(counts) < sites:
        raise _too_few(f"{len(counts)} values in column {column.name!r}", sites, len(counts))
    load, home = [0] * sites, {}
    for value, count in sorted(counts.items(), key=lambda one: (-one[1], str(one[0]))):
        home[value] = at = int(np.argmin(load))
        load[at] += int(count)
    placed = values.map(home).to_numpy()
    return [np.flatnonzero(placed == at) for at in range(sites)]


def _by_dirichlet(
    labels: NDArray[np.object_], sites: int, alpha: float, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """T.-M. Hsu et al. 2019: the share that a site has of each label is drawn."""
    names = np.unique(labels.astype(str))
    for _ in range(_TRIES):
        parts: list[list[int]] = [[] for _ in range(sites)]
        for name in names:
            rows = rng.permutation(np.flatnonzero(labels.astype(str) == name))
            ends = (np.cumsum(rng.dirichlet(np.full(sites, alpha)))[:-1] * len(rows)).astype(int)
            for part, given in zip(parts, np.split(rows, ends), strict=True):
                part.extend(given.tolist())
        if min(map(len, parts)):
            return [np.sort(np.asarray(part, dtype=np.int64)) for part in parts]
    raise PlatformError(
        f"with alpha {alpha:g}, some of {sites} sites get no row",
        detail=f"{len(labels)} rows, drawn {_TRIES} times",
        fix=f"split less unevenly: {setting('federation.alpha', 10 * alpha)}",
        code="bad_config",
    )


def _too_few(what: str, sites: int, most: int) -> PlatformError:
    return PlatformError(
        f"{sites} sites cannot share {what}",
        detail="every site needs one at least",
        fix=f"--clients {most}, or --split-by iid",
        code="bad_config",
    )
