"""Who sees the console: keys, sessions, operators, and requests of other sites."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from services.console.app import build_app
from services.server.auth import KeyRing, make_key
from tests.console_source import HERE, PAGES, MadeSource, open_console


@pytest.fixture
def keys(tmp_path: Path) -> tuple[KeyRing, str]:
    key, line = make_key("mara")
    file = tmp_path / "keys"
    file.write_text(line + "\n")
    return KeyRing(str(file)), key


@pytest.mark.parametrize("path", [*PAGES, "/models/fraud/versions/3/card.html"])
def test_without_a_key_nothing_is_shown(path, keys):
    page = open_console(keys=keys[0]).get(path)
    assert page.status_code == 401
    assert "fraud" not in page.text.replace(path, "")


def test_a_browser_without_a_key_gets_the_form_and_then_the_page_that_it_asked_for(keys):
    ring, key = keys
    console = open_console(keys=ring)
    form = console.get("/runs", headers={"accept": "text/html"})
    assert form.url.path == "/login"
    wrong = console.post("/login", data={"key": "wrong", "next": "/runs"})
    assert wrong.status_code == 401
    assert "This key is not known." in wrong.text
    assert not console.cookies
    right = console.post("/login", data={"key": key, "next": "/runs"})
    assert right.url.path == "/runs"
    cookie = right.history[0].headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert key not in cookie
    console.post("/logout")
    assert console.get("/runs").status_code == 401


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_key_in_a_header_is_as_good(header, keys):
    ring, key = keys
    value = f"Bearer {key}" if header == "authorization" else key
    assert open_console(keys=ring).get("/runs", headers={header: value}).status_code == 200
    assert open_console(keys=ring).get("/runs", headers={header: "Bearer no"}).status_code == 401


ROLLOUT = {"command": "promote", "reason": "it is better"}


def test_only_an_operator_steers_a_rollout(keys, tmp_path):
    ring, key = keys
    source = MadeSource()
    assert open_console(source).post("/rollouts/fraud", data=ROLLOUT).status_code == 403
    reader = open_console(source, ring)
    assert reader.post("/rollouts/fraud", data=ROLLOUT).status_code == 401
    reader.headers["x-api-key"] = key
    assert reader.post("/rollouts/fraud", data=ROLLOUT).status_code == 403
    assert "steer" not in reader.get("/rollouts").text
    assert not source.steered
    (tmp_path / "keys").write_text((tmp_path / "keys").read_text().strip() + ":operator\n")
    operator = open_console(source, KeyRing(str(tmp_path / "keys")))
    operator.post("/login", data={"key": key})
    page = operator.get("/rollouts").text
    assert page.count('name="command"') == 3
    assert operator.post("/rollouts/fraud", data=ROLLOUT, headers={"origin": "http://evil.example"}).status_code == 403
    assert operator.post("/rollouts/fraud", data={"command": "delete", "reason": "x"}).status_code == 400
    assert operator.post("/rollouts/fraud", data={"command": "abort", "reason": " "}).status_code == 400
    assert operator.post("/rollouts/fraud", data=ROLLOUT).url.path == "/rollouts"
    assert source.steered == [("fraud", "promote", "console:mara", "it is better")]


def test_a_key_that_is_taken_away_ends_its_sessions(keys):
    ring, key = keys
    console = open_console(keys=ring)
    console.post("/login", data={"key": key})
    assert console.get("/").status_code == 200
    ring._file.write_text("")
    ring._looked -= 60
    assert console.get("/").status_code == 401


def test_a_session_is_one_of_every_console_with_the_same_secret_for_twelve_hours(keys, monkeypatch):
    ring, key = keys
    one, two, other = (open_console(keys=ring, secret=secret * 32) for secret in (b"a", b"a", b"b"))
    one.post("/login", data={"key": key})
    cookie = one.cookies["fairlead_session"]
    for console, status in ((two, 200), (other, 401)):
        assert console.get("/", headers={"cookie": f"fairlead_session={cookie}"}).status_code == status
    flipped = cookie[:-2] + ("A" if cookie[-2] != "A" else "B") + cookie[-1]
    for forged in (flipped, "", "x.y.z", cookie.rpartition(".")[0]):
        assert two.get("/", headers={"cookie": f"fairlead_session={forged}"}).status_code == 401
    began = time.time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: began + 12 * 3600 + 60)
    assert one.get("/").status_code == 401


def test_a_console_is_ready_once_it_has_looked_around(keys):
    app = build_app(MadeSource(), keys[0])
    console = TestClient(app, base_url=HERE)
    assert [console.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 503]
    app.state.warm.set()
    assert console.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}]
)
def test_a_form_of_another_site_does_nothing(headers):
    source = MadeSource()
    answer = open_console(source).post("/models/fraud/try", data={"f.amount": "1"}, headers=headers)
    assert answer.status_code == 403
    assert not source.asked


def test_a_name_that_somebody_points_at_this_machine_is_refused_without_keys(keys):
    assert open_console().get("/", headers={"host": "evil.example"}).status_code == 421
    key = {"x-api-key": keys[1]}
    assert open_console(keys=keys[0]).get("/", headers={"host": "console.example", **key}).status_code == 200
