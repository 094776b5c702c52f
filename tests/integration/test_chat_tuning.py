"""A small random Llama is tuned, and llama.cpp serves what transformers trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.bundle import write_bundle
from contracts.engines import load_engine
from contracts.engines.llamacpp import base_of
from contracts.errors import PlatformError
from contracts.lora import lora_of, to_gguf
from pipelines.pages.card import render_card
from pipelines.recipes.chat import tuning_run
from pipelines.recipes.chat.tuned import TunedChat
from pipelines.tasks import get_task, load_config
from tests.chain import PASSED, Chain
from tests.chat_weights import write_shards, write_weights
from tests.late import needs

pytestmark = pytest.mark.integration
needs("trl", "peft", "gguf", "xllamacpp")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def small_general_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuning_run._GENERAL.read_text(encoding="utf-8").splitlines()
    file = tmp_path / "general.csv"
    file.write_text("\n".join([*rows[:12], rows[-1]]), encoding="utf-8")
    monkeypatch.setattr(tuning_run, "_GENERAL", file)


def chain(home: Path, weights: Path, recipe: str, more: Mapping[str, Any] | None = None) -> Chain:
    settings = {
        "model.weights": str(weights), "model.window": 256, "model.max_tokens": 6, "rows": 40, "training.epochs": 2,
        "training.threads": 1, "training.learning_rate": 0.02, "training.precision": "fp32",
    }  # fmt: skip
    return Chain(task="chat", home=home, recipe=recipe, overrides={**settings, **(more or {})})


def trained(made: Chain, folder: str = "model") -> dict[str, Any]:
    made.call("train", made.path("dataset"), made.path("checkpoints"), made.path(folder))
    document: dict[str, Any] = json.loads((made.path(folder) / "train.json").read_text(encoding="utf-8"))
    return document


def test_what_llama_cpp_answers_with_an_adapter_is_what_was_trained(tmp_path: Path, weights: Path) -> None:
    import torch
    from gguf import GGUFReader
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    packed = {"training.packing": True, "training.batch_size": 1, "training.learning_rate": 0.005}
    made = chain(
        tmp_path, weights, "lora", {"model.forms": ["f16"], "model.safetensors": True, "training.epochs": 6, **packed}
    )
    made.dataset()
    made.candidate()
    told = json.loads((made.path("candidate") / "evaluation.json").read_text())["tuning"]
    before, after = told["valid"]["bits_per_byte"]
    assert after < before - 0.3
    assert set(told["valid"]) == {"bits_per_byte", "perplexity", "exact_match", "token_f1", "format"}
    fields = json.loads((made.path("candidate") / "candidate.json").read_text())
    assert "<mark>{&#34;answer&#34;" in render_card(made.path("candidate"), fields, "chat")
    fields |= {"gate": PASSED, "lineage": {**fields["lineage"], "created": ""}}
    shutil.copytree(made.path("candidate"), tmp_path / "bundle", ignore=shutil.ignore_patterns("candidate.json"))
    bundle = write_bundle(tmp_path / "bundle", tmp_path / "bundles", fields)
    engine: Any = load_engine(bundle)
    base = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    read = AutoTokenizer.from_pretrained(weights)
    model = PeftModel.from_pretrained(base, bundle.model_path / "adapter").eval()
    prompt = "<|im_start|>user\nWhich is larger, 12 or 34?<|im_end|>\n<|im_start|>assistant\n"
    ids = read(prompt, return_tensors="pt")["input_ids"]
    asked = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 5, "cache_prompt": False}
    with torch.inference_mode():
        ours = model(input_ids=ids).logits[0, -1].log_softmax(-1)
        with model.disable_adapter():
            bare = model(input_ids=ids).logits[0, -1].log_softmax(-1)
    try:
        found = engine.process.call("POST", "/completion", asked)["completion_probabilities"][0]["top_logprobs"]
    finally:
        engine.process.stop()
    theirs = {one["id"]: one["logprob"] for one in found}
    assert ours.topk(1).indices[0].item() in theirs
    for token, value in theirs.items():
        assert ours[token].item() == pytest.approx(value, abs=0.05)
    assert max(abs(bare[token].item() - value) for token, value in theirs.items()) > 0.5  # the adapter is what answers
    whole = AutoModelForCausalLM.from_pretrained(bundle.model_path / "safetensors", dtype=torch.float32).eval()
    with torch.inference_mode():  # what vLLM reads is the same model
        merged = whole(input_ids=ids).logits[0, -1].log_softmax(-1)
    assert torch.allclose(merged, ours, atol=1e-3)
    assert AutoTokenizer.from_pretrained(bundle.model_path / "safetensors")(prompt)["input_ids"] == ids[0].tolist()
    assert str(weights) not in (bundle.model_path / "safetensors" / "config.json").read_text()
    config = json.loads((weights / "config.json").read_text())
    heads = (config["num_attention_heads"], config["num_key_value_heads"])
    kept = lora_of(bundle.model_path / "adapter", heads, base=base_of(bundle), entity="x", version=1)
    (tmp_path / "kept.gguf").write_bytes(to_gguf(kept))
    files = [tmp_path / "kept.gguf", bundle.model_path / "adapter" / "adapter.gguf"]
    one, other = ({each.name: each.data for each in GGUFReader(file).tensors} for file in files)
    assert one.keys() == other.keys()  # what is published by name is what was served
    assert all(np.array_equal(one[name], other[name]) for name in one)


class KilledError(Exception):
    """What ends a training in the middle."""


def test_a_tuning_that_was_killed_goes_on_and_ends_alike(tmp_path: Path, weights: Path) -> None:
    from pipelines.tasks import get_task

    made = chain(tmp_path, weights, "lora", {"lora.dropout": 0.0})
    made.dataset()
    task, dataset = get_task("chat"), made.path("dataset")
    whole = made.settings.train(task, dataset, tmp_path / "whole", tmp_path / "checkpoints-a", lambda *_, **__: None)

    def kill(done: float, total: int, **said: Any) -> None:
        if done > 1 and "steps" in said:
            raise KilledError

    with pytest.raises(KilledError):
        made.settings.train(task, dataset, tmp_path / "half", tmp_path / "checkpoints-b", kill)
    (tmp_path / "checkpoints-b" / "tuning" / "checkpoint-99").mkdir()  # one that was never written to its end
    steps: list[int] = []

    def count(done: float, total: int, **said: Any) -> None:
        steps.extend([said["steps"]] if "steps" in said else [])

    again = made.settings.train(task, dataset, tmp_path / "half", tmp_path / "checkpoints-b", count)
    assert min(steps) > 1
    assert again["history"] == whole["history"]
    assert again["tuning"]["valid"] == whole["tuning"]["valid"]


def test_all_weights_are_served_in_the_smallest_form_that_costs_little(tmp_path: Path, weights: Path) -> None:
    made = chain(tmp_path, weights, "sft", {"gate.tuning.quantised_bits": 0.0, "model.forms": ["q4_1", "f16"]})
    made.dataset()
    found = trained(made)
    [check] = found["choices"]
    assert (check["metric"], check["passed"]) == ("valid_bits_per_byte:q4_1", False)
    assert found["parameters"]["form"] == "f16"
    assert not (made.path("model") / "model" / "adapter").exists()
    loose = chain(tmp_path, weights, "sft", {"gate.tuning.quantised_bits": 9.0, "gate.int8_tolerance": 1.0})
    loose.version = made.version
    small = trained(loose, "small")
    assert small["parameters"]["form"] == "q4_1"
    sizes = [(made.path(name) / "model" / "model.gguf").stat().st_size for name in ("small", "model")]
    assert sizes[0] < 0.8 * sizes[1]


def test_a_folder_of_transformers_is_served_as_it_is_in_the_smallest_form_that_costs_little(
    tmp_path: Path, weights: Path
) -> None:
    several = write_shards(tmp_path / "several", weights)  # an index and three files
    given = {"model.weights": str(several), "model.window": 256, "model.max_tokens": 6, "model.safetensors": True}
    limits = {"gate.tuning.quantised_bits": 9.0, "gate.int8_tolerance": 1.0}
    made = Chain(task="chat", home=tmp_path, recipe="pretrained", overrides=given | limits)
    made.dataset()
    found, out = trained(made), made.path("model") / "model"
    assert [one["metric"] for one in found["choices"]] == ["valid_bits_per_byte:q4_1", "valid_token_f1:q4_1"]
    assert (found["parameters"]["form"], found["parameters"]["weights"]) == ("q4_1", several.name)
    kept = {one.name for one in several.iterdir() if one.suffix in (".json", ".safetensors", ".jinja")}
    assert {one.name for one in (out / "safetensors").iterdir()} == kept
    assert (out / "model.gguf").stat().st_size < (weights / "model.safetensors").stat().st_size / 2
    other = shutil.copytree(weights, tmp_path / "other")
    told = json.loads((other / "config.json").read_text()) | {"model_type": "qwen2"}
    (other / "config.json").write_text(json.dumps(told))
    wrong = Chain(task="chat", home=tmp_path, recipe="pretrained", overrides=given | {"model.weights": str(other)})
    with pytest.raises(PlatformError, match="cannot be converted to GGUF") as caught:
        trained(wrong)
    assert (caught.value.code, "'llama' is converted" in caught.value.detail) == ("bad_weights", True)


def test_two_processes_that_keep_half_of_the_weights_each_learn_what_one_learns(tmp_path: Path, weights: Path) -> None:
    made = chain(tmp_path, weights, "sft", {"model.forms": ["f16"], "training.sharded": True})
    made.dataset()
    alone = trained(made)
    given = {"task": "chat", "config": made.config, "dataset": str(made.path("dataset"))}
    given |= {"checkpoints": str(tmp_path / "checkpoints"), "out": str(tmp_path / "out")}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = [part for key, value in given.items() for part in (f"--{key}", value)]
    done = subprocess.run(
        [*start, "-m", "pipelines.steps.train_worker", *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["result"]["processes"] == 2
    both = json.loads((tmp_path / "out" / "train.json").read_text(encoding="utf-8"))
    assert both["history"][0]["train_loss"] == pytest.approx(alone["history"][0]["train_loss"], rel=1e-5)
    before, after = both["tuning"]["valid"]["bits_per_byte"]
    assert after < before - 0.1
    assert after == pytest.approx(alone["tuning"]["valid"]["bits_per_byte"][1], rel=1e-4)


def test_preferences_put_the_better_answer_ahead(tmp_path: Path, weights: Path) -> None:
    made = chain(tmp_path, weights, "dpo", {"training.learning_rate": 0.005})
    made.dataset()
    found = trained(made)
    assert [row["accuracy"] >= 0.5 for row in found["history"]] == [True, True]
    assert found["history"][-1]["valid_loss"] < found["history"][0]["valid_loss"]
    assert (made.path("model") / "model" / "adapter" / "adapter.gguf").exists()


def test_a_recipe_that_needs_a_gpu_says_so(tmp_path: Path, weights: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    made = chain(tmp_path, weights, "qlora")
    made.dataset()
    with pytest.raises(PlatformError) as caught:
        trained(made)
    assert caught.value.code == "no_device"


def test_a_tuning_is_planned_by_real_steps_and_by_the_shape_of_its_weights(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = chain(tmp_path, weights, "lora")
    made.dataset()
    whole: list[tuple[int, int]] = []

    def few_batches(
        config: Any, task: Any, dataset: Path, out: Path, checkpoints: Path, progress: Any
    ) -> dict[str, Any]:
        rows = len(pd.read_parquet(dataset / "train.parquet"))
        whole.append((rows, config.training.epochs))
        return {}

    monkeypatch.setattr(TunedChat, "train", few_batches)
    task = get_task("chat")
    config: Any = load_config(task, made.config)
    (tmp_path / "steps").mkdir()
    found = config.planned_steps(task, Path(made.path("dataset")), tmp_path / "steps", 2.0**40)
    rows = len(pd.read_parquet(Path(made.path("dataset")) / "train.parquet"))
    assert whole == [(min(rows, 4 * config.training.batch_size), 2)]
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(weights)
    assert found["parameters"] == model.num_parameters()
    low, likely, high = found["seconds"]
    assert 0 < low <= likely <= high
    assert found["memory_peak"][1] > found["gpu_memory"]["total"] > found["gpu_memory"]["weights"]
    assert found["steps"] == 2 * -(-len(pd.read_parquet(Path(made.path("dataset")) / "train.parquet")) // 8)
    small = config.planned_steps(task, Path(made.path("dataset")), tmp_path / "none", 1.0)
    assert (small["seconds"], small["why"]) == (
        None,
        "by the formula, one step needs more memory than this machine has",
    )
