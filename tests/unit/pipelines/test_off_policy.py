"""Off-policy evaluation: estimates are those of the truth, intervals cover it, and what cannot be judged is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import PlatformError
from contracts.exploration import explored
from pipelines.evaluation.off_policy import off_policy, replayed
from pipelines.tasks.recommend.simulator import looks

ITEMS, PLACES, PEOPLE = 12, 4, 150
RNG = np.random.default_rng(0)
LIKING = RNG.uniform(0.05, 0.7, (PEOPLE, ITEMS))
LOGGED = np.argsort(-(LIKING + RNG.normal(0, 0.4, LIKING.shape)), axis=1)[:, :PLACES]
OTHERS = np.argsort(-LIKING, axis=1)[:, :PLACES]


def truth(lists: Any) -> float:
    return float((np.take_along_axis(LIKING, lists, 1) * looks(PLACES)).sum(axis=1).mean())


def log(seed: int, share: float = 0.4, visits: int = 6) -> pd.DataFrame:
    """Lists with places left to chance, and clicks by liking and place."""
    rng, rows = np.random.default_rng(seed), []
    for person in np.repeat(np.arange(PEOPLE), visits).tolist():
        items, chance = explored([LOGGED[person].tolist()], 0, range(ITEMS), share, rng)
        clicked = rng.random(PLACES) < looks(PLACES) * LIKING[person, items]
        rows += [
            (f"l{len(rows) // PLACES}", f"u{person}", f"i{item}", place + 1, bool(click), one, float(len(rows)))
            for place, (item, click, one) in enumerate(zip(items, clicked, chance, strict=True))
        ]
    return pd.DataFrame(rows, columns=["list", "user", "item", "place", "clicked", "propensity", "time"])


def targets(rows: pd.DataFrame, lists: Any) -> list[list[str]]:
    people = rows.drop_duplicates("list")["user"].str[1:].astype(int)
    return [[f"i{item}" for item in lists[person]] for person in people]


def test_estimates_are_of_the_truth_and_intervals_cover_it() -> None:
    names = ("ips", "snips", "dr")
    found = [off_policy(rows, targets(rows, OTHERS)) for rows in map(log, range(30))]
    covered = dict.fromkeys(names, 0)
    for name in names:
        each = [getattr(one, name) for one in found]
        mean, spread = np.mean([one.value for one in each]), np.std([one.value for one in each]) / np.sqrt(30)
        assert mean == pytest.approx(truth(OTHERS), abs=3.5 * spread + 0.01), name
        covered[name] = sum(one.low <= truth(OTHERS) <= one.high for one in each)
    assert all(count >= 25 for count in covered.values()), covered
    widths = {name: np.mean([getattr(one, name).high - getattr(one, name).low for one in found]) for name in names}
    assert widths["dr"] < widths["ips"]
    assert sum(one.difference.low > 0 for one in found) >= 20, "the others are better, and it shows"
    assert all(0 < one.effective < one.lists for one in found)


def test_lists_as_they_were_logged_are_judged_as_what_they_earned() -> None:
    rows = log(1).assign(propensity=1.0)
    shown = rows.groupby("list", sort=False)["item"].agg(list).tolist()
    found = off_policy(rows, shown)
    for one in (found.ips, found.snips, found.dr):
        assert one.value == pytest.approx(found.logged.value)
    assert found.difference.value == pytest.approx(0)
    assert (found.matched, found.effective) == (1.0, pytest.approx(found.lists))


def test_lists_with_nothing_in_common_cannot_be_judged() -> None:
    rows = log(2)
    found = off_policy(rows, [["x", "y"]] * rows["list"].nunique())
    assert (found.ips.value, found.snips.value, found.matched, found.effective) == (0, 0, 0, 0)
    empty = off_policy(rows, [[]] * rows["list"].nunique())
    assert empty.dr.value == 0


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.1, np.nan])
def test_a_propensity_that_cannot_be_is_named(wrong: float) -> None:
    rows = log(3, visits=1)
    rows.loc[5, "propensity"] = wrong
    with pytest.raises(PlatformError, match="a propensity is not above 0") as caught:
        off_policy(rows, targets(rows, OTHERS))
    assert "list 'l1', place 2" in str(caught.value.detail)
    with pytest.raises(PlatformError, match="no lists"):
        off_policy(rows.iloc[:0], [])


def test_everybody_alike_is_judged_too() -> None:
    rows = log(4).assign(user="u0")
    found = off_policy(rows, targets(log(4), OTHERS))
    assert np.isfinite([found.dr.value, found.dr.low, found.dr.high]).all()


def test_models_are_asked_with_the_history_of_the_moment() -> None:
    asked: list[tuple[str, float]] = []

    class Engine:
        def predict(self, columns: Any) -> Any:
            asked.append((columns["items"][0], columns["k"][0]))
            return [type("Ranked", (), {"items": ("a",)})]

    rows = pd.DataFrame({
        "list": ["l1", "l1", "l2"], "user": "u", "item": ["a", "b", "c"], "place": [1, 2, 1],
        "clicked": [False, True, False], "propensity": 0.5, "time": [10.0, 10.0, 20.0],
    })  # fmt: skip
    before = pd.DataFrame({"user": ["u", "u", "v"], "item": ["x", "late", "y"], "seconds": [5.0, 30.0, 1.0]})
    assert replayed(Engine(), rows, before) == [("a",), ("a",)]
    assert asked == [("x", 2.0), ("x|b", 1.0)]
