"""API keys: who gets in, how often, and what happens when the file changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from services.server import auth
from services.server.auth import KeyRing, make_key

GOOD = {"instances": [{"amount": 1, "country": "AT"}]}


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, Path]:
    key, line = make_key("shop")
    file = tmp_path / "keys"
    file.write_text(f"# who may ask\n\n{line}\n")
    return key, file


def test_without_a_key_nothing_but_health_and_metrics_answers(serve: Any, make_bundle: Any, keys: Any) -> None:
    client = serve(make_bundle(), keys_file=str(keys[1])).client
    for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
        assert client.get(path).status_code == 200
    for path in ("/", "/docs", "/openapi.json", "/v2", "/v2/models/payments", "/nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json()["type"] == "urn:fairlead:problem:unauthorized"
    assert client.post("/predict", json=GOOD).status_code == 401


@pytest.mark.parametrize(
    "header", [("authorization", "Bearer {}"), ("authorization", "bearer  {}"), ("x-api-key", "{}")]
)
def test_a_key_opens_in_either_header(serve: Any, make_bundle: Any, keys: Any, header: tuple[str, str]) -> None:
    client = serve(make_bundle(), keys_file=str(keys[1])).client
    name, text = header
    assert client.post("/predict", json=GOOD, headers={name: text.format(keys[0])}).status_code == 200
    assert client.post("/predict", json=GOOD, headers={name: text.format(keys[0] + "x")}).status_code == 401
    assert client.post("/predict", json=GOOD, headers={name: text.format("")}).status_code == 401


def test_a_key_is_hashed_once_a_request(
    serve: Any, make_bundle: Any, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, hashed = serve(make_bundle(), keys_file=str(keys[1])), []
    digest_of = auth.digest_of
    monkeypatch.setattr(auth, "digest_of", lambda key: (hashed.append(key), digest_of(key))[1])
    assert served.client.post("/predict", json=GOOD, headers={"x-api-key": keys[0]}).status_code == 200
    assert len(hashed) == 1
    assert served.runtime.authorise({b"x-api-key": keys[0].encode()}).name == "shop"


def test_a_hash_is_no_key(serve: Any, make_bundle: Any, keys: Any) -> None:
    digest = keys[1].read_text().strip().rpartition(":")[2]
    client = serve(make_bundle(), keys_file=str(keys[1])).client
    assert client.post("/predict", json=GOOD, headers={"x-api-key": digest}).status_code == 401


def test_a_rate_is_kept_per_key(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    (slow, first), (fast, second) = make_key("slow"), make_key("fast")
    (tmp_path / "keys").write_text(f"{first}:2\n{second}\n")
    served = serve(make_bundle(), keys_file=str(tmp_path / "keys"))

    def ask(key: str) -> Any:
        return served.client.post("/predict", json=GOOD, headers={"x-api-key": key})

    answers = [ask(slow) for _ in range(4)]
    assert [answer.status_code for answer in answers][:2] == [200, 200]
    assert answers[3].status_code == 429
    assert answers[3].headers["retry-after"] == "1"
    assert ask(fast).status_code == 200
    shed = {"model": "payments", "reason": "rate_limited"}
    assert served.metric("fairlead_requests_shed_total", **shed) >= 1


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(
    keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_LOOK_AGAIN_SECONDS", 0)
    ring = KeyRing(str(keys[1]))
    other, line = make_key("other")
    ring.check({b"x-api-key": keys[0].encode()})
    keys[1].write_text(line + "\n")
    os.utime(keys[1], ns=(1, 1))
    ring.check({b"x-api-key": other.encode()})
    with pytest.raises(Exception, match="not known"):
        ring.check({b"x-api-key": keys[0].encode()})
    keys[1].write_text("nonsense\n")
    ring.check({b"x-api-key": other.encode()})
    keys[1].unlink()
    ring.check({b"x-api-key": other.encode()})


@pytest.mark.parametrize("line", ["shop", "shop:abc", "shop:" + "0" * 64 + ":0", "a b:" + "0" * 64])
def test_a_line_that_is_no_key_is_named_and_not_repeated(tmp_path: Path, line: str) -> None:
    (tmp_path / "keys").write_text("# keys\n" + line + "\n")
    with pytest.raises(PlatformError, match="line 2") as caught:
        KeyRing(str(tmp_path / "keys"))
    assert "0000" not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="cannot read the API keys"):
        KeyRing(str(tmp_path / "keys"))
