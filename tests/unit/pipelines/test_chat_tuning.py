"""Tuning of chat models in parts: what is learned of a conversation, what is refused, what the gate looks at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.bundle import Bundle
from contracts.endpoints import Endpoints
from contracts.engine import EngineOptions
from contracts.engines.llamacpp import ChatSpec, LlamaEngine
from contracts.errors import PlatformError
from pipelines.checks.base import Candidate
from pipelines.checks.contamination import CHECK as CONTAMINATION
from pipelines.checks.forgetting import CHECK as FORGETTING
from pipelines.evaluation.contamination import contaminated
from pipelines.task import GateConfig
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.chat.instructions import FORMAT, instructions
from pipelines.training.conversations import IGNORED, Template, examples_of, read_general, shown
from pipelines.tuning_limits import TuningLimits
from tests.chat_weights import TEMPLATE, tokenizer, write_shards, write_weights
from tests.late import needs
from tests.tiny_llama import write_tiny_llama

needs("torch")


def test_of_a_conversation_the_answer_and_its_end_are_learned() -> None:
    template = Template(tokenizer(), "Be brief.")
    one = template.example("Which?", "This one.")
    assert shown(template.tokenizer, one) == [
        ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n", False),
        ("This one.<|im_end|>", True),
        ("\n", False),
    ]
    assert [token for token in one.labels if token != IGNORED] == template.tokenizer("This one.<|im_end|>")["input_ids"]
    assert one.size == len(b"This one.")
    assert one.before + one.answer == template.tokenizer.decode(one.ids)[:-1]


RAISES = "{{ raise_exception('no system message here') if messages[0].role == 'system' }}" + TEMPLATE
MARKED = TEMPLATE.replace("{{ message['content'] }}", "{% generation %}{{ message['content'] }}{% endgeneration %}")


@pytest.mark.parametrize(
    ("template", "detail"),
    [
        ("", "has none"),
        (RAISES, "no system message here"),
        ("{% for message in messages %}{{ message.nothing.at_all }}{% endfor %}", "raises"),
        ("{{ messages[-1].role }}{% if add_generation_prompt %}:{% endif %}", "leaves out what the user says"),
        (TEMPLATE.replace("assistant\n{% endif %}", "model\n{% endif %}"), "does not follow"),
        (TEMPLATE.replace("<|im_end|>", ";"), "no special token ends an answer"),
        (MARKED, "leave out a part of the answer, or its end"),
    ],
)
def test_a_chat_template_that_cannot_be_learned_with_is_refused(template: str, detail: str) -> None:
    with pytest.raises(PlatformError, match="chat template") as caught:
        Template(tokenizer(template), "Be brief.")
    assert caught.value.code == "bad_template"
    assert detail in caught.value.detail


def test_a_conversation_that_is_too_long_is_named_and_not_cut() -> None:
    template = Template(tokenizer(), "")
    with pytest.raises(PlatformError, match=r"row 2 .* at most 64") as caught:
        examples_of(template, ["Why?", "Why? " * 40], ["So.", "So."], 64)
    assert caught.value.code == "too_long"
    assert "training.max_tokens=256" in caught.value.fix


def test_instructions_fit_their_form_and_no_test_row_stands_in_training() -> None:
    import re

    rows = list(instructions(400, 7))
    assert len({row["prompt"] for row in rows}) == 400
    assert all(re.fullmatch(FORMAT, row["answer"]) for row in rows)
    assert all(row["rejected"] != row["answer"] for row in rows)
    assert rows == list(instructions(400, 7)) != list(instructions(400, 8))
    assert {"E", "Z"} == {row["id"][0] for row in rows}
    texts = [f"{row['prompt']}\n{row['answer']}" for row in rows]
    assert len(contaminated(texts[:340], texts[340:])) <= 3


def test_questions_of_the_general_set_have_one_right_answer_among_four() -> None:
    questions, texts = read_general(Path("pipelines/recipes/chat/general.csv"))
    assert len(questions) >= 90
    assert len(texts) >= 10
    assert all(len(set(one.answers)) == len(one.answers) == 4 for one in questions)


def test_runs_of_words_tell_what_was_seen() -> None:
    train = ["A long walk along the river on a sunny day in May with my old dog and a friend.", "Yes."]
    near = "A LONG walk along the river, on a sunny day in May with my old dog and a cat!"
    assert contaminated(train, [near, "yes", "no", "A walk in the rain with another dog, far from here and alone"]) == [
        0,
        1,
    ]
    assert contaminated(train, [""]) == []


def candidate(folder: Path, tuning: dict[str, Any] | None, limits: TuningLimits | None = None) -> Candidate:
    settings = GateConfig(tuning=limits or TuningLimits())
    evaluation = {"tuning": tuning, "metrics": {}, "slices": {}}
    endpoints = Endpoints(home=str(folder)).resolved()
    return Candidate(
        task="chat", folder=folder, dataset=folder, evaluation=evaluation, settings=settings, endpoints=endpoints
    )


def test_what_a_tuned_model_forgot_is_a_check_of_the_gate(tmp_path: Path) -> None:
    assert FORGETTING.find(candidate(tmp_path, None)).checks == ()
    general = {"score": [60.0, 58.5], "bits_per_byte": [1.0, 1.05], "right": [70.0, 69.0]}
    lost, more = FORGETTING.find(candidate(tmp_path, {"general": general})).checks
    assert (lost.metric, lost.value, lost.passed) == ("general:score_lost", 1.5, False)
    assert (more.metric, more.value, more.passed) == ("general:bits_more", 0.05, True)
    [only] = FORGETTING.find(
        candidate(tmp_path, {"general": general}, TuningLimits(forgotten=2.0, forgotten_bits=None))
    ).checks
    assert only.passed


def test_test_rows_that_stand_in_training_are_a_check_of_the_gate(tmp_path: Path) -> None:
    for name, prompts in {
        "train": ["What is one plus two?"],
        "valid": ["Why?"],
        "test": ["What is ONE plus two", "Who?"],
    }.items():
        frame = pd.DataFrame({"prompt": prompts, "id": [f"{name}{at}" for at in range(len(prompts))], "label": "x"})
        frame.to_parquet(tmp_path / f"{name}.parquet")
    found = CONTAMINATION.find(candidate(tmp_path, {"general": {}}))
    assert [(one.value, one.passed) for one in found.checks] == [(0.5, False)]
    assert "test0" in found.notes[0]
    assert CONTAMINATION.find(candidate(tmp_path, None)).checks == ()


@pytest.mark.parametrize("change", ["cut", "head", "architecture"])
def test_a_gguf_that_is_cut_short_or_of_another_architecture_is_not_trained(tmp_path: Path, change: str) -> None:
    pytest.importorskip("gguf")
    from pipelines.training.llama_gguf import base_of

    file = write_tiny_llama(tmp_path / "a.gguf", architecture="qwen2" if change == "architecture" else "llama")
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "head": whole[:40], "architecture": whole}[change])
    with pytest.raises(PlatformError) as caught:
        base_of(file)
    assert caught.value.code == "bad_weights"
    assert ("'qwen2'" if change == "architecture" else "cut short") in caught.value.detail


def test_a_folder_of_another_architecture_or_without_a_tokenizer_is_not_trained(tmp_path: Path) -> None:
    from pipelines.training.llama_gguf import base_of

    folder = write_weights(tmp_path / "weights")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt_neox"}))
    with pytest.raises(PlatformError, match="cannot be trained") as caught:
        base_of(folder)
    assert "'gpt_neox'" in caught.value.detail
    (folder / "tokenizer.json").unlink()
    with pytest.raises(PlatformError) as caught:
        base_of(folder)
    assert "tokenizer.json is missing" in caught.value.detail


def test_weights_come_back_from_gguf_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    from safetensors.numpy import load_file

    from pipelines.training.llama_fields import fields_of
    from pipelines.training.llama_gguf import base_of, rounded, write_gguf

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_weights(tmp_path / "weights")
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    for form in ("f32", "q8_0"):
        file = tmp_path / f"{form}.gguf"
        write_gguf(file, weights, config, form, fields_of(folder, config))
        base = base_of(file)
        again = load_file(base.folder / "model.safetensors")
        assert again.keys() == weights.keys()
        for name, values in weights.items():
            np.testing.assert_array_equal(again[name], rounded(name, values, form), err_msg=name)
        read = json.loads((base.folder / "config.json").read_text())
        same = (
            "hidden_size",
            "num_key_value_heads",
            "intermediate_size",
            "vocab_size",
            "tie_word_embeddings",
            "head_dim",
        )
        assert {name: read[name] for name in same} == {name: config[name] for name in same}
    assert np.abs(rounded("model.layers.0.mlp.up_proj.weight", weights["model.layers.0.mlp.up_proj.weight"], "q4_1")
                  - weights["model.layers.0.mlp.up_proj.weight"]).max() > 1e-4  # fmt: skip


def test_weights_in_several_files_are_those_of_one(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from pipelines.training.llama_fields import fields_of
    from pipelines.training.llama_gguf import base_of, open_gguf, write_gguf
    from pipelines.training.weight_files import WeightFiles

    one = write_weights(tmp_path / "one")
    several, half = write_shards(tmp_path / "several", one), write_shards(tmp_path / "half", one, half=True)
    config = json.loads((one / "config.json").read_text())
    whole = WeightFiles(one)
    for form in ("q4_1", "f16"):
        made = []
        for weights in (dict(whole), WeightFiles(several)):
            write_gguf(tmp_path / "a.gguf", weights, config, form, fields_of(one, config))
            made.append({one.name: one.data.tobytes() for one in open_gguf(tmp_path / "a.gguf").tensors})
        assert made[0] == made[1]
        assert len(made[0]) == len(whole)
    assert base_of(several).digest == base_of(several).digest != base_of(one).digest
    rough = WeightFiles(half)
    assert all(rough[name].dtype == np.float32 for name in rough)
    assert max(float(np.abs(rough[name] - whole[name]).max()) for name in whole) < 0.01


def missing(folder: Path) -> str:
    (folder / "model-00002-of-00003.safetensors").unlink()
    return "model-00002-of-00003.safetensors is missing"


def cut(folder: Path) -> str:
    file = folder / "model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    return "model-00002-of-00003.safetensors is cut short"


def swapped(folder: Path) -> str:
    shutil.copyfile(folder / "model-00001-of-00003.safetensors", folder / "model-00002-of-00003.safetensors")
    return "model-00002-of-00003.safetensors has no tensor"


def elsewhere(folder: Path) -> str:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../etc/x.safetensors"}}')
    return "no safetensors file beside it"


def unmapped(folder: Path) -> str:
    (folder / "model.safetensors.index.json").write_text("[1, 2]")
    return "has no weight_map"


@pytest.mark.parametrize("change", [missing, cut, swapped, elsewhere, unmapped])
def test_of_weights_in_several_files_the_one_that_is_wrong_is_named(tmp_path: Path, change: Any) -> None:
    from pipelines.training.llama_gguf import base_of

    several = write_shards(tmp_path / "several", write_weights(tmp_path / "one"))
    said = change(several)
    with pytest.raises(PlatformError, match="cannot be trained") as caught:
        base_of(several)
    assert said in caught.value.detail
    assert caught.value.code == "bad_weights"


def test_weights_without_a_tensor_are_not_filled_with_random_numbers(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from safetensors.torch import load_file, save_file

    from pipelines.training.chat_tuning import LoraConfig, TuningConfig, open_model
    from pipelines.training.llama_gguf import base_of

    several, gone = write_shards(tmp_path / "several", write_weights(tmp_path / "one")), "model.norm.weight"
    how = TuningConfig(), LoraConfig(rank=0)
    assert open_model(several, *how, 0)[0].lm_head.weight.shape[1] == 64, "a tied head is nowhere in the files"
    index = several / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    file = several / told["weight_map"].pop(gone)
    index.write_text(json.dumps(told))
    save_file({name: one for name, one in load_file(file).items() if name != gone}, file, {"format": "pt"})
    assert base_of(several).digest, "the files agree with their index"
    with pytest.raises(PlatformError, match="cannot be trained") as caught:
        open_model(several, *how, 0)
    assert caught.value.code == "bad_weights"
    assert f"no tensor {gone}, of 1 that" in caught.value.detail


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "adapter").mkdir(parents=True)
    write_tiny_llama(model / "model.gguf")
    spec = ChatSpec(window=64, max_tokens=4, max_characters=64, adapter="0" * 64)
    (model / "chat.json").write_text(spec.model_dump_json())
    signature = SimpleNamespace(inputs=[SimpleNamespace(name="prompt")])
    document: Any = SimpleNamespace(files={}, name="chat", modality="chat", signature=signature)
    with pytest.raises(PlatformError, match="refused") as caught:
        LlamaEngine(Bundle(tmp_path, document, ""), EngineOptions())
    assert "adapter is of weights 000000000000" in caught.value.detail


def test_an_adapter_of_layers_that_llama_cpp_does_not_take_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from safetensors.numpy import save_file

    from pipelines.training.llama_gguf import write_adapter

    name = "base_model.model.model.layers.0.self_attn.rotary.lora_A.weight"
    save_file({name: np.zeros((2, 8), np.float32)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 16}')
    with pytest.raises(PlatformError, match="rotary") as caught:
        write_adapter(tmp_path / "adapter.gguf", tmp_path, {}, "0" * 64)
    assert caught.value.code == "bad_adapter"


def test_four_bits_are_refused_without_a_gpu(tmp_path: Path) -> None:
    import torch

    from pipelines.training.chat_tuning import check_four_bits

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(PlatformError, match="needs a GPU with CUDA") as caught:
        check_four_bits()
    assert caught.value.fix.endswith("--recipe lora")


def test_preferences_need_worse_answers(tmp_path: Path) -> None:
    config: Any = recipe_config(get_task("chat"), "dpo")
    rows = pd.DataFrame({"prompt": ["Why?", "Who?"], "label": ["So.", "You."], "id": ["a", "b"]})
    template = Template(tokenizer(), "")
    with pytest.raises(PlatformError, match="no row of the train part has a worse answer"):
        config.examples(template, {"train": rows}, tmp_path, lambda *_, **__: None)
    pd.DataFrame({"id": ["b"], "rejected": ["Nobody."]}).to_parquet(tmp_path / "preferences.parquet")
    [pair] = config.examples(template, {"train": rows}, tmp_path, lambda *_, **__: None)["train"]
    assert (pair.chosen.answer, pair.rejected.answer) == ("You.<|im_end|>", "Nobody.<|im_end|>")
    assert pair.chosen.before == pair.rejected.before


def test_packed_conversations_do_not_see_each_other() -> None:
    pytest.importorskip("trl")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    parts = [torch.randint(1, 64, (size,)).tolist() for size in (5, 9, 3)]
    whole = [token for part in parts for token in part]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collate([{"input_ids": whole, "labels": whole, "seq_lengths": [len(part) for part in parts]}])
    together = model(**{name: batch[name] for name in ("input_ids", "position_ids")}, use_cache=False).logits[0]
    apart = torch.cat([model(input_ids=torch.tensor([part])).logits[0] for part in parts])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    leaking = model(input_ids=torch.tensor([whole])).logits[0]
    assert (leaking - apart).abs().max() > 1e-3
    starts = [0, 5, 14]
    assert batch["labels"][0][starts].tolist() == [IGNORED] * 3  # nobody's end teaches the next one's beginning
