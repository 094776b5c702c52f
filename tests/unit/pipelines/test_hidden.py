"""Rows as they are served without features: which cases there are, which rows are chosen, what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import PlatformError
from pipelines.data.features import derive
from pipelines.data.file_rows import FileRows
from pipelines.data.hidden import CASE, cases, read_hidden, write_hidden


def view(name: str, key: str, ttl: int = 60, text: bool = False) -> dict[str, Any]:
    features = [{"name": f"{name}_mean", "dtype": "float64"}, {"name": f"{name}_count", "dtype": "int64"}]
    features += [{"name": f"{name}_tier", "dtype": "string"}] if text else []
    return {
        "name": name,
        "join_keys": [{"name": key, "dtype": "string"}] if key else [],
        "features": features,
        "ttl_seconds": ttl,
    }


PLAN: dict[str, Any] = {"project": "shop", "views": [view("buyer", "buyer_id", text=True), view("shop", "shop_id", 0)]}


def joined(rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "row": np.arange(rows),
            "amount": rng.gamma(2, 30, rows),
            "buyer_mean": rng.normal(size=rows),
            "buyer_count": pd.array(rng.integers(0, 9, rows), dtype="Int64"),
            "buyer_tier": rng.choice(["gold", "tin"], rows),
            "shop_mean": rng.normal(size=rows),
            "shop_count": pd.array(rng.integers(0, 9, rows), dtype="Int64"),
        }
    )


def split(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    rows = frame.drop(columns="row").assign(id=frame["row"].astype(str), label="no").reset_index(drop=True)
    half = len(rows) // 2
    return {"train": rows[:half], "valid": rows[:0], "test": rows[half:].reset_index(drop=True)}


def test_cases_follow_from_the_keys_and_the_times_to_live() -> None:
    assert {case.name: case.views for case in cases(PLAN)} == {
        "unknown entity": ("buyer", "shop"),
        "unknown buyer_id": ("buyer",),
        "unknown shop_id": ("shop",),
        "stale": ("buyer",),  # what lives forever is never stale
    }
    one = {**PLAN, "views": [view("buyer", "buyer_id", 0)]}
    assert [case.name for case in cases(one)] == ["unknown entity"]
    assert cases({"views": []}) == []
    assert "not_found:buyer not_found:shop" in cases(PLAN)[0].said
    assert "outside_max_age:buyer" in cases(PLAN)[-1].said


def test_every_test_row_is_in_every_case_without_the_features_of_its_views(tmp_path: Path) -> None:
    frame = joined()
    write_hidden(split(frame), frame, "row", PLAN, tmp_path, FileRows([], ""))
    found = read_hidden(tmp_path, "test")
    assert [rows[CASE].iloc[0] for rows in found] == [case.name for case in cases(PLAN)]
    test = split(frame)["test"]
    for rows, case in zip(found, cases(PLAN), strict=True):
        assert rows["id"].tolist() == test["id"].tolist()
        for column in test.columns:
            if column.partition("_")[0] in case.views:
                assert rows[column].isna().all()
            else:
                assert rows[column].tolist() == test[column].tolist()


def test_training_rows_are_shared_out_among_the_distinct_cases(tmp_path: Path) -> None:
    frame = joined()
    write_hidden(split(frame), frame, "row", PLAN, tmp_path, FileRows([], ""))
    found = read_hidden(tmp_path, "train")
    assert [rows[CASE].iloc[0] for rows in found] == ["unknown entity", "unknown buyer_id", "unknown shop_id"]
    ids = [one for rows in found for one in rows["id"]]
    assert sorted(ids) == sorted(split(frame)["train"]["id"])
    assert min(map(len, found)) > 40  # of 200


def test_a_share_is_chosen_by_the_row_and_grows_by_adding_rows(tmp_path: Path) -> None:
    frame = joined()
    shuffled = frame.sample(frac=1.0, random_state=1)
    chosen = []
    for at, (given, share) in enumerate([(frame, 0.2), (frame, 0.5), (shuffled, 0.5)]):
        folder = tmp_path / str(at)
        folder.mkdir()
        write_hidden(
            {**split(given), "train": split(given.sort_values("row"))["train"]},
            given,
            "row",
            PLAN,
            folder,
            FileRows([], ""),
        )
        chosen.append({(one, rows[CASE].iloc[0]) for rows in read_hidden(folder, "train", share) for one in rows["id"]})
    few, more, again = chosen
    assert few < more
    assert more == again
    assert 20 < len(few) < 60 < len(more) < 140
    assert read_hidden(tmp_path / "0", "train", 0.0) == []


def test_rows_that_cannot_be_told_apart_are_left_out(tmp_path: Path) -> None:
    frame = joined()
    frame.loc[frame.index[:50], "row"] = 7
    frame.loc[frame.index[-1], "row"] = frame["row"].iloc[-2]
    write_hidden(split(frame), frame, "row", PLAN, tmp_path, FileRows([], ""))
    assert len(read_hidden(tmp_path, "test")[0]) == 198
    assert sum(map(len, read_hidden(tmp_path, "train"))) == 150


def payments() -> tuple[dict[str, Any], pd.DataFrame]:
    """A plan with the on-demand features of payments, and payments with their windows."""
    outputs = ["hour", "amount_to_mean_30d", "hours_since_payment", "days_since_last_fraud"]
    of = {
        "customer": ["mean_1d", "mean_7d", "mean_30d", "mean_before_7d", "mean_earlier", "std_30d", "median",
                     "last_payment"],
        "terminal": ["first_fraud", "last_fraud"],
    }  # fmt: skip
    plan = {
        "project": "fraud",
        "views": [
            {
                **view(f"{who}_windows", f"{who}_id"),
                "features": [{"name": f"{who}_{name}", "dtype": "float64"} for name in names],
            }
            for who, names in of.items()
        ],
        "transforms": [{"function": "feature_repo.transforms.fraud:payment_request", "outputs": outputs}],
    }
    frame = pd.DataFrame({f"{who}_{name}": np.full(60, 20.0) for who, names in of.items() for name in names})
    frame["row"], frame["amount"] = np.arange(60), np.linspace(1, 300, 60)
    frame["event_time"] = pd.Timestamp("2026-01-05T12:00:00Z")
    return plan, derive(frame, plan)


def test_on_demand_features_are_derived_from_what_is_left(tmp_path: Path) -> None:
    plan, frame = payments()
    write_hidden(split(frame), frame, "row", plan, tmp_path, FileRows([], ""))
    nothing, no_customer, no_terminal, _ = read_hidden(tmp_path, "test")
    for rows, known in ((nothing, []), (no_customer, ["days_since_last_fraud"]), (no_terminal, ["amount_to_mean_30d"])):
        assert rows["hour"].eq(12.0).all()
        for name in ("amount_to_mean_30d", "days_since_last_fraud"):
            assert rows[name].notna().all() == (name in known)


def test_a_transform_that_needs_its_features_is_named(tmp_path: Path) -> None:
    plan, frame = payments()
    with pytest.raises(PlatformError, match="cannot be derived") as caught:
        write_hidden(
            split(frame.drop(columns="amount")), frame.drop(columns="amount"), "row", plan, tmp_path, FileRows([], "")
        )
    assert caught.value.code == "bad_transform"
    assert "KeyError: 'amount'" in str(caught.value.detail)
