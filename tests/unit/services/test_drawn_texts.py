"""Texts that are drawn by chance: only where a request asks for it, and as its seed says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts.decoding import Sampling
from tests.problem_bundles import extracts, written


def test_texts_are_drawn_by_chance_only_when_a_request_asks_for_it(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(written(tmp_path, sharp=2.0, max_tokens=9))

    def said(sampling: Any, *texts: str) -> list[str]:
        body = {"instances": [{"text": text} for text in texts]} | ({"sampling": sampling} if sampling else {})
        answer = served.client.post("/predict", json=body)
        assert answer.status_code == 200, answer.text
        return [one["text"] for one in answer.json()["predictions"]]

    texts = ["late again", "late", "again late again", "", "late again"]
    likely = said(None, *texts)
    assert likely == texts
    assert said({"temperature": 0, "seed": 4}, *texts) == likely
    assert said({"top_k": 1}, *texts) == likely
    drawn = said({"temperature": 1, "seed": 4}, *texts)
    assert drawn != likely
    assert drawn[0] == drawn[4]  # the same text and seed
    assert drawn[3] == ""
    assert [said({"temperature": 1, "seed": 4}, text)[0] for text in texts] == drawn
    assert said({"temperature": 1, "seed": 5}, *texts) != drawn
    assert said(None, *texts) == likely
    with_own = serve_bundle(written(tmp_path / "own", sharp=2.0, max_tokens=9, sampling=Sampling(seed=4)))
    answer = with_own.client.post("/predict", json={"instances": [{"text": texts[0]}], "sampling": {}})
    assert answer.json()["predictions"][0]["text"] == drawn[0]
    assert with_own.predict({"text": texts[0]}).json()["predictions"][0]["text"] == likely[0]
    described = served.client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]
    schema = described["content"]["application/json"]["schema"]["properties"]["sampling"]
    assert set(schema["properties"]) == {"temperature", "top_k", "top_p", "seed"}


_WRONG_SAMPLING: list[tuple[Any, str]] = [
    *((value, "") for value in (1, [], "hot", True)),
    *(({"temperature": value}, "temperature") for value in (-1, 1e9, True, "1")),
    *(({"top_p": value}, "top_p") for value in (0, 1.1)),
    *(({"top_k": value}, "top_k") for value in (-1, 2.5)),
    *(({"seed": value}, "seed") for value in ("7", -1, 2**63)),
    ({"beams": 2}, "beams"),
]


def test_sampling_that_cannot_be_is_refused_with_its_member(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(written(tmp_path))
    for sampling, field in _WRONG_SAMPLING:
        answer = served.client.post("/predict", json={"instances": [{"text": "late"}], "sampling": sampling})
        assert answer.status_code == 422, sampling
        assert [one["field"] for one in answer.json()["errors"]] == [f"sampling.{field}".rstrip(".")]
    both = {"instances": [{"text": "late"}], "sampling": {}, "explain": 2}
    answer = served.client.post("/predict", json=both)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "explain")
    assert "drawn by chance" in answer.json()["errors"][0]["message"]
    said = served.client.post("/predict", json={"instances": [{"text": "late letters"}], "explain": 2}).json()
    assert {one["feature"] for one in said["predictions"][0]["reasons"]} == {"late", "letters"}
    cannot = serve_bundle(extracts(tmp_path / "other"))
    answer = cannot.client.post("/predict", json={"instances": [{"text": "late"}], "sampling": {}})
    assert answer.status_code == 422
    assert '"unknown member; accepted: instances, explain, counterfactual"' in answer.text
