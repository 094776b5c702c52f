"""Defaults, then the file, then the environment; a wrong key says where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.settings import Settings, load


class Log(Settings):
    sample: float = 1.0
    folder: str = "logs"


class App(Settings):
    port: int = 3000
    log: Log = Log()


def test_defaults_hold_when_nothing_is_given() -> None:
    assert load(App, environ={}) == App()


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text("port: 1\nlog: {sample: 0.5, folder: from-file}\n")
    app = load(App, file, environ={"FAIRLEAD_PORT": "2", "FAIRLEAD_LOG__SAMPLE": "0.25"}, overrides={"port": 4})
    assert app == App(port=4, log=Log(sample=0.25, folder="from-file"))


@pytest.mark.parametrize(
    ("text", "environ", "key", "source"),
    [
        ("prot: 1", {}, "prot", "app.yaml"),
        ("log: {smaple: 1}", {}, "log.smaple", "app.yaml"),
        ("", {"FAIRLEAD_LOG__SMAPLE": "1"}, "log.smaple", "environment FAIRLEAD_LOG__SMAPLE"),
        ("port: many", {}, "port", "app.yaml"),
    ],
)
def test_a_wrong_key_is_named_with_its_source(
    tmp_path: Path, text: str, environ: dict[str, str], key: str, source: str
) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(text)
    with pytest.raises(PlatformError) as caught:
        load(App, file, environ=environ)
    assert caught.value.context["keys"] == [key]
    assert source in caught.value.detail


def test_unknown_keys_list_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        load(App, environ={"FAIRLEAD_LOG__X": "1"})
    assert "folder, sample" in caught.value.detail


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just text"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(PlatformError, match=r"bad\.yaml"):
        load(App, file, environ={})


def test_a_missing_file_is_an_error_not_a_default(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="not found"):
        load(App, tmp_path / "none.yaml", environ={})


def test_variables_of_the_tests_are_not_settings() -> None:
    assert load(App, environ={"FAIRLEAD_TEST_DATA": "/x"}) == App()


def test_endpoints_follow_home_unless_given(tmp_path: Path) -> None:
    ends = Endpoints(home=str(tmp_path), data="/elsewhere").resolved()
    assert ends.data == "/elsewhere"
    assert ends.artifacts == str(tmp_path / "bundles")
    assert ends.online == str(tmp_path / "features" / "online.db")
    assert ends.tracking == f"sqlite:///{tmp_path}/mlflow.db"
    assert ends.resolved() == ends


def test_an_error_survives_the_process_border() -> None:
    error = PlatformError("it broke", detail="got 1", fix="give 2", code="bad", row=7)
    again = PlatformError.from_dict(error.as_dict())
    assert str(again) == str(error) == "it broke\n  got 1\n  Fix: give 2"
    assert again.context == {"row": 7}
