"""The OpenAPI document is made from the bundle's signature."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from services.server.auth import make_key
from services.server.openapi import describe


def schemas(served: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    document = served.client.get("/openapi.json").json()
    post = document["paths"]["/predict"]["post"]
    definitions = {"components": document["components"]}
    request = post["requestBody"]["content"]["application/json"]["schema"] | definitions
    answer = post["responses"]["200"]["content"]["application/json"]["schema"] | definitions
    return request, answer


def test_the_document_shows_the_fields_of_the_bundle(serve: Any, make_bundle: Any) -> None:
    request, _ = schemas(serve(make_bundle()))
    fields = request["properties"]["instances"]["items"]["properties"]
    assert fields["amount"] == {"type": ["number", "null"], "x-minimum": 0.0, "x-maximum": 10000.0}
    assert fields["country"]["x-known-values"] == ["AT", "DE"]


def test_the_example_is_accepted_and_the_answer_fits_its_schema(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    request, answer = schemas(served)
    jsonschema.validate(request["example"], request)
    got = served.client.post("/predict", json=request["example"] | {"explain": 1})
    assert got.status_code == 200
    jsonschema.validate(got.json(), answer)


@pytest.mark.parametrize("instance", [{"amount": "x", "country": "AT"}, {"amount": 1}, {"amount": 1, "country": 1}])
def test_the_schema_refuses_what_the_service_refuses(serve: Any, make_bundle: Any, instance: Any) -> None:
    served = serve(make_bundle())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"instances": [instance]}, schemas(served)[0])
    assert served.predict(instance).status_code == 422


def test_a_problem_fits_its_schema(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    components = describe(served.runtime)["components"]
    jsonschema.validate(
        served.predict({"amount": 1}).json(), {"components": components, **components["schemas"]["Problem"]}
    )


def test_every_route_is_described(serve: Any, make_bundle: Any) -> None:
    paths = serve(make_bundle()).client.get("/docs.json").json()["paths"]
    served = {
        "/predict",
        "/feedback",
        "/redact",
        "/startupz",
        "/livez",
        "/readyz",
        "/metrics",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
    }
    for root in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        served |= {root, f"{root}/ready", f"{root}/infer"}
    assert set(paths) == served
    operations = [verb["operationId"] for path in paths.values() for verb in path.values() if "operationId" in verb]
    assert len(operations) == len(set(operations))


def test_the_page_loads_nothing_from_elsewhere(serve: Any, make_bundle: Any) -> None:
    client = serve(make_bundle()).client
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert "://" not in page.text
    assert client.get("/assets/swagger-ui-bundle.js").status_code == 200
    assert client.get("/assets/index.css").status_code == 404


def test_before_the_model_is_loaded_the_document_says_so(serve: Any, tmp_path: Any) -> None:
    assert serve(tmp_path).client.get("/openapi.json").status_code == 503


def test_entity_requests_are_described_beside_direct_ones(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    text = json.dumps(schemas(served)[0])
    assert "all inputs of the model" in text
    assert "entity keys" not in text


def test_headers_and_keys_are_described(serve: Any, make_bundle: Any, tmp_path: Any) -> None:
    key, line = make_key("docs")
    (tmp_path / "keys").write_text(line)
    client = serve(make_bundle(), keys_file=str(tmp_path / "keys")).client
    document = client.get("/openapi.json", headers={"x-api-key": key}).json()
    assert document["security"] == [{"bearer": []}, {"key": []}]
    for name in ("x-request-timeout-ms", "x-request-deadline", "x-request-priority"):
        assert name in document["paths"]["/predict"]["post"]["description"]
    assert "security" not in serve(make_bundle()).client.get("/openapi.json").json()
