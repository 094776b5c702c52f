"""A Llama with two layers and random weights, as transformers saves it: what tuning is tried on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXTS = ["Which is larger, 384 or 606? The answer is 606.", 'Answer with JSON: {"answer": "tool"}', "答案是工具。"]


def write_weights(folder: Path, template: str = TEMPLATE, seed: int = 0, width: int = 64) -> Path:
    """Write config.json, model.safetensors and the tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    read = tokenizer(template)
    read.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(read), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=read.bos_token_id, eos_token_id=read.eos_token_id, pad_token_id=read.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_shards(folder: Path, weights: Path, half: bool = False) -> Path:
    """The same model in three files with an index; with `half` in bfloat16."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(weights, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    found = load_file(weights / "model.safetensors")
    where = {name: f"model-{at % 3 + 1:05}-of-00003.safetensors" for at, name in enumerate(sorted(found))}
    for file in set(where.values()):
        part = {name: one.to(torch.bfloat16) if half else one for name, one in found.items() if where[name] == file}
        save_file(part, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def tokenizer(template: str = TEMPLATE) -> Any:
    """Of byte pairs, with the marks of a conversation."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    marks = ["<unk>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        _TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=marks, initial_alphabet=alphabet)
    )
    read = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token=marks[0], bos_token=marks[1], eos_token=marks[2], pad_token=marks[2]
    )
    read.chat_template = template
    return read
