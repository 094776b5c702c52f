"""``fairlead features`` over the features of a small simulation of payments."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.endpoints import Endpoints


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines.steps.ingest import ingest
    from pipelines.steps.materialise import materialise
    from pipelines.steps.validate import validate
    from pipelines.task import dump_config
    from pipelines.tasks import get_task, recipe_config

    folder = tmp_path_factory.mktemp("features")
    size = {"simulator.customers": 50, "simulator.terminals": 30, "simulator.days": 40}
    config = dump_config(recipe_config(get_task("fraud"), None, size))
    ends = Endpoints(home=str(folder / "home")).resolved()
    version = ingest("fraud", config, "", ends.uri("data"), str(folder / "manifest.json"))
    validate("fraud", config, str(folder / "manifest.json"), str(folder / "clean"))
    out = str(folder / "features.json")
    materialise("fraud", config, str(folder / "clean"), version, ends.model_dump_json(), out)
    return folder / "home" / "features"


@pytest.fixture
def features(_made: Path, home: Path) -> Path:
    """The features folder of the test's home."""
    shutil.copytree(_made, home / "features")
    return home / "features"


def test_what_others_keep_beside_the_features_does_not_disturb(features: Path, fairlead: Callable[..., Any]) -> None:
    before = fairlead("features", "list", "--json").json
    (features / "README.txt").write_text("of another team")
    for content in ("", "[1, 2]", '{"name": "of another team"}', "no JSON"):
        theirs = features / "theirs" / f"v{len(content)}" / "features.json"
        theirs.parent.mkdir(parents=True)
        theirs.write_text(content)
    said = fairlead("features", "list", "--json")
    assert (said.code, said.json) == (0, before)
    assert (features / "README.txt").exists()


def test_views_are_listed(features: Path, fairlead: Callable[..., Any]) -> None:
    said = fairlead("features", "list", "--json")
    assert {(item["view"], item["task"], item["ttl_seconds"]) for item in said.json} == {
        ("customer_windows", "fraud", 2_592_000),
        ("terminal_windows", "fraud", 2_592_000),
    }
    assert "30 d" in fairlead("features", "list").out


def test_without_features_the_way_to_them_is_named(home: Path, fairlead: Callable[..., Any]) -> None:
    assert "fairlead run TASK" in fairlead("features", "list").out
    said = fairlead("features", "check", "fraud")
    assert said.code == 1
    assert "fairlead run fraud" in said.err


def test_a_view_is_shown_with_values_and_age(features: Path, fairlead: Callable[..., Any]) -> None:
    shown = fairlead("features", "show", "customer_windows", "--json").json
    assert shown["keys"] == ["customer_id"]
    assert 0 < shown["entities"] <= 50
    assert shown["newest_seconds_ago"] > 0
    values = {item["name"]: item for item in shown["features"]}
    assert len(values["customer_mean_30d"]["values"]) == 3
    assert values["customer_mean_30d"]["dtype"] == "float64"
    assert "customer_payments_7d" in fairlead("features", "show", "customer_windows").out
    assert fairlead("features", "show", "nothing").code == 1


def test_what_is_served_is_checked_against_the_history(
    features: Path, fairlead: Callable[..., Any], tmp_path: Path
) -> None:
    said = fairlead("features", "check", "fraud", "--json", "--metrics", str(tmp_path / "m" / "x.prom"))
    assert said.code == 0
    assert [item["different"] for item in said.json] == [0, 0]
    text = (tmp_path / "m" / "x.prom").read_text()
    assert 'fairlead_feature_freshness_seconds{task="fraud",view="customer_windows"}' in text
    assert 'fairlead_feature_missing_ratio{task="fraud",view="terminal_windows"}' in text


def test_a_store_that_lags_is_found_and_materialised(features: Path, fairlead: Callable[..., Any]) -> None:
    with sqlite3.connect(features / "online.db") as connection:
        connection.execute("DELETE FROM packed_fraud_customer_windows")
    middle = json.loads(next(features.glob("fraud/*/features.json")).read_text())["known_until"][:10]
    early = f"{middle[:8]}01" if middle[8:] > "10" else "2024-01-20"
    assert fairlead("features", "materialise", "fraud", "--until", early, "--view", "customer_windows").code == 0
    said = fairlead("features", "check", "fraud")
    assert said.code == 1
    assert "of customer_windows are served otherwise than the history says" in said.err.replace("\n", " ")
    assert fairlead("features", "materialise", "fraud").code == 0
    assert fairlead("features", "check", "fraud").code == 0


def test_an_interval_is_backfilled(features: Path, fairlead: Callable[..., Any]) -> None:
    with sqlite3.connect(features / "online.db") as connection:
        before = connection.execute("SELECT count(*) FROM packed_fraud_terminal_windows").fetchone()
        connection.execute("DELETE FROM packed_fraud_terminal_windows")
    said = fairlead("features", "backfill", "fraud", "--since", "2000-01-01", "--json")
    assert said.json["views"] == ["customer_windows", "terminal_windows"]
    with sqlite3.connect(features / "online.db") as connection:
        assert connection.execute("SELECT count(*) FROM packed_fraud_terminal_windows").fetchone() == before


def test_rows_without_a_key_are_named_and_the_others_come_online(features: Path, fairlead: Callable[..., Any]) -> None:
    (file,) = features.glob("fraud/*/customer_windows.parquet")
    rows = pq.read_table(file)
    keys = pa.array([None, *rows["customer_id"].to_pylist()[1:]], pa.string())
    pq.write_table(rows.set_column(0, "customer_id", keys), file)
    (features / "online.db").unlink()
    said = fairlead("features", "materialise", "fraud", "--json")
    assert said.json["left_out"] == [
        "feature view customer_windows: 1 row is left out, entity key 'customer_id' is null; "
        "the first is row 1 of customer_windows.parquet"
    ]
    assert "1 row is left out" in fairlead("features", "materialise", "fraud").out.replace("\n", " ")
    assert fairlead("features", "check", "fraud").code == 0


def test_the_example_of_an_endpoint_is_of_an_entity_that_is_served(features: Path) -> None:
    from deploy.cli.serving.example_entity import stored_entity
    from feature_repo.stores.reader import OnlineReader

    plan, online = json.loads(next(features.glob("fraud/*/features.json")).read_text()), features / "online.db"
    entity = stored_entity(plan, str(online))
    assert entity is not None
    read = OnlineReader(plan, str(online)).read({name: [key] for name, key in entity.keys.items()}, entity.moment)
    assert {name: str(words[0]) for name, words in read.status.items()} == {
        "customer_windows": "PRESENT",
        "terminal_windows": "PRESENT",
    }
    with sqlite3.connect(online) as connection:
        connection.execute("DELETE FROM packed_fraud_terminal_windows")
    entity = stored_entity(plan, str(online))
    assert entity is not None
    assert set(entity.keys) == {"customer_id"}
    with sqlite3.connect(online) as connection:
        connection.execute("DELETE FROM packed_fraud_customer_windows")
    assert stored_entity(plan, str(online)) is None
    assert stored_entity(plan, str(online.with_name("nothing.db"))) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("backfill", "fraud", "--since", "soon"),
        ("backfill", "fraud", "--since", "2030-01-01", "--until", "2020-01-01"),
        ("materialise", "fraud", "--view", "nothing"),
        ("materialise", "nothing"),
    ],
)
def test_a_wrong_request_is_refused(features: Path, fairlead: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    said = fairlead("features", *arguments)
    assert said.code == 1
    assert "Error" in said.err
