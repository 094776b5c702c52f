"""The pod of a person's workbench: what it starts, what it leaves alone, and how it goes to sleep."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import workbench
from deploy.workbench import copy_examples, jupyter_command, run, signed_in, sleep_until_woken


def test_the_server_listens_where_it_is_told_keeps_its_token_quiet_and_asks_nobody_outside() -> None:
    command = jupyter_command("::", 60, Path("/workbench"))
    assert command[:2] == ["jupyter", "lab"]
    assert {"--ServerApp.ip=::", "--ServerApp.root_dir=/workbench"} <= set(command)
    assert {"--ServerApp.shutdown_no_activity_timeout=60", "--MappingKernelManager.cull_idle_timeout=60"} <= set(
        command
    )
    assert {"--LabApp.news_url=None", "--LabApp.extension_manager=readonly"} <= set(command)
    assert "token" not in " ".join(command)


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("header", "token", "name"),
    [
        (basic("ada@example.com:secret"), "secret", "ada@example.com"),
        (basic("realm:ada:sec:ret"), "sec:ret", "realm:ada"),
        (basic("ada@example.com:secreT"), "secret", ""),
        (basic("ada@example.com:my-secret"), "secret", ""),
        (basic("ada@example.com:"), "", ""),
        (basic("secret"), "secret", ""),
        ("Bearer " + basic("ada:secret")[6:], "secret", ""),
        ("token secret", "secret", ""),
        ("Basic ?", "secret", ""),
        ("Basic " + base64.b64encode(b"\xff:secret").decode(), "secret", ""),
        ("", "secret", ""),
    ],
)
def test_only_the_proxy_says_who_somebody_is(header: str, token: str, name: str) -> None:
    assert signed_in(header, token) == name


def test_behind_a_proxy_a_request_with_its_password_is_a_person_and_still_no_token() -> None:
    pytest.importorskip("jupyter_server", reason="JupyterLab is in the extra workbench")
    from deploy.workbench_identity import ProxyIdentity

    identity = ProxyIdentity(token="secret")
    asks = SimpleNamespace(request=SimpleNamespace(headers={"Authorization": basic("ada:secret")}))
    asks.current_user = identity.get_user(asks)
    assert asks.current_user.username == "ada"
    assert identity.should_check_origin(asks)
    asks.request.headers["Authorization"] = "token secret"
    assert identity.get_user(asks) is None
    (option,) = set(jupyter_command("::", 0, Path("/"), behind_proxy=True)) - set(jupyter_command("::", 0, Path("/")))
    assert option.split("=")[1] == f"{ProxyIdentity.__module__}.{ProxyIdentity.__name__}"


def test_examples_come_once_and_what_a_person_wrote_stays(tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    copy_examples(workbench.EXAMPLES, folder)
    names = sorted(file.name for file in folder.iterdir())
    assert names == sorted(file.name for file in workbench.EXAMPLES.glob("*.py"))
    (folder / names[0]).write_text("mine")
    (folder / names[1]).unlink()
    copy_examples(workbench.EXAMPLES, folder)
    assert (folder / names[0]).read_text() == "mine"
    assert (folder / names[1]).exists()


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "namespace").write_text("spaces\n")
    (tmp_path / "token").write_text("t\n")
    monkeypatch.setattr("ssl.create_default_context", lambda cafile: None)
    return tmp_path


ENVIRON = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_it_scales_its_own_statefulset_to_zero(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[urllib.request.Request] = []

    class Answer:
        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self) -> bytes:
            return b"{}"

    def urlopen(request: urllib.request.Request, **_: Any) -> Answer:
        asked.append(request)
        return Answer()

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    sleep_until_woken("fairlead-workbench-ada", account, ENVIRON)
    (request,) = asked
    assert request.full_url.endswith("/apis/apps/v1/namespaces/spaces/statefulsets/fairlead-workbench-ada/scale")
    assert (request.method, json.loads(request.data or b"")) == ("PATCH", {"spec": {"replicas": 0}})  # type: ignore[arg-type]


def test_the_end_of_the_program_is_told_from_the_end_of_the_pod() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run([sys.executable, "-c", ""]) == (0, True)
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        code, by_itself = run(["sleep", "20"])
        assert (code, by_itself) == (-signal.SIGTERM, False)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("ended", "slept", "code"),
    [((0, True), True, 0), ((0, False), False, 0), ((1, True), False, 1)],
    ids=["idle", "the pod goes", "it failed"],
)
def test_only_a_server_that_nobody_uses_sends_its_pod_to_sleep(
    ended: tuple[int, bool], slept: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["workbench", "--statefulset", "ada"])
    monkeypatch.setattr(workbench, "run", lambda command: ended)
    monkeypatch.setattr(workbench, "sleep_until_woken", told.append)
    monkeypatch.setattr(signal, "pause", lambda: None)
    assert workbench.main() == code
    assert told == (["ada"] if slept else [])


def test_a_pod_that_may_not_scale_itself_says_so_and_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str) -> None:
        raise urllib.error.HTTPError("u", 403, "Forbidden", Mapping, None)  # type: ignore[arg-type]

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["workbench", "--statefulset", "ada"])
    monkeypatch.setattr(workbench, "run", lambda command: (0, True))
    monkeypatch.setattr(workbench, "sleep_until_woken", refuse)
    assert workbench.main() == 1
    assert "cannot be scaled to zero: HTTP Error 403" in capsys.readouterr().err
