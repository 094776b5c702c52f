"""Every problem through the whole service, with the engines that answer it; and one that another package brings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import jsonschema
import numpy as np
import pytest

from contracts import metric_names as names
from contracts.bundle import Bundle
from contracts.errors import PlatformError
from services.oip import binary as oip_binary
from services.oip import oip_pb2 as pb
from services.oip.grpc_server import SERVICE, GrpcServer
from services.problems import get_serving
from services.problems.generation import EMPTY, REFUSED, SERVING
from services.problems.multilabel import NONE
from services.problems.regression import edges
from services.server.golden import check
from services.server.lifecycle import MODALITIES
from services.settings import ServiceSettings
from tests.packages import install_counts
from tests.problem_bundles import (
    OF_MODALITIES,
    SOME_NUMBERS,
    SOME_TEXTS,
    complaints,
    documents,
    extracts,
    house_labels,
    house_prices,
    linear_prices,
    linear_vectors,
    lists,
    name_tagger,
    publish,
    vectors,
    written,
)

MAKERS = (
    house_prices, house_labels, complaints, vectors, linear_prices, linear_vectors, extracts, lists, name_tagger,
    documents, written,
)  # fmt: skip


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    make: Callable[[Path], Bundle] = request.param
    return make(tmp_path)


def rows_of(bundle: Bundle) -> list[dict[str, Any]]:
    found: dict[str, Any] = {"text": SOME_TEXTS, **OF_MODALITIES}
    rows: list[dict[str, Any]] = found.get(bundle.document.modality, SOME_NUMBERS)
    return rows


def tensors_of(bundle: Bundle) -> list[dict[str, Any]]:
    rows = rows_of(bundle)
    kinds = {"string": "BYTES", "float64": "FP64", "int64": "INT64"}
    return [
        {
            "name": item.name,
            "datatype": kinds[item.dtype],
            "shape": [len(rows)],
            "data": [row[item.name] for row in rows],
        }
        for item in bundle.document.signature.inputs
    ]


def test_predict_answers_as_the_document_says_and_golden_examples_are_asked(
    bundle: Bundle, serve_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve_bundle(bundle)
    answer = served.predict(*rows_of(bundle)).json()
    document = served.client.get("/openapi.json").json()
    post = document["paths"]["/predict"]["post"]
    schema = post["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, schema | {"components": document["components"]})
    for one in answer["predictions"]:
        changed = {**one, next(name for name in one if name not in ("id", "flags")): {"no": "answer"}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**answer, "predictions": [changed]}, schema | {"components": document["components"]})
    signature = bundle.document.signature
    answers = get_serving(signature.problem).answers(signature.output, answer["predictions"])
    for row, golden in enumerate(bundle.golden()):
        assert signature.problem.differs(signature.output, golden.expected, answers, row, 1e-6) == ""
    monkeypatch.setattr("services.server.golden._ask", served.ask)
    assert check(bundle, "") == len(rows_of(bundle))


def test_tensors_are_those_of_the_metadata_in_json_in_bytes_and_over_grpc(bundle: Bundle, serve_bundle: Any) -> None:
    served, name = serve_bundle(bundle), bundle.document.name
    client, rows = served.client, len(rows_of(bundle))
    request = {"inputs": tensors_of(bundle)}
    found = client.post(f"/v2/models/{name}/infer", json=request).json()["outputs"]
    said = client.get(f"/v2/models/{name}").json()["outputs"]
    assert [one["name"] for one in said[-2:]] == ["prediction_id", "flags"]
    for tensor, announced in zip(found, said, strict=True):
        assert (tensor["name"], tensor["datatype"]) == (announced["name"], announced["datatype"])
        assert tensor["shape"] == [rows, *announced["shape"][1:]]
        assert len(tensor["data"]) == np.prod(tensor["shape"])
    wanted = [{"name": one["name"]} for one in said[:-2]]
    whole = {**request, "outputs": wanted, "parameters": {"binary_data_output": True}}
    answer = client.post(f"/v2/models/{name}/infer", json=whole)
    size = int(answer.headers["inference-header-content-length"])
    header, at = json.loads(answer.content[:size]), size
    for tensor, one in zip(header["outputs"], found, strict=False):
        length = tensor["parameters"]["binary_data_size"]
        same(oip_binary.decode(one["datatype"], memoryview(answer.content)[at : at + length], "x"), one["data"])
        at += length
    for tensor, one in zip(over_grpc(bundle, wanted).outputs, found, strict=False):
        assert list(tensor.shape) == one["shape"]
        said_there = tensor.contents.fp64_contents or tensor.contents.bytes_contents or tensor.contents.bool_contents
        same(list(said_there), one["data"])
    refused = client.post(f"/v2/models/{name}/infer", json={**request, "outputs": [{"name": "label"}]})
    assert refused.status_code == 400
    assert wanted[0]["name"] in refused.json()["errors"][0]["message"]


def same(got: Sequence[Any], expected: Sequence[Any]) -> None:
    """Texts travel as bytes; a graph of int8 aside, numbers do not depend on the way."""
    if expected and isinstance(expected[0], str):
        assert [bytes(value).decode() for value in got] == list(expected)
    else:
        assert list(got) == pytest.approx(list(expected), rel=1e-9)


def over_grpc(bundle: Bundle, outputs: list[dict[str, Any]]) -> Any:
    message = pb.ModelInferRequest(model_name=bundle.document.name)
    for tensor in tensors_of(bundle):
        one = message.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        if tensor["datatype"] == "BYTES":
            one.contents.bytes_contents.extend(text.encode() for text in tensor["data"])
        elif tensor["datatype"] == "INT64":
            one.contents.int64_contents.extend(tensor["data"])
        else:
            one.contents.fp64_contents.extend(tensor["data"])
    for output in outputs:
        message.outputs.add(name=output["name"])

    async def story() -> Any:
        runtime = MODALITIES.get(bundle.document.modality).make()
        await runtime.start(ServiceSettings(bundle=str(bundle.path), version="3"))
        await runtime.loaded()
        server = GrpcServer(runtime)
        port = await server.start("127.0.0.1", 0)
        runtime.on_stop.append(server.stop)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            infer = channel.unary_unary(
                f"/{SERVICE}/ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
            )
            answer = await infer(message)
        await runtime.stop()
        return answer

    return asyncio.run(asyncio.wait_for(story(), 20))


def counted(served: Any, tmp_path: Path, rows: Sequence[Any]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Counts by label, and the records of the log, after `rows` were predicted."""
    assert served.predict(*rows).status_code == 200
    served.runtime.log.close()
    counts = {label: count.value for label, count in served.runtime.metrics.labels.items()}
    lines = [line for file in (tmp_path / "log").rglob("*.jsonl") for line in file.read_text().splitlines()]
    return counts, [json.loads(line) for line in lines]


