"""``POST /redact``: texts come back without personal data, and no answer, log or error repeats a value."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from contracts.pii.redaction import KEY, keys_of, reveal
from services.model.redact import _redactor

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
