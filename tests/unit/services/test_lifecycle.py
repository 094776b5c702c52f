"""A service proves itself before it is ready, and says why when it is not."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.exceptions import HTTPException

from contracts.errors import PlatformError
from services.server.bento import check_ready


def refusal(served: Any) -> dict[str, Any]:
    assert not served.runtime.ready
    answer = served.predict({"amount": 1, "country": "AT"})
    assert answer.status_code == 503
    assert served.client.get("/v2/health/ready").status_code == 503
    assert served.client.get("/v2/health/live").status_code == 200
    assert served.client.get("/startupz").json()["type"] == answer.json()["type"]
    return dict(answer.json())


def test_a_proven_model_is_ready(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    assert served.runtime.ready
    assert check_ready(served.runtime)


def test_a_wrong_golden_example_is_named(serve: Any, make_bundle: Any) -> None:
    good, bad = ({"amount": 250, "country": "AT"}, [0.75, 0.25]), ({"amount": 100, "country": "AT"}, [0.5, 0.5])
    problem = refusal(serve(make_bundle(golden=[good, good, bad])))
    assert problem["type"].endswith("golden-mismatch")
    assert "example 2" in problem["detail"]
    assert "class genuine: expected 0.5, got 0.9" in problem["detail"]


def test_nan_never_compares_as_equal(serve: Any, make_bundle: Any) -> None:
    bundle = make_bundle(golden=[({"amount": 250, "country": "AT"}, [float("nan"), 0.25])])
    assert "example 0" in refusal(serve(bundle))["detail"]


def test_a_bundle_with_one_changed_byte_is_refused(serve: Any, make_bundle: Any) -> None:
    bundle = make_bundle()
    file = bundle.path / "model" / "model.txt"
    file.write_bytes(file.read_bytes().replace(b"tree", b"free"))
    problem = refusal(serve(bundle))
    assert problem["type"].endswith("bad-bundle")
    assert "model/model.txt has sha256" in problem["detail"]


def test_a_missing_bundle_is_refused(serve: Any, tmp_path: Any) -> None:
    assert "bundle.json is missing" in refusal(serve(tmp_path / "nowhere"))["detail"]


def test_a_bundle_of_another_modality_is_refused(serve: Any, make_bundle: Any) -> None:
    bundle = make_bundle()
    served = serve(bundle.path)
    assert served.runtime.ready
    text = make_bundle(modality="text", name="other")
    assert refusal(serve(text.path))["type"].endswith("wrong-modality")


def test_a_golden_example_has_one_probability_per_class(serve: Any, make_bundle: Any) -> None:
    bundle = make_bundle(golden=[({"amount": 250, "country": "AT"}, [0.75])])
    assert "has 1 probabilities" in refusal(serve(bundle))["detail"]


def test_an_engine_that_cannot_load_gives_a_reason_without_values(
    serve: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bundle: Any, **_: Any) -> Any:
        raise RuntimeError("bad tree 42")

    bundle = make_bundle()
    served = serve(bundle)  # sets the fake engine
    monkeypatch.setattr("services.model.runtime.load_engine", broken)
    assert served.runtime.ready
    problem = refusal(serve(bundle))
    assert problem["detail"] == "RuntimeError in the model's library"


def test_readiness_carries_the_problem(serve: Any, tmp_path: Any) -> None:
    served = serve(tmp_path)
    with pytest.raises(HTTPException) as caught:
        check_ready(served.runtime)
    assert caught.value.status_code == 503
    assert "bundle.json is missing" in caught.value.detail
    assert caught.value.headers is not None
    assert caught.value.headers["content-type"] == "application/problem+json"


def test_a_draining_service_is_not_ready_but_answers(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    served.runtime.state = "draining"
    assert served.client.get("/v2/health/ready").status_code == 503
    assert served.predict({"amount": 1, "country": "AT"}).status_code == 200


def test_the_name_and_version_of_the_registry_are_reported(serve: Any, make_bundle: Any) -> None:
    body = serve(make_bundle(), name="fraud").predict({"amount": 1, "country": "AT"}).json()
    assert (body["model"], body["version"]) == ("fraud", "3")


def test_platform_errors_become_unavailable() -> None:
    from services.errors import unavailable

    problem = unavailable(PlatformError("no store", detail="d", fix="f", code="no_store"))
    assert (problem.status, problem.code, problem.fix) == (503, "no-store", "f")
