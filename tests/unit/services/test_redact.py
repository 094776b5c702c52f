"""``POST /redact``: texts come back without personal data, and no answer, log or error repeats a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from contracts.pii.finders import pinned
from contracts.pii.redaction import KEY, Redactor, keys_of, reveal
from services.model.redact import _redactor
from tests.leftovers import left
from tests.problem_bundles import name_tagger

SECRET = "7f" * 32
TEXT = "张三 13812345678 mail a@b.org"


@pytest.fixture
def served(serve: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(KEY, SECRET)
    _redactor.cache_clear()
    return serve(make_bundle())


def post(served: Any, **document: Any) -> Any:
    return served.client.post("/redact", json=document)


def test_texts_come_back_with_kinds_and_places(served: Any) -> None:
    answer = post(served, texts=[TEXT, "nothing"])
    assert answer.status_code == 200
    assert answer.json() == {
        "results": [
            {
                "text": "张三 [PHONE] mail [EMAIL]",
                "found": [{"kind": "phone", "start": 3, "end": 14}, {"kind": "email", "start": 20, "end": 27}],
            },
            {"text": "nothing", "found": []},
        ],
        "counts": {"phone": 1, "email": 1},
    }


def test_operators_and_kinds(served: Any) -> None:
    masked = post(served, texts=[TEXT], operator="mask", kinds=["phone"]).json()["results"][0]["text"]
    assert masked == "张三 *********** mail a@b.org"
    sealed = post(served, texts=[TEXT * 200], operator="encrypt").json()["results"][0]["text"]  # on a thread of its own
    assert reveal(sealed, keys_of(SECRET)) == TEXT * 200


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "(request)"),
        ({"texts": [TEXT], "language": "en"}, "(request)"),
        ({"texts": TEXT}, "texts"),
        ({"texts": []}, "texts"),
        ({"texts": [TEXT, 3]}, "texts[1]"),
        ({"texts": ["x" * ((1 << 20) + 1)]}, "texts[0]"),
        ({"texts": [TEXT], "operator": "blur"}, "operator"),
        ({"texts": [TEXT], "operator": ["mask"]}, "operator"),
        ({"texts": [TEXT], "kinds": ["fone"]}, "kinds"),
        ({"texts": [TEXT], "kinds": [["phone"]]}, "kinds"),
    ],
)
def test_a_request_that_is_none_is_told_without_its_values(served: Any, document: Any, field: str) -> None:
    answer = post(served, **document)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert "13812345678" not in answer.text


def test_without_a_key_operators_that_need_one_say_so(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY)
    assert post(served, texts=[TEXT]).status_code == 200
    answer = post(served, texts=[TEXT], operator="hash")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:fairlead:problem:no-pii-key")
    assert KEY in answer.json()["fix"]


def test_answers_are_as_the_document_says(served: Any) -> None:
    described = served.client.get("/openapi.json").json()["paths"]["/redact"]["post"]
    schema = described["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(post(served, texts=[TEXT]).json(), schema)


def test_nothing_is_logged(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    post(served, texts=[TEXT])
    post(served, texts=[TEXT], operator="blur")
    assert "13812345678" not in caplog.text + json.dumps([str(vars(one)) for one in caplog.records])


PII = {"title": "hash", "content": "label"}
SIGNATURE = {"inputs": [{"name": name, "dtype": "string"} for name in PII], "classes": ["a", "b", "c"]}


@pytest.fixture
def articles(serve: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A model that has learned from redacted texts, with a log that keeps texts."""
    monkeypatch.setenv(KEY, SECRET)
    golden = [({"title": "[phone#0123456789abcdef]", "content": "[PHONE]"}, [0.2, 0.5, 0.3])]
    fields = {"name": "articles", "modality": "text", "engine": "onnx", "decision": None, "layout": {"pii": PII}}
    log = {"folder": str(tmp_path / "log"), "text": "truncate"}
    return serve(make_bundle(SIGNATURE, golden, **fields), predictions=log)


def test_a_model_is_asked_about_what_it_has_learned_from(articles: Any, tmp_path: Path) -> None:
    row = {"title": "call 13812345678", "content": f"{TEXT} now"}
    assert articles.predict(row).status_code == 200
    hashed = Redactor("hash", keys=keys_of(SECRET)).redact("call 13812345678").text
    assert articles.engine.seen[-1] == {"title": [hashed], "content": ["张三 [PHONE] mail [EMAIL] now"]}
    tensors = [{"name": name, "datatype": "BYTES", "shape": [1], "data": [text]} for name, text in row.items()]
    assert articles.client.post("/v2/models/articles/infer", json={"inputs": tensors}).status_code == 200
    assert articles.engine.seen[-1] == articles.engine.seen[-2]
    articles.client.__exit__()
    assert left(tmp_path / "log", ["13812345678", "a@b.org"]) == {}
    assert left(tmp_path / "log", ["[PHONE]"])


def test_without_the_key_that_it_needs_a_model_is_not_ready(
    serve: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    served = serve(make_bundle(layout={"pii": {"country": "hash:whole"}}))
    answer = served.predict({"amount": 1, "country": "AT"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairlead:problem:no-pii-key")


def test_a_column_that_nobody_asks_with_needs_no_key(
    serve: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    served = serve(make_bundle(layout={"pii": {"customer": "hash:whole"}}))
    assert served.predict({"amount": 1, "country": "AT"}).status_code == 200


@pytest.fixture
def tagger(tmp_path: Path) -> str:
    return str(name_tagger(tmp_path / "tagger", anna="PER", berg="PER").path)


def test_a_tagger_finds_names_where_the_service_has_one(serve: Any, make_bundle: Any, tagger: str) -> None:
    served = serve(make_bundle(), tagger=tagger)
    (result,) = post(served, texts=["Anna Berg, 13812345678"]).json()["results"]
    assert result["text"] == "[NAME], [PHONE]"
    assert result["found"][0] == {"kind": "name", "start": 0, "end": 9}


def test_a_model_is_asked_by_the_tagger_that_treated_its_data(serve: Any, make_bundle: Any, tagger: str) -> None:
    golden = [({"title": "[NAME]", "content": ""}, [0.2, 0.5, 0.3])]
    layout = {"pii": {"title": "label"}, "tagger": pinned(tagger)}
    fields = {"name": "articles", "modality": "text", "engine": "onnx", "decision": None, "layout": layout}
    served = serve(make_bundle(SIGNATURE, golden, **fields))
    assert served.predict({"title": "Anna Berg", "content": "Anna"}).status_code == 200
    assert served.engine.seen[-1] == {"title": ["[NAME]"], "content": ["Anna"]}


def test_with_another_tagger_a_model_is_not_ready(serve: Any, make_bundle: Any, tagger: str, tmp_path: Path) -> None:
    other = str(name_tagger(tmp_path / "other", carl="PER").path)
    served = serve(make_bundle(layout={"pii": {"country": "label"}, "tagger": pinned(tagger)}), tagger=other)
    answer = served.predict({"amount": 1, "country": "AT"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairlead:problem:bad-tagger")
