"""A simulator of credit applications whose outcome is known.

What it models:

- Income depends on skill, age and, by `disparity`, on sex and origin; a short history of credit is commoner among those
  who came from elsewhere. Neither sex nor origin nor age has a part in the outcome but by these.
- Debts, late payments and the state of the accounts follow from a habit that no column tells.
- `shift` is an economic downturn: incomes fall, debts grow, and the same application defaults more often.

Every chunk has a random stream of its own (Philox keyed by seed and chunk), so that the same seed gives the same
applications, and more rows leave the first ones as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.tasks.credit.columns import columns
from pipelines.tasks.credit.config import SimulatorConfig

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 2_000
_TERMS = np.array([6, 12, 18, 24, 36, 48, 60])
_PURPOSES = ("car", "furniture", "education", "business", "repairs", "other")
_TYPICAL = np.array([9_000.0, 2_500.0, 4_000.0, 12_000.0, 3_000.0, 2_000.0])  # amount by purpose

Floats = NDArray[np.float64]


def simulate(config: SimulatorConfig, seed: int) -> Iterator[pa.Table]:
    """Yield applications, some to a table, with all columns of the task; those of other layouts are missing."""
    import pyarrow as pa

    kinds = {"string": pa.string(), "float64": pa.float64()}
    for number, start in enumerate(range(0, config.applications, _CHUNK)):
        rows = _chunk(config, np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64))))
        rows["application_id"] = np.char.add("A", np.char.zfill(np.arange(start, start + _CHUNK).astype("U7"), 7))
        count = min(_CHUNK, config.applications - start)
        arrays = {}
        for column in columns():
            values = rows.get(column.name)
            kind = kinds[column.dtype]
            made = pa.nulls(_CHUNK, kind) if values is None else pa.array(values, type=kind, from_pandas=True)
            arrays[column.name] = made.slice(0, count)
        yield pa.table(arrays)


def _chunk(config: SimulatorConfig, rng: np.random.Generator) -> dict[str, Any]:
    skill, habit, luck = rng.normal(size=(3, _CHUNK))
    female, foreign = rng.random(_CHUNK) < 0.47, rng.random(_CHUNK) < 0.2
    age = np.clip(rng.gamma(2.2, 10.0, _CHUNK) + 18, 18, 85).astype(int)
    rows = _means(config, rng, skill, habit, age, female, foreign) | _wish(rng)
    rows["payment_share"] = np.round(
        rows["amount"] * (1 + 0.004 * rows["term_months"]) / rows["term_months"] / rows["income"], 3
    )
    default = _log_odds(rows, habit, luck) + 0.7 * config.shift > rng.logistic(size=_CHUNK)
    rows["outcome"] = np.where(default, "default", "repaid")
    rows["sex"], rows["origin"] = np.where(female, "female", "male"), np.where(foreign, "foreign", "domestic")
    rows["age"] = age.astype(np.float64)
    for name, share in (("income", 0.03), ("employment_years", 0.02)):  # what is not told
        rows[name] = np.where(rng.random(_CHUNK) < share, np.nan, rows[name])
    return rows


def _means(
    config: SimulatorConfig,
    rng: np.random.Generator,
    skill: Floats,
    habit: Floats,
    age: NDArray[np.int64],
    female: NDArray[np.bool_],
    foreign: NDArray[np.bool_],
) -> dict[str, Any]:
    """What an applicant has: income, history, debts, accounts."""
    grown = np.minimum(age - 18, 30) / 30
    less = config.disparity * (0.10 * female + 0.18 * foreign) + 0.15 * config.shift
    income = np.exp(np.log(1_900) + 0.35 * skill + 0.45 * grown - less + rng.normal(0, 0.2, _CHUNK))
    years = (age - 18) * rng.beta(1.5, 2.5, _CHUNK)
    credit_years = (age - 18) * rng.beta(1.2, 2.0, _CHUNK) * np.where(foreign, 1 - 0.4 * config.disparity, 1.0)
    debts = income * np.exp(rng.normal(0.2, 0.9, _CHUNK) + 0.4 * habit) * (1 + 0.3 * config.shift)
    account = 0.6 * skill - 0.7 * habit + rng.normal(0, 0.8, _CHUNK)
    saved = 0.7 * skill - 0.5 * habit + 0.8 * grown + rng.normal(0, 0.8, _CHUNK)
    housing = np.where(
        rng.random(_CHUNK) < 0.25 + 0.45 * grown, "own", np.where(rng.random(_CHUNK) < 0.85, "rent", "free")
    )
    return {
        "income": np.round(income, -1),
        "debts": np.where(rng.random(_CHUNK) < 0.3, 0.0, np.round(debts, -1)),
        "late_payments": rng.poisson(np.exp(-1.3 + 0.8 * habit)).clip(0, 12).astype(np.float64),
        "credit_years": np.round(credit_years, 1),
        "existing_credits": rng.poisson(0.8, _CHUNK).clip(0, 6).astype(np.float64),
        "employment_years": np.round(years, 1),
        "checking": np.select([account < -1.0, account < 0.0, account < 1.0], ["negative", "none", "low"], "high"),
        "savings": np.select([saved < -0.3, saved < 0.5, saved < 1.4], ["none", "low", "medium"], "high"),
        "housing": housing,
    }


def _wish(rng: np.random.Generator) -> dict[str, Any]:
    """What an applicant asks for."""
    purpose = rng.choice(len(_PURPOSES), _CHUNK, p=[0.3, 0.25, 0.1, 0.08, 0.12, 0.15])
    amount = np.round(_TYPICAL[purpose] * np.exp(rng.normal(0, 0.5, _CHUNK)), -1).clip(200)
    longer = np.clip(np.log(amount / 1_500) * 1.3 + rng.normal(2.2, 1.2, _CHUNK), 0, len(_TERMS) - 1)
    return {
        "purpose": np.array(_PURPOSES)[purpose],
        "amount": amount,
        "term_months": _TERMS[longer.astype(int)].astype(np.float64),
    }


def _log_odds(rows: dict[str, Any], habit: Floats, luck: Floats) -> Floats:
    """Of a default."""
    burden = np.minimum(rows["payment_share"], 0.6) * 4.5 + 0.35 * np.log1p(rows["debts"] / rows["income"])
    history = 0.45 * np.minimum(rows["late_payments"], 4) - 0.28 * np.log1p(rows["credit_years"])
    work = -0.3 * np.log1p(rows["employment_years"]) - 0.6 * np.log(rows["income"] / 2_000)
    checking = np.select([rows["checking"] == name for name in ("negative", "none", "low")], [0.8, 0.25, 0.0], -0.5)
    savings = np.select([rows["savings"] == name for name in ("none", "low", "medium")], [0.45, 0.1, -0.2], -0.6)
    purpose = np.select([rows["purpose"] == name for name in ("business", "education")], [0.4, 0.15], 0.0)
    long = 0.012 * (rows["term_months"] - 24)
    found: Floats = -2.0 + burden + history + work + checking + savings + purpose + long + 0.45 * habit + 0.3 * luck
    return found
