"""Tokenizers of language models: pairs of bytes that are learned from texts, or single characters, in one file form.

Every text can be written, as each of the 256 bytes is a token. Characters are pairs of bytes too, merged within a
character only, so that llama.cpp reads both kinds from a GGUF (as GPT-2's) and cuts a text as it was learned.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError

END, PROMPT, ANSWER = "<|end|>", "<|prompt|>", "<|answer|>"
SPECIAL = (END, PROMPT, ANSWER)
END_ID, PROMPT_ID, ANSWER_ID = range(3)
SMALLEST = len(SPECIAL) + 256
_USUAL = "“”‘’—…é"  # are known in any case: llama.cpp reads no vocabulary without a merge
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'assistant' %}<|answer|>{{ message.content }}<|end|>"
    "{% elif message.role == 'user' %}<|prompt|>{{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|answer|>{% endif %}"
)


def train_byte_pairs(texts: Iterable[str], vocabulary: int) -> Any:
    """A ``tokenizers.Tokenizer`` with at most `vocabulary` tokens; a text that has fewer pairs gives fewer.

    texts: the training part alone.

    Raises:
        PlatformError: ``code="bad_config"``: fewer tokens than the bytes and the marks are.
    """
    from tokenizers import pre_tokenizers, trainers

    _check(vocabulary)
    tokenizer = _tokenizer({}, [])
    before = [pre_tokenizers.Digits(individual_digits=True), tokenizer.pre_tokenizer]  # numbers are copied by digits
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(before)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def character_tokens(texts: Iterable[str], vocabulary: int) -> Any:
    """A tokenizer whose tokens are the characters of the texts, the commonest first; others are written in bytes.

    Raises:
        PlatformError: as of `train_byte_pairs`.
    """
    _check(vocabulary)
    letters = _letters()
    tokens = {token: at for at, token in enumerate([*SPECIAL, *letters])}
    merges: list[tuple[str, str]] = []
    counted = Counter(_USUAL)
    for text in texts:
        counted.update(text)
    wanted = [one for one, _ in sorted(counted.items(), key=lambda each: (-each[1], each[0])) if len(one.encode()) > 1]
    for character in dict.fromkeys([*_USUAL, *wanted]):
        parts = [letters[byte] for byte in character.encode("utf-8", "replace")]
        missing = [size for size in range(2, len(parts) + 1) if "".join(parts[:size]) not in tokens]
        if len(tokens) + len(missing) > vocabulary and character not in _USUAL:
            continue
        for size in missing:
            merges.append(("".join(parts[: size - 1]), parts[size - 1]))
            tokens["".join(parts[:size])] = len(tokens)
    return _tokenizer(tokens, merges)


def save(tokenizer: Any, folder: Path, window: int, begun: bool = False) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``, as transformers reads them.

    begun: every text and conversation begins with the mark of the end, which GGUF says in a field of its own.
    """
    from tokenizers import Tokenizer, processors

    folder.mkdir(parents=True, exist_ok=True)
    if begun:
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": END,
        "model_max_length": window,
        "clean_up_tokenization_spaces": False,
        "chat_template": END + TEMPLATE if begun else TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _tokenizer(tokens: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(tokens, merges) if tokens else models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    if tokens:
        tokenizer.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in SPECIAL])
    return tokenizer


def _letters() -> list[str]:
    """The sign that stands for each byte, as GPT-2 has them: printable ones for themselves, others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _check(vocabulary: int) -> None:
    if vocabulary < SMALLEST:
        raise PlatformError(
            f"model.vocabulary is {vocabulary}, and the bytes and marks alone are {SMALLEST} tokens",
            detail="every text can be written by them, so none may be left out",
            fix=f"--set model.vocabulary={SMALLEST + 1}, or more",
            code="bad_config",
        )
