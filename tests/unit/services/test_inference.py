"""Open Inference Protocol v2."""

from __future__ import annotations

from typing import Any

import pytest

AMOUNT = {"name": "amount", "shape": [2], "datatype": "FP64", "data": [500, 100]}
COUNTRY = {"name": "country", "shape": [2], "datatype": "BYTES", "data": ["AT", "XX"]}


def infer(served: Any, *inputs: Any, path: str = "/v2/models/payments/infer", **members: Any) -> Any:
    return served.client.post(path, json={"inputs": list(inputs), **members})


def test_tensors_in_and_out(serve: Any, make_bundle: Any) -> None:
    answer = infer(serve(make_bundle()), AMOUNT, COUNTRY, id="mine")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("payments", "3", "mine")
    outputs = {tensor["name"]: tensor for tensor in body["outputs"]}
    assert outputs["probabilities"]["shape"] == [2, 2]
    assert outputs["probabilities"]["data"] == pytest.approx([0.5, 0.5, 0.9, 0.1])
    assert outputs["label"] == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["fraud", "genuine"]}
    assert outputs["flags"]["data"] == ["", "unknown_category:country"]
    assert len(set(outputs["prediction_id"]["data"])) == 2


def test_members_that_the_protocol_does_not_know_are_passed_over(serve: Any, make_bundle: Any) -> None:
    """The document of KServe's client, and what others add."""
    served = serve(make_bundle())
    plain = infer(served, AMOUNT, COUNTRY, id="mine").json()
    of_kserve = infer(served, AMOUNT, COUNTRY, id="mine", model_name="payments")
    others = infer(served, AMOUNT | {"raw": 1}, COUNTRY, model_version="3", id="mine", parameters=None, x={"y": [1]})
    for answer in (of_kserve, others):
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"][:2] == plain["outputs"][:2]
    assert infer(served, AMOUNT, COUNTRY, id=None).json()["id"]


def test_columns_of_shape_rows_by_one_and_nested_data_are_accepted(serve: Any, make_bundle: Any) -> None:
    nested = {"name": "amount", "shape": [2, 1], "datatype": "FP32", "data": [[500], [100]]}
    flat = {"name": "country", "shape": [2, 1], "datatype": "BYTES", "data": ["AT", "DE"]}
    assert infer(serve(make_bundle()), nested, flat).status_code == 200


def test_only_the_requested_outputs_come_back(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    body = infer(served, AMOUNT, COUNTRY, outputs=[{"name": "label"}]).json()
    assert [tensor["name"] for tensor in body["outputs"]] == ["label"]
    assert infer(served, AMOUNT, COUNTRY, outputs=[{"name": "logits"}]).status_code == 400


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"datatype": "BYTES"}, "inputs.amount.datatype"),
        ({"datatype": "INT64"}, "inputs.amount.datatype"),
        ({"shape": [3]}, "inputs.amount.data"),
        ({"shape": [2, 2]}, "inputs.amount.shape"),
        ({"shape": []}, "inputs.amount.shape"),
        ({"shape": [-1]}, "inputs.amount.shape"),
        ({"shape": ["2"]}, "inputs.amount.shape"),
        ({"shape": [1], "data": [1]}, "inputs"),
        ({"data": [1]}, "inputs.amount.data"),
        ({"data": "AAA="}, "inputs[0].data"),
        ({"name": "color"}, "inputs.color"),
        ({"name": None}, "inputs[0].name"),
    ],
)
def test_a_wrong_tensor_is_refused_by_name(serve: Any, make_bundle: Any, change: Any, field: str) -> None:
    answer = infer(serve(make_bundle()), AMOUNT | change, COUNTRY)
    assert answer.status_code == 400
    body = answer.json()
    assert body["errors"][0]["field"] == field
    assert field in body["error"]


def test_values_that_do_not_fit_the_datatype_are_refused(serve: Any, make_bundle: Any) -> None:
    answer = infer(serve(make_bundle()), AMOUNT | {"data": [1, "secret"]}, COUNTRY)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "inputs.amount[1]", "message": "expected a number, got a string of 6 characters"}
    ]


@pytest.mark.parametrize("body", [[], {}, {"inputs": {}}, {"inputs": [1]}, {"inputs": [], "id": 3}, {"inputs": []}])
def test_what_is_no_inference_request_is_refused(serve: Any, make_bundle: Any, body: Any) -> None:
    answer = serve(make_bundle()).client.post("/v2/models/payments/infer", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_missing_and_repeated_tensors_are_named(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    assert infer(served, AMOUNT).json()["errors"] == [{"field": "inputs.country", "message": "missing tensor"}]
    assert infer(served, AMOUNT, AMOUNT, COUNTRY).json()["errors"][0]["message"] == "given more than once"


def test_an_enormous_shape_is_refused_without_work(serve: Any, make_bundle: Any) -> None:
    answer = infer(serve(make_bundle()), AMOUNT | {"shape": [10**12]}, COUNTRY)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/payments", 200),
        ("/v2/models/payments/versions/3", 200),
        ("/v2/models/payments/ready", 200),
        ("/v2/models/payments/versions/3/ready", 200),
        ("/v2/models/other", 404),
        ("/v2/models/payments/versions/4", 404),
        ("/v2/models/other/ready", 404),
        ("/v2/models//ready", 404),
    ],
)
def test_models_are_addressed_by_name_and_version(serve: Any, make_bundle: Any, path: str, status: int) -> None:
    answer = serve(make_bundle()).client.get(path)
    assert answer.status_code == status
    if status == 404:
        assert answer.json()["error"]


def test_infer_by_version(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    assert infer(served, AMOUNT, COUNTRY, path="/v2/models/payments/versions/3/infer").status_code == 200
    assert infer(served, AMOUNT, COUNTRY, path="/v2/models/other/infer").status_code == 404


def test_metadata_describes_inputs_and_outputs(serve: Any, make_bundle: Any) -> None:
    client = serve(make_bundle()).client
    body = client.get("/v2/models/payments").json()
    assert body["inputs"] == [
        {"name": "amount", "datatype": "FP64", "shape": [-1]},
        {"name": "country", "datatype": "BYTES", "shape": [-1]},
    ]
    assert body["outputs"][0] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}
    assert body["versions"] == ["3"]
    assert client.get("/v2").json()["name"] == "fairlead-tabular"
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
