"""Features of lists: what training joins for a moment is what serving reads at it, however the row came there."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.ranking_features import CONTEXT, ITEM, KINDS, PERSON, SPANS, WINDOWED, windowed
from feature_repo.stores.join import point_in_time_join
from feature_repo.stores.reader import OnlineReader, apply_transforms
from feature_repo.transforms.recommend import MICROS, clicked, list_request, moved, states

DAY = 86_400 * MICROS


def events(seed: int, count: int = 300) -> tuple[Any, Any, Any]:
    """Of five entities over twelve days, some of them at one moment."""
    rng = np.random.default_rng(seed)
    micros = np.sort(rng.integers(20_000 * DAY, 20_012 * DAY, count) // (600 * MICROS) * (600 * MICROS))
    return rng.integers(0, 5, count), micros, rng.integers(0, 3, count)


@pytest.mark.parametrize("seed", range(3))
def test_a_row_of_the_history_counts_what_its_buckets_hold(seed: int) -> None:
    entity, micros, kind = events(seed)
    of, at, columns = states("item", entity, micros, kind)
    for row in np.random.default_rng(seed).integers(0, len(of), 40).tolist():
        for number, name in enumerate(KINDS):
            mine = micros[(entity == of[row]) & (kind == number) & (micros <= at[row])]
            for label, seconds in SPANS.items():
                bucket, now = mine // (seconds * MICROS), at[row] // (seconds * MICROS)
                got = [columns[f"item_{name}_{label}_{part}"][row] for part in ("now", "before")]
                assert got == [(bucket == now).sum(), (bucket == now - 1).sum()]


@pytest.mark.parametrize("seed", range(3))
def test_moving_a_row_on_by_each_event_gives_the_rows_of_the_history(seed: int) -> None:
    entity, micros, kind = events(seed)
    of, at, columns = states("user", entity, micros, kind)
    held: dict[int, dict[str, float]] = {}
    for row, (who, moment) in enumerate(zip(of.tolist(), at.tolist(), strict=True)):
        now = Counter(KINDS[one] for one in kind[(entity == who) & (micros == moment)].tolist())
        held[who] = moved("user", held.get(who, {}), now, moment)
        assert held[who] == {name: values[row] for name, values in columns.items()}


def test_a_late_event_is_counted_and_moves_nothing_back() -> None:
    first = moved("item", {}, {"clicks": 1}, 20_001 * DAY)
    late = moved("item", first, {"clicks": 1}, 20_000 * DAY)
    assert (late["item_clicks_1h_now"], late["item_last"]) == (2, first["item_last"])


def test_counts_leave_their_windows_as_time_passes() -> None:
    start = 20_000 * DAY
    state = moved("item", {}, {"views": 4, "clicks": 2}, start + 1_800 * MICROS)
    late = {name: np.repeat(value, 5) for name, value in state.items()}
    late |= {name: np.full(5, np.nan) for name in user_columns()}
    hours = np.array([0.6, 1.5, 3, 36, 24 * 15])
    late["time"] = (start + (hours * 3_600 * MICROS).astype(np.int64)).astype("datetime64[us]")
    found = list_request(late)
    assert found["item_views_1h"].tolist() == [4, 2, 0, 0, 0]
    assert found["item_views_1d"].tolist() == [4, 4, 4, 2, 0]
    assert found["item_views_7d"][[0, 4]].tolist() == [4, 0]
    assert found["item_click_rate_1d"].tolist() == [0.5, 0.5, 0.5, 0.5, 0]
    assert found["hour"].tolist() == pytest.approx([0.6, 1.5, 3, 12, 0])
    assert not found["user_clicks_7d"].any()
    assert np.isnan(found["user_hours_since_click"]).all()


def user_columns() -> list[str]:
    return [name.replace("item_", "user_") for name in moved("item", {}, {}, DAY)] + ["user_last_click"]


def test_the_latest_clicks_are_kept_in_their_order_each_once() -> None:
    assert clicked(None, ["a", "b", "a"]) == "b|a"
    assert clicked("|".join("abcdefghij"), ["c", "k"]) == "b|d|e|f|g|h|i|j|c|k"


def test_what_is_not_known_is_nothing_counted() -> None:
    found = windowed({}, 2)
    assert found.shape == (2, len(WINDOWED)) == (2, len(PERSON) + len(ITEM) + len(CONTEXT))
    assert np.flatnonzero(found[0]).tolist() == [PERSON.index("user_hours_since_click")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str, pd.DataFrame, Any]:
    """Plan, history, online store, interactions and configuration of the task on a small world."""
    from pipelines.data.file_rows import FileRows
    from pipelines.steps.ingest import ingest
    from pipelines.steps.materialise import materialise
    from pipelines.steps.validate import validate
    from pipelines.task import dump_config
    from pipelines.tasks import get_task, recipe_config

    folder, task = tmp_path_factory.mktemp("recommend"), get_task("recommend")
    size = {
        "simulator.people": 60,
        "simulator.items": 40,
        "simulator.days": 25,
        "simulator.local": 0.0,
        "ranker.windows": True,
    }
    settings = recipe_config(task, "lambdarank", size)
    config, ends = dump_config(settings), Endpoints(home=str(folder / "home")).resolved()
    version = ingest("recommend", config, "", ends.uri("data"), str(folder / "manifest.json"))
    validate("recommend", config, str(folder / "manifest.json"), str(folder / "clean"))
    out, given = folder / "features.json", (str(folder / "clean"), version, ends.model_dump_json())
    materialise("recommend", config, *given, str(out))
    document = json.loads(out.read_text())
    none = folder / "none.json"
    materialise("recommend", dump_config(recipe_config(task, "graph_filter")), *given, str(none))
    assert json.loads(none.read_text()) == {}, "a recipe without such a ranker has no features"
    return (
        document["plan"],
        Path(document["path"]),
        ends.uri("online"),
        FileRows.of_folder(folder / "clean").frame(),
        settings,
    )


def served(plan: dict[str, Any], online: str, user: str, items: list[str], moment: datetime) -> dict[str, Any]:
    """As a service reads it, see `services.recommend.windows`."""
    found = OnlineReader(plan, online).read_each({"user": [user], "item": items}, moment)
    mine = dict(found["user_windows"].columns)
    mine.pop("user_last_clicks")
    columns = {name: np.repeat(values, len(items)) for name, values in mine.items()}
    columns |= found["item_windows"].columns
    columns["time"] = np.full(len(items), np.datetime64(moment.replace(tzinfo=None), "us"))
    return apply_transforms(plan, columns)


def test_random_people_items_and_moments_have_identical_features_in_training_and_serving(store: Any) -> None:
    """From just after the data to beyond the time to live: rows stay, counts leave their windows."""
    plan, folder, online, rows, _ = store
    last, rng = datetime.fromisoformat(plan["known_until"]), np.random.default_rng(7)
    people, items = np.append(rows["user"].unique(), "nobody"), np.append(rows["item"].unique(), "nothing")
    compared = 0
    for _ in range(25):
        moment = last + timedelta(
            seconds=float(rng.choice([0, 1, 3_600, 86_400, 86_400 * 9, 86_400 * 35]) * rng.random())
        )
        user, asked = str(rng.choice(people)), rng.choice(items, 12).tolist()
        found = served(plan, online, user, asked, moment)
        frame = pd.DataFrame({"user": user, "item": asked, "time": pd.Timestamp(moment)})
        joined = point_in_time_join(plan, folder, frame)
        columns = {str(name): joined[name].to_numpy() for name in joined}
        columns["time"] = joined["time"].dt.tz_localize(None).to_numpy("M8[us]")
        trained = apply_transforms(plan, columns)
        for name in WINDOWED:
            np.testing.assert_array_equal(found[name], trained[name], name)
        compared += int((found["item_views_7d"] > 0).sum() + (found["user_clicks_7d"] > 0).sum())
    assert compared > 50, "and they are not all zero"


def test_no_list_is_told_of_itself_and_the_snapshot_is_that_of_serving(store: Any) -> None:
    from pipelines.recipes.recommend.windows import SNAPSHOT
    from pipelines.tasks import get_task

    plan, folder, _online, rows, settings = store
    task: Any = get_task("recommend")
    frames = task.with_features(dict(task.split(rows, settings)), {"plan": plan, "path": str(folder)})
    shown = frames["impressions"]
    for row in shown.sample(40, random_state=1).itertuples():
        mine = shown[(shown["item"] == row.item) & (shown["time"] < row.time)]
        week = 86_400 * 7
        buckets = mine["time"] // week - row.time // week
        wanted = (buckets == 0).sum() + (buckets == -1).sum() * (1 - row.time % week / week)
        assert row.item_views_7d == pytest.approx(wanted, abs=1e-4)
    last = frames[SNAPSHOT]
    assert set(last["item"].dropna()) == set(frames["items"]["item"])
    assert last.loc[last["user"].notna(), "user_clicks_7d"].max() > 0
    assert last.loc[last["item"].notna(), "item_views_7d"].max() > 0


def test_an_interaction_of_an_unknown_kind_is_named(store: Any) -> None:
    from pipelines.tasks import get_task

    *_, rows, settings = store
    task: Any = get_task("recommend")
    wrong = rows.assign(kind=["return", *[None] * (len(rows) - 1)])
    with pytest.raises(PlatformError, match="column 'kind' has 'return'") as refused:
        task.split(wrong, settings)
    assert "click, sale" in refused.value.detail
    task.split(rows.assign(kind="sale"), settings)


def test_a_store_that_was_never_filled_says_so(store: Any, tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as refused:
        OnlineReader(store[0], str(tmp_path / "none.db")).read_each({"user": ["a"], "item": ["b"]}, datetime.now(UTC))
    assert refused.value.code == "not_materialised"


@pytest.mark.parametrize("kind", ["lambdarank", "dlrm"])
def test_rankers_of_both_kinds_learn_from_windows_and_are_told_of_them_when_served(
    store: Any, tmp_path: Path, kind: str
) -> None:
    """Everybody clicks what others have clicked this week."""
    from contracts.engines.recommend import read_model
    from pipelines.tasks import get_task

    plan, folder, _online, rows, settings = store
    task: Any = get_task("recommend")
    frames = task.with_features(dict(task.split(rows, settings)), {"plan": plan, "path": str(folder)})
    shown, rng = frames["impressions"], np.random.default_rng(3)
    busy = shown["item_clicks_7d"] > shown["item_clicks_7d"].median()
    frames["impressions"] = shown.assign(clicked=rng.random(len(shown)) < np.where(busy, 0.6, 0.05))
    for name, frame in frames.items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
    one = {name: getattr(settings.model, name)[:1] for name in ("from_item", "person", "to_item", "recency")}
    ranker = replace(settings.ranker, kind=kind, rounds=30, epochs=2, lists=400)
    config = replace(settings, ranker=ranker, model=replace(settings.model, **one))
    out = config.train(task, tmp_path, tmp_path / "model", tmp_path, lambda *a, **k: None)
    assert out["parameters"]["ranker"] == kind, out["choices"]
    model = read_model(tmp_path / "model")[0]
    assert model.ranker is not None
    assert model.ranker.windows
    history, pool = np.arange(3), np.arange(3, 9)
    quiet = windowed({}, len(pool))
    told = quiet.copy()
    told[2, len(PERSON) + ITEM.index("item_clicks_7d")] = np.log1p(np.float32(shown["item_clicks_7d"].max()))
    before, after = (
        model.ranker.chances(model.features(history, pool, np.linspace(1, 0.5, len(pool)), one), pool, history)
        for one in (quiet, told)
    )
    assert after[2] > 1.3 * before[2]
    assert np.delete(after, 2) == pytest.approx(np.delete(before, 2))


@pytest.mark.parametrize("dry", [True, False])
def test_windows_of_a_person_who_is_forgotten_go_and_those_of_items_stay(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    """What items have been is of all people; see docs/trust.md."""
    from deploy.cli.privacy.taking_out import Forgetting, Person
    from pipelines.tasks import get_task

    plan, folder, _online, rows, _ = store
    monkeypatch.setattr("contracts.registry.Registry", lambda _: SimpleNamespace(names=list))
    shutil.copytree(folder.parents[2], tmp_path / "home")
    who = str(rows["user"].iloc[0])
    ends = Endpoints(home=str(tmp_path / "home")).resolved()
    done = Forgetting(ends, Person(task=get_task("recommend"), column="user", text=who), [], dry).run()
    of_whom = {}
    for name in ("user_windows", "item_windows"):
        (file,) = (tmp_path / "home").rglob(f"{folder.name}/{name}.parquet")
        frame = pd.read_parquet(file)
        of_whom[name] = int((frame["user"].astype(str) == who).sum()) if "user" in frame else len(frame)
    before = pd.read_parquet(folder / "user_windows.parquet")
    mine = int((before["user"].astype(str) == who).sum())
    assert mine > 1
    assert (done.features, done.online) == (mine, 1)
    assert of_whom["user_windows"] == (mine if dry else 0)
    assert of_whom["item_windows"] == len(pd.read_parquet(folder / "item_windows.parquet"))
    moment = datetime.fromisoformat(plan["known_until"])
    after = OnlineReader(plan, ends.uri("online")).read_each({"user": [who], "item": ["i0001"]}, moment)
    assert bool(after["user_windows"].columns["user_last_clicks"][0]) is dry
