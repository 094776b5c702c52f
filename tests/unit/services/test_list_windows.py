"""What people did a moment ago: read with the candidates at once, counted for the next list, and lost by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contracts.errors import PlatformError
from contracts.ranker import STATE_ARRAY, WINDOW_ARRAYS, Ranker, RankerSpec
from contracts.ranking_features import CONTEXT, FEATURES, ITEM, PERSON, STATE, WINDOWED, windowed
from feature_repo.stores.backend import open_backend
from services.adapters.hot import Answers
from services.feedback.records import Label
from services.model.prediction_log import new_id
from services.recommend import windows
from services.recommend.windows import ListWindows, open_windows
from tests.problem_bundles import small_recommender

CLICKS = len(PERSON) + ITEM.index("item_clicks_1h")


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    from feature_repo.recommend import item_windows, user_windows
    from feature_repo.stores.plan import compile_view

    transform = {"function": "feature_repo.transforms.recommend:list_request", "outputs": list(WINDOWED)}
    views = [compile_view(one) for one in (user_windows, item_windows)]
    return {"project": "recommend", "timestamp": "time", "views": views, "transforms": [transform]}


@pytest.fixture
def online(plan: dict[str, Any], tmp_path: Path) -> str:
    address = str(tmp_path / "online.db")
    backend = open_backend(address, writing=True)
    for view in plan["views"]:
        backend.prepare(plan["project"], view["name"])
    return address


@pytest.fixture
def opened(plan: dict[str, Any], online: str) -> Iterator[ListWindows]:
    found = ListWindows(plan, online, Answers(None, 3_600))
    yield found
    found.close()


def told(identifier: str, *items: str) -> Label:
    return Label(id=identifier, label=list(items), time=datetime.now(UTC), version="1")


def read(opened: ListWindows, user: str, *items: str) -> tuple[list[str], Any]:
    found = opened.read(user, items)
    assert found is not None
    return found


def count(value: Any) -> float:
    return float(np.expm1(value))


def test_a_click_is_known_at_the_next_read_once(opened: ListWindows) -> None:
    shown = new_id()
    opened.shown(shown, "ann", ["a", "b", "c"])
    assert opened.learn([told(shown, "b"), told(new_id(), "c")]) == 1, "of the other list nothing is known"
    assert opened.learn([told(shown, "b")]) == 0
    clicked, found = read(opened, "ann", "a", "b", "z")
    assert clicked == ["b"]
    assert [count(value) for value in found[:, CLICKS]] == pytest.approx([0, 1, 0])
    mine = PERSON.index("user_clicks_7d")
    assert [count(value) for value in found[:, mine]] == pytest.approx([1, 1, 1])
    nobody, other = read(opened, "", "b")
    assert (nobody, count(other[0, CLICKS])) == ([], pytest.approx(1))


def test_lists_are_counted_as_views_by_a_thread_and_before_the_end(plan: dict[str, Any], online: str) -> None:
    first = ListWindows(plan, online, Answers(None, 3_600))
    for _ in range(3):
        first.shown(new_id(), "ann", ["a", "b"])
    first.close()
    second = ListWindows(plan, online, Answers(None, 3_600))
    _, found = read(second, "ann", "a")
    second.close()
    assert count(found[0, len(PERSON) + ITEM.index("item_views_1h")]) == pytest.approx(3)
    assert count(found[0, PERSON.index("user_views_1d")]) == pytest.approx(6)


def test_two_servers_lose_no_click_of_each_other(plan: dict[str, Any], online: str) -> None:
    servers = [ListWindows(plan, online, Answers(None, 3_600)) for _ in range(2)]

    def click(server: ListWindows) -> None:
        for number in range(25):
            shown = new_id()
            server.shown(shown, f"u{number}", ["a"])
            assert server.learn([told(shown, "a")]) == 1

    threads = [Thread(target=click, args=(one,)) for one in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, found = read(servers[0], "", "a")
    for server in servers:
        server.close()
    assert count(found[0, CLICKS]) == pytest.approx(50, abs=0.01)


def test_what_cannot_be_written_may_come_again_and_what_cannot_be_read_is_left_to_the_snapshot(
    opened: ListWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no space")

    shown = new_id()
    opened.shown(shown, "ann", ["a"])
    with monkeypatch.context() as patched:
        patched.setattr(opened._backend, "update", broken)
        with pytest.raises(PlatformError) as refused:
            opened.learn([told(shown, "a")])
        assert (refused.value.code, refused.value.detail) == ("online_unavailable", "no space")
    assert opened.learn([told(shown, "a")]) == 1
    monkeypatch.setattr(opened._reader, "read_each", broken)
    assert opened.read("ann", ["a"]) is None


def ranked_model(raw: Any) -> Any:
    """The recommender of six items with a ranker that is told of windows."""
    model = small_recommender()
    spec = RankerSpec(
        kind="lambdarank", features=[*FEATURES, *WINDOWED], slope=1, intercept=0, looked=[1.0], candidates=10
    )
    width = len(spec.features)
    arrays: dict[str, Any] = {
        "rank.mean": np.zeros(width),
        "rank.scale": np.ones(width),
        "rank.weights": np.zeros(width + 2),
        "rank.spread": np.zeros((width + 2, width + 2)),
        STATE_ARRAY: np.zeros((6, len(STATE)), np.float32),
    }
    snapshot = (np.zeros((2, len(PERSON))), np.zeros((6, len(ITEM))), np.zeros(len(CONTEXT)))
    arrays |= dict(zip(WINDOW_ARRAYS, snapshot, strict=True))
    return replace(model, ranker=Ranker(spec, raw, arrays))


def by_clicks(found: Any, candidates: Any, history: Any) -> Any:
    return found[:, len(FEATURES) + CLICKS].astype(float)


def test_person_and_candidates_are_read_at_once_and_a_click_joins_the_history() -> None:
    asked = []

    def live(pool: Any) -> Any:
        asked.append(pool.tolist())
        found = windowed({}, len(pool))
        found[:, CLICKS] = pool  # the later an item, the more it is clicked
        return [1], found

    model, none = ranked_model(by_clicks), np.zeros(6, bool)
    plain = model.ranked(np.array([0]), none, 3, 0.0)
    shown = model.ranked(np.array([0]), none, 3, 0.0, live=live)
    assert len(asked) == 1
    assert set(asked[0]) == {1, 2}
    assert (plain.items[:2], shown.items[0]) == (("c", "b"), "c")
    assert "b" not in shown.items, "it was clicked a moment ago"
    assert shown.because[0] == ("b", "a") or set(shown.because[0]) == {"a", "b"}
    stranger = model.ranked(np.array([], np.int64), none, 2, 0.0, live=live)
    assert (asked[1], asked[2]) == ([], [0, 2]) or set(asked[2]) == {0, 2}
    assert set(stranger.items) == {"a", "c"}
    assert stranger.why == ("similar", "similar")


def test_without_an_answer_the_ranker_is_told_what_was_so_when_it_was_trained() -> None:
    told: list[Any] = []

    def raw(found: Any, candidates: Any, history: Any) -> Any:
        told.append(found)
        return np.zeros(len(found))

    model = ranked_model(raw)
    model.ranker.arrays[WINDOW_ARRAYS[1]][2, 0], model.ranker.arrays[WINDOW_ARRAYS[0]][1, 0] = 5, 7
    model.ranked(np.array([0]), np.zeros(6, bool), 2, 0.0, person=1, live=lambda pool: None)
    late = told[0][:, len(FEATURES) :]
    assert sorted(late[:, len(PERSON)].tolist()) == [0, 5]
    assert late[:, 0].tolist() == [7, 7]
    assert model.relevance(np.array([0]), np.array([1, 2])).shape == (2,), "of nobody known"


def test_the_store_is_opened_for_rankers_that_are_told_of_it(plan: dict[str, Any], online: str, tmp_path: Path) -> None:
    adapters = SimpleNamespace(wait_seconds=60)

    def opening(model: Any, address: str, given: Any = plan) -> Any:
        engine: Any = SimpleNamespace(model=model, plan=given)
        return open_windows(engine, SimpleNamespace(online=address, name="r", adapters=adapters))  # type: ignore[arg-type]

    model = ranked_model(by_clicks)
    found = opening(model, online)
    assert isinstance(found, windows.ListWindows)
    found.close()
    assert (opening(model, ""), opening(small_recommender(), online), opening(model, online, None)) == (None,) * 3
    with pytest.raises(PlatformError, match="has not been materialised"):
        opening(model, str(tmp_path / "none.db"))
