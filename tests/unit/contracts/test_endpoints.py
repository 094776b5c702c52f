"""Addresses: local by default, remote by their scheme, never a path that only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError

REMOTE = Endpoints(
    home="work", data="s3://lake/data", artifacts="s3://lake/models", online="redis://store:6379/0", runs="elsewhere"
)


def test_an_address_with_a_scheme_stays_as_it_is_and_the_rest_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    resolved = REMOTE.resolved()
    assert (resolved.data, resolved.online) == ("s3://lake/data", "redis://store:6379/0")
    assert resolved.runs == str(tmp_path / "elsewhere")
    assert resolved.features == str(tmp_path / "work" / "features")
    assert resolved.tracking == f"sqlite:///{tmp_path}/work/mlflow.db"
    assert Endpoints.model_validate_json(resolved.model_dump_json()).resolved() == resolved


@pytest.mark.parametrize("name", ["data", "artifacts", "online"])
def test_a_remote_address_is_no_path(name: str) -> None:
    with pytest.raises(PlatformError) as caught:
        REMOTE.path(name)
    assert caught.value.code == "remote_address"
    assert name in caught.value.headline


def test_scratch_is_below_home_whatever_is_remote(tmp_path: Path) -> None:
    assert Endpoints(home=str(tmp_path), data="s3://lake").scratch("a", "b") == tmp_path / "a" / "b"
    assert REMOTE.path("home") == REMOTE.scratch()
