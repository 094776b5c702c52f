"""``POST /recommend``: lists for people and sessions, what is refused, what is denied, logged and counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jsonschema
import numpy as np
import pytest

from contracts import metric_names as names
from contracts.errors import PlatformError
from contracts.groups import PEOPLE, TRENDS, Groups
from services.monitor.reference import FOREIGN, column_of
from services.problems.ranking import EMPTY, SERVING
from services.recommend import denied
from services.recommend.denied import DenyList
from tests.problem_bundles import lists, small_recommender


def grouped() -> Any:
    """Two regions: e and f are popular in the north, all items alike in the south, as among all people."""
    model = small_recommender()
    rows = (np.array([0, 3, 9]), np.array([4, 5, 0, 0, 1, 2, 3, 4, 5]), np.array([1, 0.8, 0.4, *[1] * 6], np.float32))
    arrays = dict(zip(TRENDS, (*rows, np.array([1, 1, *[0] * 7], bool)), strict=True))
    people = np.array([[0], [-1], [-2], [0]], np.int32)
    groups = Groups({"region": ["north", "south"]})
    return replace(model, arrays={**model.arrays, **arrays, PEOPLE: people}, groups=groups)


def recommend(served: Any, **body: Any) -> Any:
    return served.client.post("/recommend", json=body)


def items(served: Any, **body: Any) -> list[str]:
    return [one["item"] for one in recommend(served, **body).json()["items"]]


def test_people_and_sessions_get_lists_that_say_why(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(lists(tmp_path))
    answer = recommend(served, user="ann", k=2).json()
    document = served.client.get("/openapi.json").json()
    schema = document["paths"]["/recommend"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, schema | {"components": document["components"]})
    assert [(one["item"], one["why"], one["because"]) for one in answer["items"]] == [
        ("c", "similar", ["a"]),
        ("b", "similar", ["a"]),
    ]
    assert (answer["diversity"], answer["tail"], answer["flags"]) == (0.0, 1.0, [])
    assert items(served, items=["a"], k=2) == ["c", "b"]
    assert items(served, user="ann", k=2, exclude=["c"]) == ["b", "d"]
    assert items(served, user="ann", context={"attributes": ["quiet"]}) == ["d", "e", "f"]
    assert len(items(served)) == 3, "as many as the recipe says"
    example = document["paths"]["/recommend"]["post"]["requestBody"]["content"]["application/json"]["schema"]["example"]
    assert recommend(served, **example).status_code == 200


def test_who_is_unknown_and_who_has_nothing_left_is_served_too(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(lists(tmp_path))
    stranger = recommend(served, user=77).json()
    assert [one["why"] for one in stranger["items"]] == ["popular"] * 3
    assert stranger["flags"] == ["unknown_user"]
    nothing = recommend(served, user="ann", exclude=list("abcdef")).json()
    assert (nothing["items"], nothing["novelty"]) == ([], None)
    assert items(served, user="ann", context={"attributes": ["nobody has this"]}) == []
    assert items(served, items=["gone", "a"]) == items(served, items=["a"]), "an item that was deleted adds nothing"


def test_names_that_the_model_does_not_know_are_flagged_not_passed_over_in_silence(
    serve_bundle: Any, tmp_path: Path
) -> None:
    served = serve_bundle(lists(tmp_path))
    for request, flags in (
        ({"items": ["a", "zzz"]}, ["unknown_items"]),
        ({"items": [" a"]}, ["unknown_items"]),
        ({"user": "ann", "context": {"attributes": ["loud", "LOUD"]}}, ["unknown_attributes"]),
        ({"user": "ann", "items": ["b"], "exclude": ["zzz"], "context": {"attributes": ["loud"]}}, []),
    ):
        assert served.client.post("/recommend", json=request).json()["flags"] == flags


def test_what_is_popular_near_somebody_says_so_and_where(serve_bundle: Any, tmp_path: Path) -> None:
    """near: by the table of the people, or by the request, which goes before; what is not known is not guessed."""
    served = serve_bundle(lists(tmp_path, grouped()))
    stranger = recommend(served, user="new", context={"region": "north"}).json()
    assert [(one["item"], one["why"], one.get("group")) for one in stranger["items"]] == [
        ("e", "near", "region=north"),
        ("f", "near", "region=north"),
        ("a", "popular", None),
    ]
    document = served.client.get("/openapi.json").json()
    schema = document["paths"]["/recommend"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(stranger, schema | {"components": document["components"]})
    overall = ["a", "d", "b"]
    for request, wanted, flags in (
        ({"context": {"region": "north"}}, ["e", "f", "a"], []),
        ({"user": "dan"}, ["e", "f", "a"], ["unknown_user"]),
        ({"user": "cat"}, overall, ["unknown_user", "small_group"]),
        ({"user": "dan", "context": {"region": "West"}}, overall, ["unknown_user", "unknown_group"]),
        ({"user": "ann"}, ["c", "b", "e"], []),
        ({"user": "bob", "context": {"region": "north"}}, ["f", "a", "b"], []),
        ({}, overall, []),
    ):
        answer = recommend(served, **request).json()
        assert ([one["item"] for one in answer["items"]], answer["flags"]) == (wanted, flags), request
    (row,) = served.predict({"group": "region=north"}).json()["predictions"]
    assert [one["item"] for one in row["items"]] == ["e", "f", "a"]


@pytest.mark.parametrize("region", [["north"], "", "a|b", 1.5, "x" * 257])
def test_a_group_that_is_no_name_is_refused_and_so_is_one_that_no_model_knows(
    serve_bundle: Any, tmp_path: Path, region: Any
) -> None:
    served = serve_bundle(lists(tmp_path, grouped()))
    for context, said in (
        ({"region": region}, "expected region to be a name of 1 to 256"),
        ({"sex": "f"}, '"region" of'),
    ):
        answer = recommend(served, context=context)
        assert answer.status_code == 422
        assert said in answer.json()["errors"][0]["message"]


def test_more_diversity_is_given_to_who_asks(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(lists(tmp_path, pool=6))
    level = [recommend(served, items=["a", "e"], k=2, diversity=at).json()["diversity"] for at in (0, 1)]
    assert level[0] < level[1]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"k": 0}, "k", "whole number from 1 to 5"),
        ({"k": 10_000}, "k", "whole number from 1 to 5"),
        ({"k": True}, "k", "whole number"),
        ({"diversity": 1.5}, "diversity", "from 0 to 1"),
        ({"diversity": "much"}, "diversity", "from 0 to 1"),
        ({"user": ["ann"]}, "user", "a text of at most 256"),
        ({"items": "a"}, "items", "a list of at most 10000 names"),
        ({"exclude": ["a|b"]}, "exclude", "without |"),
        ({"exclude": [""]}, "exclude", "1 to 256 characters"),
        ({"context": {"place": "home"}}, "context", 'an object with "attributes"'),
        ({"context": {"age": -1}}, "context", "an age from 0 to 150"),
        ({"context": {"age": "old"}}, "context", "an age from 0 to 150"),
        ({"users": "ann"}, "users", "unknown member; accepted: user, items, k"),
    ],
)
def test_what_cannot_be_asked_is_named(
    serve_bundle: Any, tmp_path: Path, body: dict[str, Any], field: str, said: str
) -> None:
    answer = recommend(serve_bundle(lists(tmp_path)), **body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert said in error["message"]


def test_rows_that_ask_for_too_much_are_flagged_and_get_what_there_is(serve_bundle: Any, tmp_path: Path) -> None:
    row = {"user": "ann", "items": None, "k": 10_000, "diversity": 0, "exclude": "", "attributes": ""}
    (one,) = serve_bundle(lists(tmp_path)).predict(row).json()["predictions"]
    assert len(one["items"]) == 5
    assert "out_of_range:k" in one["flags"]


def test_what_a_row_leaves_out_is_the_default_without_a_flag(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(lists(tmp_path))
    ann, nobody = served.predict({"user": "ann"}, {}).json()["predictions"]
    assert [one["item"] for one in ann["items"]] == items(served, user="ann")
    assert [one["item"] for one in nobody["items"]] == items(served)
    assert ann["flags"] == nobody["flags"] == []
    tensor = {"name": "user", "datatype": "BYTES", "shape": [1], "data": ["ann"]}
    answer = served.client.post("/v2/models/ranking/infer", json={"inputs": [tensor]}).json()["outputs"][0]
    assert answer["data"][:3] == items(served, user="ann")
    nothing = served.client.post("/v2/models/ranking/infer", json={"inputs": []})
    assert (nothing.status_code, nothing.json()["errors"][0]["message"]) == (400, "the tensors have no rows")


def test_what_is_denied_is_never_listed_and_the_file_is_read_again(
    serve_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denied, "_LOOK_AGAIN_SECONDS", 0.0)
    file = tmp_path / "denied.txt"
    file.write_text("c\n\nnothing\n")
    served = serve_bundle(lists(tmp_path), deny_file=str(file))
    assert items(served, user="ann", k=2) == ["b", "d"]
    file.write_text("b")
    assert items(served, user="ann", k=2) == ["c", "d"]
    file.unlink()
    assert items(served, user="ann", k=2) == ["c", "d"], "the last list holds"
    file.write_text("")
    assert items(served, user="ann", k=2) == ["c", "b"]


def test_a_deny_list_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="the deny list cannot be read") as caught:
        DenyList(str(tmp_path / "denied.txt"))
    assert "deny_file" in str(caught.value.fix)


def test_lists_are_counted_observed_and_logged_with_their_propensity(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(lists(tmp_path), predictions={"folder": str(tmp_path / "log")})
    first = recommend(served, user="ann", k=2).json()
    recommend(served, user="ann", exclude=list("abcdef"))
    labels = {"labels": [{"id": first["id"], "label": ["b", "z"]}]}
    assert served.client.post("/feedback", json=labels).json()["accepted"] == 1
    assert served.client.post("/feedback", json={"labels": [{"id": first["id"], "label": "b"}]}).status_code == 422
    served.runtime.log.close()
    both = {"model": "ranking", "version": "3"}
    assert {label: count.value for label, count in served.runtime.metrics.labels.items()} == {"list": 1, EMPTY: 1}
    assert served.metric(f"{names.LIST_DIVERSITY}_count", **both) == 1
    lines = [json.loads(line) for file in (tmp_path / "log").rglob("*.jsonl") for line in file.open()]
    shown, empty = (line for line in lines if "items" in line)
    assert (shown["items"], shown["propensity"], shown["why"]) == (["c", "b"], [1.0, 1.0], "similar")
    assert shown["id"] == first["id"]
    assert "ann" not in json.dumps(lines)
    watched = SERVING.watched(shown)
    assert watched["answer"] == pytest.approx(first["novelty"], abs=1e-6)
    assert (watched["listed"], SERVING.watched(empty)["listed"], SERVING.watched({})) == (2, 0, {})


def test_what_people_take_of_lists_is_measured() -> None:
    shown: list[dict[str, Any]] = [{"items": ["a", "b"]}, {"items": ["c"]}, {"items": []}]
    output: Any = None
    found = SERVING.measure(output, None, shown, [["b", "z"], ["c"], ["d"]])(None)
    assert found == pytest.approx({"taken": 2 / 3, "taken_reciprocal_rank": (0.5 + 1) / 3})
    assert [SERVING.is_right(one, taken, {}) for one, taken in zip(shown, (["b"], ["x"], []), strict=True)] == [
        True,
        False,
        False,
    ]


def test_monitors_see_a_list_that_is_unlike_those_of_the_evaluation(tmp_path: Path) -> None:
    from contracts.baseline import describe_answers
    from contracts.problems import read_output
    from pipelines.evaluation import get_evaluation

    output: Any = read_output({"problem": "ranking", "k": 3, "longest": 5, "catalogue": 6})
    answers = np.empty(60, dtype=object)
    model, empty = small_recommender(), np.zeros(6, bool)
    for at in range(60):
        answers[at] = model.ranked(np.array([at % 3, 3 + at % 2]), empty, 1 + at % 3, 0.0)
    evaluation = get_evaluation("ranking")
    normal = describe_answers(evaluation.watched(output, None, answers))
    logged = [SERVING.watched(SERVING.record(cast(Any, answers), cast(Any, evaluation), at)) for at in range(60)]
    assert set(normal) == set(logged[0]) == {"answer", "diversity", "calibration", "tail", "listed", "why"}
    for name, described in normal.items():
        column: Any = column_of(name, described)
        places = column.place([one[name] for one in logged])
        assert FOREIGN not in places, name
    wide: Any = column_of("listed", normal["listed"])
    assert wide.place([50.0]).tolist() == [FOREIGN]


def test_what_is_left_to_chance_is_logged_with_its_chance_and_rows_get_the_same_list(
    serve_bundle: Any, tmp_path: Path
) -> None:
    served = serve_bundle(
        lists(tmp_path, explore="epsilon", epsilon=0.5), predictions={"folder": str(tmp_path / "log")}
    )
    shown = {tuple(items(served, user="ann", exclude=["f"])) for _ in range(20)}
    assert len(shown) > 1
    rows = {str(served.predict({"user": "ann"}).json()["predictions"][0]["items"]) for _ in range(10)}
    assert len(rows) == 1, "golden examples are answered as they were"
    served.runtime.log.close()
    lines = [json.loads(line) for file in (tmp_path / "log").rglob("*.jsonl") for line in file.open()]
    assert not any("f" in line["items"] for line in lines[:20])
    assert all(0 < chance < 1 for line in lines[:20] for chance in line["propensity"])
    assert lines[-1]["propensity"] == [1.0] * 3
