"""Two towers: what is exported answers as what was trained, new items have vectors, and many items get an index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts import tower
from contracts.engines.recommend import read_model
from contracts.nearest import FILE, Nearest
from pipelines.checks.base import Candidate
from pipelines.checks.index_recall import CHECK
from pipelines.recipes.recommend.settings import IndexConfig, ItemsConfig, ListConfig
from pipelines.task import DataConfig
from pipelines.tasks import get_task, recipe_config
from pipelines.training.recommend import read_log, train_recommender
from pipelines.training.recommenders import AlsModel, TowerModel
from pipelines.training.two_tower import Sequences

CONFIG: Any = recipe_config(get_task("recommend"), "two_tower")
QUICK = TowerModel(dimensions=16, hidden=16, temperature=(0.1,), epochs=40, batch=128, negatives=32)
FEW = AlsModel(factors=8, l2=(1.0,), confidence=(5.0,), recency=(0.0,), rounds=2)
NEW = {f"new{at}": kind for at, kind in enumerate(("music", "crime", "sports"))}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People who each like one of three kinds of items, and a table of items that has three that nobody took."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(5)
    said = {f"i{at:02d}": list(NEW.values())[at % 3] for at in range(36)}
    rows = [
        (f"u{user}", f"i{3 * at + user % 3:02d}", pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(hours=hour))
        for user in range(60)
        for at, hour in zip(rng.permutation(12)[:9], np.sort(rng.integers(0, 2_000, 9)), strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["user", "item", "time"]).assign(rating=np.nan, attributes=None, part=None)
    frame["id"] = frame.index.astype(str)
    said |= NEW
    table = pd.DataFrame({"item": list(said), "attributes": list(said.values())})
    table["title"] = [f"About {kind}" for kind in said.values()]
    table.to_csv(folder / "items.csv", index=False)
    items = ItemsConfig(source=str(folder / "items.csv"), data=DataConfig(columns={"text": "title"}))
    for name, part in get_task("recommend").split(frame, replace(CONFIG, items=items)).items():
        part.to_parquet(folder / f"{name}.parquet")
    return folder


def train(dataset: Path, out: Path, model: Any, **index: Any) -> dict[str, Any]:
    lists = ListConfig(k=5, pool=10)
    return train_recommender(dataset, model, lists, 1, out, lambda *a, **k: None, index=IndexConfig(**index))


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("model")
    return out, train(dataset, out, QUICK, above=20)


def test_it_beats_chance_and_knows_items_that_nobody_took(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, out = trained
    model = read_model(folder)[0]
    assert out["history"][0]["recall"] > 2 * 5 / 36
    assert set(NEW) < set(model.items)
    assert out["output"]["catalogue"] == len(model.items)
    lengths = np.linalg.norm(model.arrays["factors"], axis=1)
    assert lengths == pytest.approx(np.ones(len(model.items)), abs=1e-5)


def test_a_new_item_is_near_to_those_of_its_kind(trained: tuple[Path, dict[str, Any]]) -> None:
    model = read_model(trained[0])[0]
    place = {item: at for at, item in enumerate(model.items)}
    factors, names = model.arrays["factors"], list(model.attributes)
    has = model.arrays["vectors"] > 0
    for item, kind in NEW.items():
        like = factors @ factors[place[item]]
        same = has[:, names.index(kind)] & (np.arange(len(like)) != place[item])
        assert like[same].mean() > like[~same].mean() + 0.1, item
        history, blocked = model.history([int(at) for at in np.flatnonzero(same)[:6]])
        blocked[[at for at, name in enumerate(model.items) if name not in NEW]] = True
        assert model.ranked(history, blocked, 1, 0.0).items == (item,), "the history asks for its kind"


def test_what_is_exported_is_what_the_network_says(dataset: Path) -> None:
    import torch

    from pipelines.training import two_tower

    parts = [pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid")]
    log = read_log(parts, pd.read_parquet(dataset / "items.parquet"))
    taken = log.taken(np.argsort(-log.ages, kind="stable"), 1)
    chosen = {**vars(QUICK), "temperature": 0.2}
    network = two_tower._network(taken, chosen)
    torch.nn.init.normal_(network.layers["second"].weight, std=0.3)
    arrays = network.exported()
    history, weights = np.array([3, 9, 4]), np.array([0.25, 0.5, 1.0])
    mean = torch.from_numpy((weights @ arrays[tower.ASKS][history] / weights.sum()).astype(np.float32))
    with torch.no_grad():
        wanted = network.people(mean[None])[0].numpy()
    assert tower.person(arrays, history, weights) == pytest.approx(wanted, abs=1e-5)
    assert not tower.person(arrays, np.zeros(0, np.int64), np.zeros(0)).any()


def test_an_item_is_foretold_by_those_before_it() -> None:
    start = np.array([0, 0, 0, 3, 3])
    found = Sequences(np.array([7, 8, 9, 5, 6]), start, True)
    items, there = found.before(np.array([2, 4, 3]), 2)
    assert [row[mask].tolist() for row, mask in zip(items, there, strict=True)] == [[8, 7], [5], []]
    assert found.shuffled(np.random.default_rng(0)) is found, "time is not shuffled"
    mixed = replace(found, timed=False).shuffled(np.random.default_rng(0))
    assert (sorted(mixed.items[:3].tolist()), sorted(mixed.items[3:].tolist())) == ([7, 8, 9], [5, 6])


def candidate(dataset: Path, model: Path, home: Path) -> Candidate:
    if not (home / "model").exists():
        (home / "model").symlink_to(model)
    given: Any = {"task": "recommend", "folder": home, "dataset": dataset, "evaluation": {}, "settings": None}
    return Candidate(**given, endpoints=None)  # type: ignore[arg-type]


def test_the_gate_measures_what_an_index_finds(trained: Any, dataset: Path, tmp_path: Path) -> None:
    assert (trained[0] / FILE).exists()
    [check] = CHECK.find(candidate(dataset, trained[0], tmp_path)).checks
    assert (check.metric, check.limit, check.passed) == ("index_recall", 0.98, True)
    assert check.value is not None
    assert check.value > 0.98


def test_factors_have_an_index_too_and_one_that_misses_items_is_refused(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(dataset, tmp_path / "model", FEW, above=20, recall=1.0)
    home = tmp_path / "home"
    home.mkdir()
    [check] = CHECK.find(candidate(dataset, tmp_path / "model", home)).checks
    assert (check.value, check.limit, check.passed) == (1.0, 1.0, True)

    def blind(self: Nearest, vector: Any, count: int) -> Any:
        return search(self, -vector, count)[: count // 2]

    search = Nearest.search
    monkeypatch.setattr(Nearest, "search", blind)
    [check] = CHECK.find(candidate(dataset, tmp_path / "model", home)).checks
    assert not check.passed
    assert check.value is not None
    assert check.value < 0.6


def test_few_items_have_no_index_and_nothing_to_check(dataset: Path, tmp_path: Path) -> None:
    train(dataset, tmp_path / "model", FEW)
    assert not (tmp_path / "model" / FILE).exists()
    (tmp_path / "home").mkdir()
    assert CHECK.find(candidate(dataset, tmp_path / "model", tmp_path / "home")).checks == ()


@pytest.mark.parametrize("kind", ["one item each", "all alike"])
def test_people_who_tell_nothing_apart_are_served(kind: str, tmp_path: Path) -> None:
    users, items = range(12), range(6)
    taken = [(user, user % 6) for user in users] if kind == "one item each" else [(u, i) for u in users for i in items]
    rows = pd.DataFrame(
        [(f"u{user}", f"i{item}", pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(hours=at)) for at, (user, item) in
         enumerate(taken)], columns=["user", "item", "time"]
    ).assign(rating=np.nan, attributes=None, part=None)  # fmt: skip
    rows["id"] = rows.index.astype(str)
    for name, part in get_task("recommend").split(rows, CONFIG).items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    train(tmp_path, tmp_path / "model", replace(QUICK, epochs=1))
    model = read_model(tmp_path / "model")[0]
    found = model.ranked(*model.history([0]), 20, 0.3)
    assert set(found.items) == set(model.items) - {model.items[0]}
    assert all(np.isfinite(found.scores))
