"""``fairlead adapters``: what a recipe made is published by name or for a person, listed, replaced and taken away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.adapter import read_adapter
from contracts.bundle import Bundle, sha256_file
from contracts.engines.llamacpp import WEIGHTS
from contracts.lora import HEADS, lora_of, misfit, to_gguf, write_peft
from contracts.registry import Registry
from deploy.cli.profiles.loading import load_endpoints
from services.adapters.store import AdapterStore
from services.feedback.hashing import hashed
from tests.chat_adapters import after
from tests.problem_bundles import tiny_chat

SALT = "a-salt"


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("FAIRLEAD_SERVICE_ADAPTERS__FOLDER", str(tmp_path / "adapters"))
    monkeypatch.setenv("FAIRLEAD_SERVICE_ADAPTERS__ENTITY", "user")
    monkeypatch.setenv("FAIRLEAD_SERVICE_PREDICTIONS__SALT", SALT)
    made = tiny_chat(tmp_path / "bundle", tuned=after("w", "K", base="0" * 64, entity="x"))
    Registry(load_endpoints("local")).publish(made)
    return made


def test_an_adapter_is_published_listed_replaced_and_removed(fairlead: Any, tuned: Bundle, tmp_path: Path) -> None:
    base = sha256_file(tuned.model_path / WEIGHTS)
    said = fairlead("adapters", "publish", "tiny:1", "--name", "tone", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out) == {"name": "tiny:tone", "base": base[:12], "version": 1, "from": "tiny:1"}
    assert json.loads(fairlead("adapters", "publish", "tiny:1", "--name", "tone", "--json").out)["version"] == 2
    (listed,) = json.loads(fairlead("adapters", "--model", "tiny", "--json").out)
    assert (listed["name"], listed["version"], listed["rank"]) == ("tiny:tone", 2, 1)
    assert "tiny:tone" in fairlead("adapters", "--model", "tiny").out
    kept = read_adapter(AdapterStore(str(tmp_path / "adapters"), "tiny", base).last("named-tone").data)
    assert (kept.base, kept.tensors[HEADS].tolist()) == (base, [1, 1])
    assert fairlead("adapters", "remove", "tone", "--model", "tiny").code == 0
    assert json.loads(fairlead("adapters", "--model", "tiny", "--json").out) == []
    assert "no adapter 'tone'" in fairlead("adapters", "remove", "tone", "--model", "tiny").err


def test_a_person_s_adapter_goes_when_the_person_is_forgotten(fairlead: Any, tuned: Bundle, tmp_path: Path) -> None:
    entity = hashed(SALT.encode(), "ann")
    assert fairlead("adapters", "publish", "tiny:1", "--user", "ann").code == 0
    store = AdapterStore(str(tmp_path / "adapters"), "tiny", sha256_file(tuned.model_path / WEIGHTS))
    assert store.version(entity) == 1
    assert json.loads(fairlead("adapters", "--model", "tiny", "--json").out) == []  # whose they are is in no list
    served = AdapterStore(str(tmp_path / "adapters"), "chat", "0" * 64)  # `forget` knows the models of tasks
    assert served.put(entity, 1, after("w", "K", base="0" * 64, entity=entity).to_bytes())
    for dry, left in (("--dry-run", 1), ("--json", 0)):
        said = fairlead("forget", "--entity", "user=ann", "--task", "chat", dry, "--json")
        assert [one["adapters"] for one in json.loads(said.out)["tasks"]] == [1], said.err
        assert served.version(entity) == left


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tiny:1"], "--name NAME, or --user KEY"),
        (["tiny:1", "--name", "Ton:e"], "small letters"),
        (["tiny:7", "--name", "tone"], "tiny:7"),
    ],
)
def test_what_cannot_be_published_is_said(fairlead: Any, tuned: Bundle, arguments: list[str], words: str) -> None:
    said = fairlead("adapters", "publish", *arguments)
    assert said.code != 0
    assert words in said.err


def test_without_a_place_for_adapters_it_is_said_where_to_set_it(
    fairlead: Any, tuned: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAIRLEAD_SERVICE_ADAPTERS__FOLDER")
    assert "config.adapters.folder" in fairlead("adapters", "--model", "tiny").err


def test_matrices_survive_the_way_to_peft_and_back_and_what_does_not_fit_is_told(tmp_path: Path) -> None:
    made = after("w", "K", base="0" * 64, entity="x")
    write_peft(made, tmp_path)
    again = lora_of(tmp_path, (1, 1), base=made.base, entity="x", version=1)
    assert to_gguf(again) == to_gguf(made)
    assert all(np.array_equal(again.tensors[name], one) for name, one in made.tensors.items())
    name = "base_model.model.lm_head.lora_A.weight"
    for tensors, words in (
        ({**made.tensors, name: np.ones((2, 4), np.float32)}, "do not fit each other"),
        ({**made.tensors, "base_model.model.other.lora_A.weight": np.ones((1, 4), np.float32)}, "it changes other"),
        ({key: one for key, one in made.tensors.items() if key != HEADS}, "does not tell"),
        ({key: one for key, one in made.tensors.items() if "lora_" not in key}, "no matrices"),
    ):
        wrong = type(made)(layer="lora", base=made.base, entity="x", version=1, tensors=tensors)
        assert words in misfit(wrong)
