"""federate and federation: what a run is told, whose keys are whose, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from deploy.cli.training import federation
from deploy.cli.training.federation import Federation, federable, federation_settings, site_rules


def test_what_is_asked_is_what_the_run_is_told(fairlead: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(task: str, recipe: str, resume: None, options: Any, as_json: bool) -> None:
        seen.update(task=task, recipe=recipe, told=options.overrides, source=options.source)

    monkeypatch.setattr(federation, "run_task", run)
    words = "federate credit --clients 5 --split-by purpose --rule screened --fault site-2=sign --rounds 9 --set seed=3"
    assert fairlead(*words.split()).code == 0
    assert (seen["task"], seen["recipe"]) == ("credit", "logistic")
    assert seen["told"][-1] == "seed=3"
    assert {"federation.clients=5", "federation.split=purpose", "federation.rule=screened"} <= set(seen["told"])
    assert any("site-2" in one and "sign" in one for one in seen["told"])
    partners = ["federate", "credit", "--site", "a", "--site", "b", "--site", "c", "--secure", "--certificates", "keys"]
    assert fairlead(*partners).code == 0
    assert not any("clients" in one for one in seen["told"])
    assert f"federation.certificates={Path('keys').resolve()}" in seen["told"]


def test_the_run_accepts_what_it_is_told() -> None:
    from pipelines.settings import assigned, parse_setting
    from pipelines.tasks import get_task
    from pipelines.values import chosen_config

    asked = Federation(clients=4, split="dirichlet", faults=["site-1=drop"], rounds=3, secure=True)
    told = dict(parse_setting(assigned(key, value)) for key, value in federation_settings(asked).items())
    config: Any = chosen_config(get_task("credit"), "network", {}, told)
    assert config.federation.names == ("site-1", "site-2", "site-3", "site-4")
    assert (config.federation.secure, config.federation.rounds, config.federation.least) == (True, 3, 3)


@pytest.mark.parametrize(
    ("task", "recipe", "why"),
    [
        ("credit", "lightgbm", "--recipe logistic"),
        ("news", "linear", "--recipe embedding_lstm"),
        ("images", "finetune", "--recipe resnet"),
        ("recommend", None, "fairlead federate credit"),
    ],
)
def test_what_cannot_be_federated_is_refused_before_anything_starts(task: str, recipe: str | None, why: str) -> None:
    with pytest.raises(PlatformError, match="cannot be federated") as failed:
        federable(task, recipe)
    assert failed.value.fix == why


def test_texts_and_images_have_recipes_that_can() -> None:
    asked = [("news", "transformer"), ("news", "transformer_lstm"), ("images", None), ("images", "linear_probe")]
    assert [federable(*one) for one in asked] == ["transformer", "transformer_lstm", "resnet", "linear_probe"]


def test_a_fault_that_is_none_and_an_unknown_rule_are_named() -> None:
    with pytest.raises(PlatformError, match="NAME=WHAT"):
        federation_settings(Federation(faults=["drop"]))
    with pytest.raises(PlatformError, match="unknown key 'least'"):
        site_rules(["least=3"])
    rules = site_rules(["secure=true", "accept.roc_auc=0.7", "max_epsilon=3"])
    assert (rules.secure, rules.accept, rules.max_epsilon) == (True, {"roc_auc": 0.7}, 3.0)


def test_partners_are_led_from_a_cluster_by_its_chart(fairlead: Any) -> None:
    said = fairlead("federate", "credit", "--site", "a", "--certificates", "keys", "--profile", "cluster")
    assert said.code == 1
    assert "federation.enabled=true" in said.err + said.out


def test_keys_are_made_once_and_only_their_owner_reads_them(fairlead: Any, tmp_path: Path) -> None:
    words = ["federation", "certificates", str(tmp_path / "keys"), "--host", "localhost", "--json"]
    first = fairlead(*words, "--site", "bank-a").json
    kept = {file.name: file.read_bytes() for file in (tmp_path / "keys").iterdir()}
    assert set(kept) == {"ca.pem", "ca.key", "server.crt", "server.key", "bank-a.crt", "bank-a.key"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "keys").glob("*.key"))
    assert first["authority"].endswith("ca.key")
    fairlead(*words, "--site", "bank-a", "--site", "bank-b")
    again = {file.name: file.read_bytes() for file in (tmp_path / "keys").iterdir()}
    assert {name: again[name] for name in kept} == kept
    assert "bank-b.key" in again
    assert fairlead(*words, "--site", "server").code == 1