def test_values_are_counted_observed_and_logged(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(house_prices(tmp_path), predictions={"folder": str(tmp_path / "log")})
    counts, log = counted(served, tmp_path, SOME_NUMBERS)
    assert counts == {"value": 3}
    both = {"model": "regression", "version": "3"}
    assert served.metric(f"{names.VALUE}_count", **both) == 3
    assert served.metric(f"{names.VALUE}_sum", **both) == pytest.approx(sum(one["value"] for one in log))
    below = [int(served.metric(f"{names.VALUE}_bucket", **both, le=str(edge))) for edge in sorted_edges(served)]
    assert 0 in below
    assert {1, 2} & set(below), "the edges tell the golden examples apart"
    for one in log:
        low, high = one["interval"]
        assert low <= one["value"] <= high
        assert 20_000 < one["value"] < 700_000
        assert one["inputs"]["size"] in (40.0, 75.0, 120.0)
    assert names.SCORE not in served.client.get("/metrics").text


def sorted_edges(served: Any) -> list[str]:
    found = {
        sample.labels["le"]
        for family in served.runtime.metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"{names.VALUE}_bucket"
    }
    return sorted(found, key=float)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 280.0, 1e9])
def test_edges_fit_any_scale(scale: float) -> None:
    values = [scale * (1 + at / 100) for at in range(21)]
    found = edges(values)
    assert len(found) == 13
    assert found[0] < values[0] <= values[-1] < found[-1]
    assert sum(values[0] < edge < values[-1] for edge in found) >= 8


