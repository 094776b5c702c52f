"""``POST /predict`` of a model that gets all its inputs in the request."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from services.model.scoring import Work

GOOD = {"amount": 500, "country": "AT"}


def test_an_answer_carries_model_version_label_and_probabilities(serve: Any, make_bundle: Any) -> None:
    answer = serve(make_bundle()).predict(GOOD, {"amount": 100.5, "country": "DE"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["version"]) == ("payments", "3")
    first, second = body["predictions"]
    assert (first["label"], first["probability"], first["threshold"]) == ("fraud", 0.5, 0.3)
    assert first["probabilities"] == {"genuine": 0.5, "fraud": 0.5}
    assert (second["label"], second["probability"]) == ("genuine", pytest.approx(0.1005))
    assert len({first["id"], second["id"]}) == 2
    assert "reasons" not in first


def test_the_threshold_itself_is_positive(serve: Any, make_bundle: Any) -> None:
    body = serve(make_bundle()).predict({"amount": 300, "country": "AT"}).json()
    assert body["predictions"][0]["label"] == "fraud"


@pytest.mark.parametrize(("explain", "count"), [(1, 1), (2, 2), (True, 2), (False, None), (0, None)])
def test_reasons_come_on_request(serve: Any, make_bundle: Any, explain: Any, count: int | None) -> None:
    prediction = serve(make_bundle()).predict(GOOD, explain=explain).json()["predictions"][0]
    if count is None:
        assert "reasons" not in prediction
    else:
        assert len(prediction["reasons"]) == count
        assert prediction["reasons"][0] == {"feature": "amount", "value": 1.0, "contribution": 2.5}


def test_a_model_without_decision_answers_its_most_probable_class(serve: Any, make_text_bundle: Any) -> None:
    served = serve(make_text_bundle())
    prediction = served.predict({"title": "t", "content": "c"}).json()["predictions"][0]
    assert (prediction["label"], prediction["probability"]) == ("science", 0.5)
    assert "threshold" not in prediction
    refused = served.predict({"title": "t", "content": "c"}, explain=3)
    assert refused.status_code == 422
    assert refused.json()["type"].endswith("not-explainable")


@pytest.mark.parametrize(
    ("instance", "flags"),
    [
        (GOOD, []),
        ({"amount": 500, "country": "FR"}, ["unknown_category:country"]),
        ({"amount": -1, "country": "AT"}, ["out_of_range:amount"]),
        ({"amount": None, "country": None}, ["missing:amount", "missing:country"]),
    ],
)
def test_odd_but_servable_values_are_flagged(
    serve: Any, make_bundle: Any, instance: dict[str, Any], flags: list[str]
) -> None:
    answer = serve(make_bundle()).predict(instance)
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["flags"] == flags


def test_a_missing_number_reaches_the_model_as_nan(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    served.predict({"amount": None, "country": "AT"})
    assert np.isnan(served.engine.seen[-1]["amount"][0])


@pytest.mark.parametrize(
    ("instance", "field", "message"),
    [
        ({"amount": "secret", "country": "AT"}, "instances[0].amount", "expected a number, got a string"),
        ({"amount": True, "country": "AT"}, "instances[0].amount", "expected a number, got boolean"),
        ({"amount": [1], "country": "AT"}, "instances[0].amount", "expected a number, got array"),
        ({"amount": 1, "country": 7}, "instances[0].country", "expected a string, got integer"),
        ({"amount": 1, "country": "AT", "color": "red"}, "instances[0].color", "accepted: amount, country"),
        ({"country": "AT"}, "instances[0].amount", "missing"),
        ([1, 2], "instances[0]", "expected an object"),
        ("amount", "instances[0]", "expected an object"),
    ],
)
def test_a_wrong_instance_is_refused_by_name(
    serve: Any, make_bundle: Any, instance: Any, field: str, message: str
) -> None:
    answer = serve(make_bundle()).predict(instance)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    errors = answer.json()["errors"]
    assert any(error["field"] == field and message in error["message"] for error in errors), errors
    assert "secret" not in answer.text


def test_every_wrong_row_is_named(serve: Any, make_bundle: Any) -> None:
    errors = serve(make_bundle()).predict(GOOD, {"amount": "x", "country": "AT"}, {"amount": 1}).json()["errors"]
    assert [error["field"] for error in errors] == ["instances[2].country"]
    errors = serve(make_bundle()).predict(GOOD, {"amount": "x", "country": "AT"}).json()["errors"]
    assert [error["field"] for error in errors] == ["instances[1].amount"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "malformed-json"),
        (b"", 400, "malformed-json"),
        (b'{"instances": [{"amount": NaN, "country": "AT"}]}', 400, "malformed-json"),
        (b'{"instances": [{"amount": 1e999, "country": "AT"}]}', 400, "malformed-json"),
        (b'{"instances": [{"amount": 1, "country": "\xff"}]}', 400, "malformed-json"),
        (b"[" * 3000, 400, "malformed-json"),
        (b"[]", 422, "invalid-input"),
        (b"{}", 422, "invalid-input"),
        (b'{"instances": []}', 422, "invalid-input"),
        (b'{"instances": {}}', 422, "invalid-input"),
        (b'{"instances": [{}], "explain": -1}', 422, "invalid-input"),
        (b'{"instances": [{}], "explain": 1000}', 422, "invalid-input"),
        (b'{"instances": [{}], "explian": 1}', 422, "invalid-input"),
        (b'{"instances": [' + b"1," * 20 + b"1]}", 413, "too-many-rows"),
    ],
)
def test_a_wrong_document_is_a_problem(serve: Any, make_bundle: Any, body: bytes, status: int, word: str) -> None:
    client = serve(make_bundle(), max_instances=20).client
    answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:fairlead:problem:{word}")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_large_text_is_accepted_up_to_the_limit_and_refused_quickly_above(serve: Any, make_text_bundle: Any) -> None:
    served = serve(make_text_bundle(), max_text_chars=10_000)
    assert served.predict({"title": "t", "content": "x" * 10_000}).status_code == 200
    answer = served.predict({"title": "t", "content": "x" * 1_000_000})
    assert answer.status_code == 422
    assert "at most 10000" in answer.json()["errors"][0]["message"]
    assert answer.elapsed.total_seconds() < 0.5
    assert "xxx" not in answer.text


def test_a_large_number_of_errors_is_cut(serve: Any, make_bundle: Any) -> None:
    body = serve(make_bundle()).predict(*[{"amount": "x", "country": "AT"}] * 100).json()
    assert (len(body["errors"]), body["more_errors"]) == (20, 80)


def test_many_reasons_are_given_in_the_order_of_the_rows(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    predictions = served.predict(*[GOOD] * 40, explain=1).json()["predictions"]
    assert [len(one["reasons"]) for one in predictions] == [1] * 40


def test_reasons_that_nobody_waits_for_are_given_up(serve: Any, make_bundle: Any) -> None:
    model = serve(make_bundle()).runtime.model()
    work = Work(batch=model.schemas.by_features.rows([GOOD] * 40), top=1)
    work.given_up = True
    with pytest.raises(TimeoutError):
        model.score_all([work])
    assert model.score_all([Work(batch=work.batch)])[0].reasons == []


def test_a_large_request_is_several_calls_and_one_answer(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle(), max_batch_rows=64)
    rows = [{"amount": at, "country": "XX" if at == 150 else "AT"} for at in range(200)]
    predictions = served.client.post("/predict", json={"instances": rows, "explain": 1}).json()["predictions"]
    assert [one["probability"] for one in predictions] == pytest.approx([at / 1000 for at in range(200)])
    assert [at for at, one in enumerate(predictions) if one["flags"]] == [150]
    assert all(one["reasons"][0]["feature"] == "amount" for one in predictions)
    assert max(len(call["amount"]) for call in served.engine.seen) == 64


def test_one_row_that_the_model_cannot_take_fails_its_whole_request(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle(), max_batch_rows=64)
    predict = served.engine.predict

    def picky(columns: Any) -> Any:
        if 150.0 in columns["amount"]:
            raise ValueError("no")
        return predict(columns)

    served.engine.predict = picky
    rows = [{"amount": at, "country": "AT"} for at in range(200)]
    assert served.client.post("/predict", json={"instances": rows}).status_code == 500
    assert served.client.post("/predict", json={"instances": rows[:100]}).status_code == 200


@pytest.mark.parametrize(("amount", "count"), [(500, 1), (100, 0)])
def test_a_refusal_says_what_counted_against_in_words(
    serve: Any, make_bundle: Any, tmp_path: Any, amount: float, count: int
) -> None:
    texts = {name: {"en": f"{name} in English", "zh": f"{name}：中文"} for name in ("amount", "x")}
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "reasons.json").write_text(json.dumps({"favourable": "genuine", "texts": texts}))
    served = serve(make_bundle())
    instance = {"amount": amount, "country": "AT"}
    prediction = served.predict(instance, explain=1).json()["predictions"][0]
    assert len(prediction["reasons"]) == 1
    against = {"feature": "amount", "en": "amount in English", "zh": "amount：中文"}
    assert prediction["principal_reasons"] == [against][:count]
    assert "principal_reasons" not in served.predict(instance).json()["predictions"][0]
    properties = served.client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]["properties"]
    assert properties["principal_reasons"]["maxItems"] == 4


def test_a_model_that_refers_says_so(serve: Any, make_bundle: Any) -> None:
    decision = {"positive": "fraud", "threshold": 0.3, "false_positive_cost": 1, "false_negative_cost": 10}
    served = serve(make_bundle(decision={**decision, "refer": [0.2, 0.4]}))
    found = served.predict(*({"amount": amount, "country": "AT"} for amount in (190, 200, 390, 400))).json()
    assert [one["refer"] for one in found["predictions"]] == [False, True, True, False]
    assert "refer" not in serve(make_bundle()).predict(GOOD).json()["predictions"][0]
