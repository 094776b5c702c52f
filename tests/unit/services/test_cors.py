"""Pages of other origins: the preflight, what every answer says, and which settings are accepted."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.errors import PlatformError
from services.server.auth import make_key
from services.settings import CorsSettings, load_settings

SHOP = "https://shop.example"
ROW = {"instances": [{"amount": 500, "country": "AT"}]}


def preflight(client: Any, path: str = "/predict", origin: str = SHOP, method: str = "POST") -> Any:
    asked = {"access-control-request-method": method, "access-control-request-headers": "authorization,content-type"}
    return client.options(path, headers={"origin": origin, **asked})


def settings(**given: Any) -> CorsSettings:
    return CorsSettings.model_validate(given)


def words(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",")}


@pytest.mark.parametrize("path", ["/predict", "/predict/", "/v2/models/payments/infer"])
def test_a_page_of_an_allowed_origin_is_told_what_it_may_send(serve: Any, make_bundle: Any, path: str) -> None:
    client = serve(make_bundle(), cors=settings(origins=[SHOP], max_age_seconds=300)).client
    answer = preflight(client, path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert {"authorization", "content-type", "x-api-key", "content-encoding"} <= words(
        answer.headers["access-control-allow-headers"]
    )
    assert answer.headers["access-control-max-age"] == "300"
    assert words(answer.headers["vary"]) == {"origin"}
    assert not {"access-control-allow-credentials", "content-length", "content-type"} & set(answer.headers)


def test_the_preflight_needs_no_key_and_the_request_does(serve: Any, make_bundle: Any, tmp_path: Any) -> None:
    key, line = make_key("page")
    (tmp_path / "keys").write_text(line)
    client = serve(make_bundle(), cors=settings(origins=[SHOP]), keys_file=str(tmp_path / "keys")).client
    assert preflight(client).status_code == 204
    refused = client.post("/predict", json=ROW, headers={"origin": SHOP})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, SHOP)
    answer = client.post("/predict", json=ROW, headers={"origin": SHOP, "authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, SHOP)


@pytest.mark.parametrize(("path", "status"), [("/predict", 400), ("/nothing", 404), ("/docs", 405)])
def test_pages_can_read_why_they_were_refused(serve: Any, make_bundle: Any, path: str, status: int) -> None:
    client = serve(make_bundle(), cors=settings(origins=[SHOP])).client
    answer = client.post(path, content="{", headers={"origin": SHOP, "content-type": "application/json"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, SHOP)
    assert "retry-after" in words(answer.headers["access-control-expose-headers"])


@pytest.mark.parametrize("origin", ["https://evil.example", "https://shop.example.evil", "http://shop.example", "null"])
def test_other_origins_are_told_nothing(serve: Any, make_bundle: Any, origin: str) -> None:
    client = serve(make_bundle(), cors=settings(origins=[SHOP])).client
    refused = preflight(client, origin=origin)
    assert refused.status_code == 403
    assert "cors.origins" in refused.json()["fix"]
    plain = client.post("/predict", json=ROW, headers={"origin": origin})
    for answer in (refused, plain):
        assert not any(name.startswith("access-control-") for name in answer.headers)
        assert answer.headers["vary"] == "origin"


def test_no_origin_is_allowed_by_default(serve: Any, make_bundle: Any) -> None:
    client = serve(make_bundle()).client
    plain = client.post("/predict", json=ROW, headers={"origin": SHOP})
    assert plain.status_code == 200
    refused = preflight(client)
    assert refused.status_code == 405
    assert not any(name.startswith("access-control-") for name in (*plain.headers, *refused.headers))


def test_every_origin_and_credentials(serve: Any, make_bundle: Any) -> None:
    every = serve(make_bundle(), cors=settings(origins="*")).client
    assert preflight(every, origin="https://any.example").headers["access-control-allow-origin"] == "*"
    named = serve(make_bundle(), cors=settings(origins=[SHOP], credentials=True)).client
    for answer in (preflight(named), named.post("/predict", json=ROW, headers={"origin": SHOP})):
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-allow-origin"] == SHOP


def test_origins_are_written_as_browsers_do_and_others_are_refused() -> None:
    given = "HTTPS://Shop.Example:443, http://localhost:5173,http://[::1]:8080"
    assert settings(origins=given).origins == [SHOP, "http://localhost:5173", "http://[::1]:8080"]
    wrong: list[tuple[str, str]] = [("CORS__ORIGINS", one) for one in ("shop.example", "https://shop.example/")]
    wrong += [("CORS__ORIGINS", '["https://*.shop.example"]'), ("CORS__MAX_AGE_SECONDS", "-1")]
    for name, value in wrong:
        with pytest.raises(PlatformError) as caught:
            load_settings({"FAIRLEAD_SERVICE_BUNDLE": "x", f"FAIRLEAD_SERVICE_{name}": value})
        assert name.lower().replace("__", ".") in f"{caught.value.headline}{caught.value.detail}"
    with pytest.raises(ValueError, match="have to be named"):
        settings(origins=["*"], credentials=True)