def test_edges_of_one_value_and_of_none() -> None:
    assert edges([5.0]) == (0.0, 5.0, 10.0)
    assert edges([0.0, 0.0]) == (0.0, 1.0)
    assert edges([-4.0, 6.0]) == (-14.0, -4.0, 6.0, 16.0)
    assert edges([]) == ()


def test_each_label_given_is_counted_and_rows_without_one_too(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(complaints(tmp_path), predictions={"folder": str(tmp_path / "log")})
    counts, log = counted(served, tmp_path, [*SOME_TEXTS, {"text": "again"}, {"text": "other"}])
    assert [one["labels"] for one in log] == [["late"], ["rude"], ["late", "rude"], ["late", "rude"], []]
    assert counts == {"late": 3, "rude": 3, NONE: 1}
    assert served.metric(f"{names.SCORE}_count", model="multilabel", version="3") == 5
    assert log[0]["probabilities"] == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))], abs=1e-6)
    assert log[0]["inputs"] == {"text": {"chars": 10, "script": "latin", "unknown": 0.0}}


def test_texts_are_counted_by_what_became_of_them_and_not_logged(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(extracts(tmp_path), predictions={"folder": str(tmp_path / "log")})
    rows = [
        "Mrs. Ito paid 20. She left.",
        "...",
        "",
        "I'm sorry, but I cannot help with that. Ask Bob.",
        "今天下雨。明天晴。",
    ]
    counts, log = counted(served, tmp_path, [{"text": text} for text in rows])
    assert counts == {"text": 2, EMPTY: 2, REFUSED: 1}
    both = {"model": "generation", "version": "3"}
    assert served.metric(f"{names.ANSWER_WORDS}_count", **both) == 5
    assert served.metric(f"{names.ANSWER_WORDS}_sum", **both) == sum(one["words"] for one in log) == 17
    assert [one["language"] for one in log] == ["en", "", "", "en", "zh"]
    written = "".join(file.read_text() for file in (tmp_path / "log").rglob("*.jsonl"))
    assert not [word for word in ("Ito", "Bob", "今天") if word in written]
    assert [SERVING.watched(one)["refused"] for one in log].count("yes") == 1


def test_what_was_cut_is_said_in_the_answer_and_in_the_log(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(written(tmp_path, max_tokens=11), predictions={"folder": str(tmp_path / "log")})
    texts = ["late again", "late " * 10, "late " * 11, "late " * 12, "rude " * 300, "", " ", "late 😀 \u0000 again"]
    found = served.predict(*({"text": text} for text in texts)).json()["predictions"]
    assert [(len(one["text"].split()), one["truncated"], one["unfinished"]) for one in found] == [
        (2, False, False), (10, False, False), (11, False, True), (11, True, True), (11, True, True),
        (0, False, False), (0, False, False), (4, False, False),
    ]  # fmt: skip
    served.runtime.log.close()
    lines = [line for file in (tmp_path / "log").rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert [json.loads(line).get("truncated", False) for line in lines] == [one["truncated"] for one in found]
    late = served.client.post(
        "/predict", json={"instances": [{"text": "late"}]}, headers={"x-request-timeout-ms": "0.001"}
    )
    assert late.status_code in (503, 504)
    assert late.json()["type"].endswith(("deadline-exceeded", "deadline-unreachable"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It costs 14 million, and more. " * 33_000, "It costs 14 million, and more."),  # 1 MB
        ("no end at all", "no end at all"),
        ("?!… 。。", ""),
        ("\u0000 zero. Two.", "\u0000 zero."),
    ],
)
def test_any_document_gets_a_text(serve_bundle: Any, tmp_path: Path, text: str, said: str) -> None:
    answer = serve_bundle(extracts(tmp_path)).predict({"text": text})
    assert (answer.status_code, answer.json()["predictions"][0]["text"]) == (200, said)


@pytest.mark.parametrize(
    "body",
    [b'{"instances": [{"text": "\xff\xfe"}]}', b'{"instances": [{"text": "half \\ud83d of a sign"}]}'],
    ids=["no UTF-8", "half a surrogate pair"],
)
def test_a_document_that_is_no_text_is_refused(serve_bundle: Any, tmp_path: Path, body: bytes) -> None:
    served = serve_bundle(extracts(tmp_path))
    answer = served.client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["type"].endswith("malformed-json")


def test_vectors_are_counted_and_not_logged(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(vectors(tmp_path), predictions={"folder": str(tmp_path / "log")})
    counts, log = counted(served, tmp_path, SOME_TEXTS)
    assert counts == {"embedding": 3}
    assert all("embedding" not in one and one["inputs"] for one in log)
    text = served.client.get("/metrics").text
    assert names.SCORE not in text
    assert names.VALUE not in text


def test_reasons_are_the_engine_s(serve_bundle: Any, tmp_path: Path) -> None:
    for make, feature in ((house_prices, "size"), (house_labels, "size"), (complaints, "late")):
        bundle = make(tmp_path / make.__name__)
        row = rows_of(bundle)[0]
        answer = serve_bundle(bundle).predict(row, explain=1).json()
        assert answer["predictions"][0]["reasons"][0]["feature"] == feature
    vector = serve_bundle(vectors(tmp_path / "vectors")).predict(SOME_TEXTS[0], explain=1)
    assert vector.json()["predictions"][0]["reasons"]
    refused = serve_bundle(documents(tmp_path / "documents")).predict(
        rows_of(documents(tmp_path / "other"))[0], explain=1
    )
    assert refused.status_code == 422
    assert refused.json()["type"].endswith("not-explainable")


def test_rows_of_several_requests_and_calls_are_answered_each_by_its_own(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(house_prices(tmp_path), max_batch_rows=2)
    many = served.predict(*SOME_NUMBERS).json()["predictions"]
    for row, one in zip(SOME_NUMBERS, many, strict=True):
        alone = served.predict(row).json()["predictions"][0]
        assert alone["value"] == pytest.approx(one["value"])
        assert alone["interval"] == pytest.approx(one["interval"])


def test_a_problem_that_services_do_not_know_is_refused() -> None:
    from contracts.problems import get_problem

    class Unknown(type(get_problem("regression"))):  # type: ignore[misc]
        name = "unknown"

    with pytest.raises(PlatformError, match="answers of problem 'unknown' cannot be served") as caught:
        get_serving(Unknown())
    assert caught.value.code == "not_servable"


def test_another_package_adds_an_engine_and_a_problem(
    serve_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_counts(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    model = tmp_path / "source" / "model"
    model.mkdir(parents=True)
    (model / "steps.json").write_text('{"step": 50.0}')
    bundle = publish(tmp_path, "tabular", "steps", {"problem": "counts", "most": 2})
    served = serve_bundle(bundle, predictions={"folder": str(tmp_path / "log")})
    answer = served.predict({"size": 20, "rooms": 1}, {"size": 130, "rooms": 1}, {"size": 900, "rooms": 1}).json()
    assert [one["count"] for one in answer["predictions"]] == [0, 2, 2]
    request = {"inputs": tensors_of(bundle)}
    output = served.client.post("/v2/models/counts/infer", json=request).json()["outputs"][0]
    assert output == {"name": "count", "datatype": "INT64", "shape": [3], "data": [0, 2, 1]}
    assert list(over_grpc(bundle, [{"name": "count"}]).outputs[0].contents.int64_contents) == [0, 2, 1]
    prediction = served.client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]
    assert prediction["required"] == ["id", "count", "flags"]
    counts, log = counted(served, tmp_path, SOME_NUMBERS)
    assert counts == {"none": 3.0, "some": 6.0}
    assert [one["count"] for one in log[-3:]] == [0, 2, 1]
    assert served.metric(f"{names.VALUE}_count", model="counts", version="3") == 9
