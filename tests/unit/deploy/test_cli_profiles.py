"""Profiles are documents; the code knows none of them by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import deploy
from contracts.errors import PlatformError
from deploy.cli.profiles.loading import ENVIRONMENTS, load_deployment, load_endpoints, load_profile, profile_names
from services.settings import ServiceSettings

ROOT = Path(deploy.__file__).parents[1]


@pytest.mark.parametrize("profile", profile_names())
def test_every_shipped_profile_is_valid(profile, monkeypatch) -> None:
    monkeypatch.delenv("FAIRLEAD_HOME", raising=False)
    found = load_profile(profile)
    assert Path(found.resolved().home).is_absolute()
    assert found.cluster is None or found.cluster.namespace


def test_every_shipped_deployment_is_valid_and_has_a_port_of_its_own() -> None:
    for profile in (name for name in profile_names() if load_profile(name).cluster is None):
        files = list((ENVIRONMENTS / profile / "models").glob("*.yaml"))
        ports = [load_deployment(profile, file.stem).port for file in files]
        assert len(set(ports)) == len(files)


def test_every_shipped_deployment_configures_its_service_with_keys_that_it_knows() -> None:
    for profile in (name for name in profile_names() if load_profile(name).cluster is None):
        for file in (ENVIRONMENTS / profile / "models").glob("*.yaml"):
            ServiceSettings.model_validate(load_deployment(profile, file.stem).config)


def test_environment_wins_over_the_profile(home) -> None:
    assert load_endpoints("local").home == str(home)


def test_other_variables_with_our_prefix_are_left_to_their_owners(home, monkeypatch) -> None:
    monkeypatch.setenv("FAIRLEAD_SERVICE_PORT", "3001")
    assert load_endpoints("local").home == str(home)


def test_a_profile_can_be_a_file_anywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("FAIRLEAD_HOME", raising=False)
    (tmp_path / "mine.yaml").write_text("home: /somewhere\ntracking: http://tracking:5000\n")
    endpoints = load_endpoints(str(tmp_path / "mine.yaml"))
    assert (endpoints.home, endpoints.tracking) == ("/somewhere", "http://tracking:5000")
    assert endpoints.artifacts == "/somewhere/bundles"


def test_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(PlatformError) as caught:
        load_endpoints("producton")
    assert "local" in caught.value.detail


def test_a_misspelt_address_is_refused_with_the_accepted_ones(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("hom: /somewhere\n")
    with pytest.raises(PlatformError) as caught:
        load_endpoints(str(tmp_path / "mine.yaml"))
    assert "hom" in caught.value.headline
    assert "home" in caught.value.detail


def test_a_model_without_values_gets_defaults(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("home: /somewhere\n")
    values = load_deployment(str(tmp_path / "mine.yaml"), "churn")
    assert values.model == "churn"


def test_a_misspelt_value_is_refused(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("home: /somewhere\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "churn.yaml").write_text("prot: 3009\n")
    with pytest.raises(PlatformError) as caught:
        load_deployment(str(tmp_path / "mine.yaml"), "churn")
    assert "prot" in caught.value.headline


def test_no_code_asks_for_a_profile_by_name() -> None:
    pattern = re.compile(r"(if|elif|case|match)\b.*\bprofile\s*(==|!=|in\s*[\(\[\{])")
    packages = ("contracts", "pipelines", "services", "feature_repo", "deploy", "fairlead")
    files = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    assert files
    assert [str(file) for file in files if pattern.search(file.read_text(encoding="utf-8"))] == []
