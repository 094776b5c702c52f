"""A payment simulator: customers with habits, terminals with places, and three kinds of fraud that change over time.

What it models, and where the ideas come from:

- Customers pay at terminals near their home, with a personal mean amount, rate, share of night payments and weekend
  habit; now and then they travel. (Customer and terminal profiles as in Le Borgne et al., "Reproducible Machine
  Learning for Credit Card Fraud Detection", 2022, chapter 3; night and weekend habits and travel are ours.)
- `cash_out`: a stolen card buys expensive goods. Drift: amounts fall towards the ordinary as thieves learn the limits.
- `skimming`: a manipulated terminal; for some days a share of its payments is fraud with inconspicuous amounts.
  Drift: campaigns become more frequent and shorter.
- `stolen_details`: card data sold online; for some days extra payments at arbitrary terminals, mostly at night, at a
  multiple of the customer's mean. Drift: the multiple shrinks and the hours move into the day.
- A fraud becomes known only `LABEL_DELAY_DAYS` after the payment: features and splits respect it.

Every day has a random stream of its own (Philox keyed by seed and day), so that the same seed gives the same payments
whatever the chunking. All is vectorised: a million payments take a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.tasks.fraud.config import SimulatorConfig

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_DELAY_DAYS = 7
_DAY_US = 86_400_000_000
_NEAR = 20  # a customer's regular terminals
_SETUP, _SCHEDULE = 1 << 40, 1 << 41  # stream numbers that no day has

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _World:
    """Who pays where: arrays of one value per customer, and the regular terminals (customers, near)."""

    mean: Floats
    rate: Floats
    night: Floats
    weekend: Floats
    near: Ints


@dataclass(frozen=True)
class _Campaigns:
    """When a terminal (skimming) or a customer (stolen details) is compromised: target, first day, day after."""

    target: Ints
    start: Ints
    stop: Ints

    def active(self, day: int) -> Ints:
        return self.target[(self.start <= day) & (day < self.stop)]


def _stream(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))


def simulate(config: SimulatorConfig, seed: int, days_per_chunk: int = 7) -> Iterator[pa.Table]:
    """Yield payments in order of time, `days_per_chunk` days to a table.

    Columns: transaction_id (string, unique, ascending), event_time (timestamp[us, UTC]), customer_id, terminal_id
    (string), amount (float64, in units of currency, cents precise), fraud (int64, 0 or 1).
    """
    import pyarrow as pa

    world = _world(config, seed)
    skimming, stolen = _schedule(config, seed)
    customers = pa.array([f"C{i:06d}" for i in range(config.customers)])
    terminals = pa.array([f"T{i:06d}" for i in range(config.terminals)])
    origin = int(np.datetime64(config.start, "us").astype(np.int64))
    done = 0
    for first in range(0, config.days, days_per_chunk):
        parts = [
            _day(config, world, skimming, stolen, seed, day)
            for day in range(first, min(first + days_per_chunk, config.days))
        ]
        moment, customer, terminal, amount, fraud = (np.concatenate(column) for column in zip(*parts, strict=True))
        ids = np.char.add("P", np.char.zfill(np.arange(done, done + len(moment)).astype("U9"), 9))
        done += len(moment)
        yield pa.table(
            {
                "transaction_id": pa.array(ids),
                "event_time": pa.array(moment + origin, type=pa.timestamp("us", tz="UTC")),
                "customer_id": customers.take(pa.array(customer)),
                "terminal_id": terminals.take(pa.array(terminal)),
                "amount": amount,
                "fraud": fraud.astype(np.int64),
            }
        )


def _world(config: SimulatorConfig, seed: int) -> _World:
    from scipy.spatial import cKDTree

    rng = _stream(seed, _SETUP)
    home, place = rng.random((config.customers, 2)), rng.random((config.terminals, 2))
    near = cKDTree(place).query(home, k=list(range(1, min(_NEAR, config.terminals) + 1)))[1].astype(np.int64)
    rate = rng.gamma(4.0, config.payments_per_day / 4.0, config.customers)
    return _World(
        mean=rng.lognormal(np.log(40.0), 0.7, config.customers),
        rate=rate,
        night=rng.beta(1.2, 12.0, config.customers),
        weekend=rng.uniform(0.5, 1.8, config.customers),
        near=rng.permuted(near, axis=1),
    )


def _schedule(config: SimulatorConfig, seed: int) -> tuple[_Campaigns, _Campaigns]:
    rng = _stream(seed, _SCHEDULE)
    progress = np.arange(config.days) / max(config.days - 1, 1) * config.drift
    # Campaigns begin before the first day too, so that the first weeks are as fraudulent as the others.
    warm = 34
    progress = np.concatenate([np.zeros(warm), progress])
    day = np.arange(-warm, config.days)

    def campaigns(per_day: Floats, population: int, shortest: Floats, longest: Floats) -> _Campaigns:
        count = rng.poisson(per_day)
        start = np.repeat(day, count)
        length = rng.uniform(np.repeat(shortest, count), np.repeat(longest, count)).astype(np.int64) + 1
        return _Campaigns(rng.integers(0, population, len(start)), start, start + length)

    level = config.fraud_level
    skimming = campaigns(
        level * config.terminals * 0.0004 * (1 + 0.5 * progress),
        config.terminals,
        20 - 6 * progress,
        34 - 12 * progress,
    )
    stolen = campaigns(
        level * config.customers * 0.0006 * np.ones(len(day)), config.customers, 4 + 0 * progress, 12 - 4 * progress
    )
    return skimming, stolen


def _day(
    config: SimulatorConfig, world: _World, skimming: _Campaigns, stolen: _Campaigns, seed: int, day: int
) -> tuple[Ints, Ints, Ints, Floats, NDArray[np.bool_]]:
    """All payments of a day, sorted by time: microseconds since the start, customer, terminal, amount, fraud."""
    rng = _stream(seed, day)
    progress = day / max(config.days - 1, 1) * config.drift
    weekday = (np.datetime64(config.start, "D").astype(np.int64) + day + 3) % 7  # 1970-01-01 was a Thursday; 0 = Monday
    rate = world.rate * (world.weekend if weekday >= 5 else 1.0)

    customer = np.repeat(np.arange(config.customers), rng.poisson(rate))
    count = len(customer)
    second = _time_of_day(rng, rng.random(count) < world.night[customer])
    favourite = (world.near.shape[1] * rng.random(count) ** 2).astype(np.int64)
    terminal = world.near[customer, favourite]
    travel = rng.random(count) < 0.03
    terminal = np.where(travel, rng.integers(0, config.terminals, count), terminal)
    amount = world.mean[customer] * rng.gamma(2.5, 1 / 2.5, count)

    skimmed = np.isin(terminal, skimming.active(day)) & (rng.random(count) < 0.8)
    cash_out = rng.random(count) < 0.0018 * config.fraud_level
    expensive = rng.lognormal(np.log(520.0 - 200.0 * progress), 0.35, count)
    amount = np.where(cash_out, np.maximum(expensive, amount), amount)

    victims = np.unique(stolen.active(day))
    extra = np.repeat(victims, rng.poisson(1.2, len(victims)))
    multiple = rng.uniform(4.0, 7.0, len(extra)) * (1 - 0.4 * progress)
    extra_amount = world.mean[extra] * multiple
    extra_second = _time_of_day(rng, rng.random(len(extra)) < 0.7 - 0.4 * progress)
    extra_terminal = rng.integers(0, config.terminals, len(extra))

    micro = (np.concatenate([second, extra_second]) * 1e6).astype(np.int64)
    order = np.argsort(micro, kind="stable")
    amounts = np.concatenate([amount, extra_amount])
    fraud = np.concatenate([skimmed | cash_out, np.ones(len(extra), dtype=bool)])
    return (
        day * _DAY_US + micro[order],
        np.concatenate([customer, extra])[order],
        np.concatenate([terminal, extra_terminal])[order],
        np.maximum(np.round(amounts, 2), 0.01)[order],
        fraud[order],
    )


def _time_of_day(rng: np.random.Generator, night: NDArray[np.bool_]) -> Floats:
    """Seconds after midnight: by day two humps, noon and early evening; at night around 2 o'clock."""
    count = len(night)
    hour = np.where(rng.random(count) < 0.55, rng.normal(12.5, 2.2, count), rng.normal(18.0, 2.0, count))
    hour = np.where(night, rng.normal(2.0, 1.6, count), hour)
    second: Floats = np.minimum(np.mod(hour, 24.0) * 3600, 86_399.999)
    return second
