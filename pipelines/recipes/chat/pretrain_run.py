"""One language model from the data set to the served files: tokens, weights, and what it costs and writes."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import sha256_file
from contracts.engines.llamacpp import SPEC, WEIGHTS, ChatSpec, whole
from contracts.errors import PlatformError
from contracts.prompts import fill, placeholders
from contracts.remote_engine import SAFETENSORS
from pipelines.task import Progress, dump_config
from pipelines.training.language_model import Text, train

if TYPE_CHECKING:
    import pandas as pd

_CHARACTERS = 16  # of a token, at most but for rare ones: a longer answer is cut
_BEGUN = 24  # tokens of a held-out text that a sample goes on from
_CHECKED = 8  # validation texts that llama.cpp has to read as they were learned
_SHOWN = 600  # characters of a sample on the card


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text to learn: what is said to the model, "" for a text that nobody asked for, and what it writes."""

    said: str
    written: str


def documents(frame: pd.DataFrame, config: Any) -> list[Document]:
    """The texts of a part; neighbouring pieces of one document (ids ``NAME#NUMBER``) are one again."""
    names = [name for name in (*placeholders(config.model.prompt), config.model.begins) if name]
    found: list[Document] = []
    before: tuple[str, int] | None = None
    rows: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items()} for row in frame[names].to_dict("records")
    ]
    pieces = sorted(zip(frame["id"], rows, frame["label"], strict=True), key=_place)
    for key, row, label in pieces:
        said = fill(config.model.prompt, row).strip()
        text = str(row.get(config.model.begins, "")) + label
        place = _place((key,))
        if found and not said and not found[-1].said and before == (place[0], place[1] - 1):
            found[-1] = Document(said="", written=found[-1].written + text)
        else:
            found.append(Document(said=said, written=text))
        before = place
    return found


def _place(piece: Sequence[Any]) -> tuple[str, int]:
    name, _, number = str(piece[0]).rpartition("#")
    return (name, int(number)) if name and number.isdigit() else (str(piece[0]), 0)


def run(config: Any, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
    """See `TaskConfig.train`."""
    import pandas as pd

    from pipelines.training.device import import_torch, resolve_device
    from pipelines.training.llama_gguf import import_gguf
    from pipelines.training.ngram_text import ngram_bits

    torch = import_torch()
    import_gguf()
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.distributed import group
    from pipelines.training.language_model import Batches, measured
    from pipelines.training.llama import Llama

    _check_shape(config.model)
    device = resolve_device(config.training.device)
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    parts = {name: documents(pd.read_parquet(dataset / f"{name}.parquet"), config) for name in ("train", "valid")}
    tokenizer = _tokenizer(config.model, parts["train"])
    stream = not any(one.said for part in parts.values() for one in part)
    window = config.model.window if stream else 0
    texts = {name: _texts(tokenizer, part, 0 if stream else config.model.window) for name, part in parts.items()}
    torch.manual_seed(config.seed)
    size = tokenizer.get_vocab_size()
    model = Llama(
        config.model, size, config.model.window, config.training.dropout, config.training.gradient_checkpointing
    )
    model.to(device)
    history = train(
        model,
        texts,
        config.training,
        window=window,
        device=device,
        seed=config.seed,
        checkpoint=Checkpoint(checkpoints / "language_model.pt", _fingerprint(config, dataset)),
        progress=progress,
    )
    if not group().leads:
        return {"history": [], "parameters": {}, "device": device}
    held = Batches(texts["valid"], window, "valid")
    costs = measured(model, held, config.training, device)
    counted = ngram_bits(texts["train"], texts["valid"])
    _write(config, model, tokenizer, out)
    told = {
        "texts": len(texts["train"]),
        "tokens": sum(len(one.ids) for one in texts["train"]),
        "vocabulary": size,
        "weights": sum(values.numel() for values in model.parameters()),
        "unit": config.model.unit,
        **{name: round(value, 4) for name, value in costs.items()},
        "ngram": {name: round(value, 4) for name, value in counted.items()},
        **_samples(config, tokenizer, out, parts, stream),
    }
    progress(config.training.steps, config.training.steps, doing="written")
    return {
        "engine": "llamacpp",
        "output": {"problem": "generation", "max_characters": config.model.max_tokens * _CHARACTERS},
        "decision": None,
        "history": history,
        "parameters": {
            "weights": told["weights"],
            "vocabulary": size,
            "window": config.model.window,
            "form": config.model.form,
            "valid_bits_per_byte": told["bits_per_byte"],
            "valid_perplexity": told["perplexity"],
            "sha256": sha256_file(out / WEIGHTS),
        },
        "device": device,
        "tolerance": config.model.tolerance,
        "pretraining": told,
    }


def _check_shape(model: Any) -> None:
    """Refuse sizes that do not fit each other.

    Raises:
        PlatformError: ``code="bad_config"``.
    """
    keys = model.key_heads or model.heads
    wrong = ""
    if model.width % model.heads or model.width // model.heads % 2:
        wrong = f"model.width is {model.width}, which {model.heads} heads cannot share evenly"
    elif model.heads % keys:
        wrong = f"model.heads is {model.heads}, which model.key_heads={keys} does not divide"
    elif model.max_tokens >= model.window:
        wrong = f"model.max_tokens is {model.max_tokens}, and prompt and answer have model.window={model.window}"
    if wrong:
        fix = "--set model.width=128 --set model.heads=4, or a window that is larger than the answers"
        raise PlatformError("the sizes of the model do not fit each other", detail=wrong, fix=fix, code="bad_config")


def _fingerprint(config: Any, dataset: Path) -> str:
    """Configuration and data: what was trained otherwise is never gone on with."""
    settings = json.loads(dump_config(config.training_part()))
    about = {name: settings[name] for name in ("model", "training", "seed")}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in ("train", "valid"):
        digest.update((dataset / f"{name}.parquet").read_bytes())
    return digest.hexdigest()


def _tokenizer(model: Any, train: Sequence[Document]) -> Any:
    from pipelines.training.byte_pairs import character_tokens, train_byte_pairs

    def each() -> Iterator[str]:
        for one in train:
            yield one.said
            yield one.written

    make = train_byte_pairs if model.unit == "pairs" else character_tokens
    return make(each(), model.vocabulary)


def _texts(tokenizer: Any, part: Sequence[Document], most: int) -> list[Text]:
    """As tokens, each begun and ended by the mark for that.

    Raises:
        PlatformError: ``code="too_long"``: with `most`, a text has more tokens.
    """
    from pipelines.training.byte_pairs import ANSWER_ID, END_ID, PROMPT_ID

    found = []
    for row, one in enumerate(part, 1):
        asked = [END_ID]
        if one.said:
            asked += [PROMPT_ID, *_ids(tokenizer, one.said), ANSWER_ID]
        ids = [*asked, *_ids(tokenizer, one.written), END_ID]
        if most and len(ids) > most:
            raise PlatformError(
                f"text {row} has {len(ids)} tokens with its prompt, and the model sees {most}",
                detail=f"it begins: {one.written[:80]!r}",
                fix=f"--set model.window={1 << math.ceil(math.log2(len(ids)))}, or leave the row out",
                code="too_long",
                row=row,
            )
        found.append(Text(ids=ids, asked=len(asked), size=len(one.written.encode()), characters=len(one.written)))
    return found


def _ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text in which a mark is written like any other signs."""
    from pipelines.training.byte_pairs import SPECIAL

    for mark in SPECIAL:  # a text is not to end, or to ask, by what stands in it
        text = text.replace(mark, mark.replace("|", "¦"))
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _write(config: Any, model: Any, tokenizer: Any, out: Path) -> None:
    """``model.gguf`` and ``chat.json``."""
    from pipelines.training.byte_pairs import END_ID, save
    from pipelines.training.llama import config_of
    from pipelines.training.llama_fields import fields_of
    from pipelines.training.llama_gguf import import_gguf, write_gguf

    asked = config.model
    out.mkdir(parents=True, exist_ok=True)
    about = config_of(asked, tokenizer.get_vocab_size(), asked.window, END_ID)
    weights = {
        name: values.detach().cpu().float().numpy()
        for name, values in model.state_dict().items()
        if not (asked.tied and name == "lm_head.weight")
    }
    with tempfile.TemporaryDirectory(prefix="pretrained-") as name:
        folder = Path(name) / "writer"
        save(tokenizer, folder, asked.window)
        (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
        fields = fields_of(folder, about)
    if asked.safetensors:
        from safetensors.numpy import save_file

        folder = out / SAFETENSORS
        save(tokenizer, folder, asked.window, begun=True)
        (folder / "config.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # Texts begin with the mark that they end with, as they were learned.
    fields["tokenizer.ggml.add_bos_token"] = (True, import_gguf().GGUFValueType.BOOL, None)
    write_gguf(out / WEIGHTS, weights, about, asked.form, fields)
    spec = ChatSpec(
        window=max(64, asked.window),
        max_tokens=asked.max_tokens,
        max_characters=asked.max_tokens * _CHARACTERS,
        prompt=asked.prompt,
        begins=asked.begins,
    )
    (out / SPEC).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _samples(config: Any, tokenizer: Any, out: Path, parts: dict[str, list[Document]], stream: bool) -> dict[str, Any]:
    """Texts that llama.cpp draws, with how much they repeat, and how much of the training they are."""
    from contracts.llama_process import LlamaOptions, LlamaProcess
    from contracts.texts import ngrams, repetition, words
    from pipelines.training.ngram_text import memorised

    model, held = config.model, parts["valid"]
    process = LlamaProcess(
        LlamaOptions(model=str(out / WEIGHTS), window=max(64, model.window), threads=config.training.threads or 1)
    )
    samples = []
    try:
        _check_reading(process, tokenizer, held)
        for at in range(model.samples):
            one = held[at * len(held) // model.samples if len(held) >= model.samples else at % len(held)]
            begun = tokenizer.decode(_ids(tokenizer, one.written)[:_BEGUN]).rstrip("\ufffd") if stream else ""
            prompt = begun
            if one.said:
                asked = {"messages": [{"role": "user", "content": one.said}]}
                prompt = process.call("POST", "/apply-template", asked)["prompt"]
            draw = {"temperature": model.temperature, "seed": config.seed + at, "n_predict": model.max_tokens}
            drawn = process.call("POST", "/completion", {"prompt": prompt, **draw})
            text = whole(drawn.get("content") or "", drawn.get("stop_type") == "limit")
            samples.append({"prompt": one.said or begun, "text": text})
    finally:
        process.stop()
    written = [one["text"] for one in samples]
    said = [words(text) for text in written]
    pairs = [pair for tokens in said for pair in ngrams(tokens, 2)]
    learned = [one.written for one in parts["train"]]
    return {
        "samples": [{name: value[:_SHOWN] for name, value in one.items()} for one in samples],
        "distinct_2": round(len(set(pairs)) / max(1, len(pairs)), 4),
        "repetition": round(sum(map(repetition, said)) / max(1, len(said)), 4),
        "memorised": _rounded(memorised(written, learned)),
        "memorised_held_out": _rounded(memorised([one.written[:4_000] for one in held[:200]], learned)),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _check_reading(process: Any, tokenizer: Any, held: Sequence[Document]) -> None:
    """Refuse a file whose tokens llama.cpp sees elsewhere than they were learned."""
    for one in held[:_CHECKED]:
        text = one.written[:500]
        theirs = process.call("POST", "/tokenize", {"content": text, "add_special": False})["tokens"]
        ours = _ids(tokenizer, text)
        if theirs != ours and "<|" not in text:
            at = next((at for at, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), 0)
            raise PlatformError(
                "llama.cpp cuts a text into other tokens than it was learned in",
                detail=f"from token {at}: {theirs[at : at + 5]} and {ours[at : at + 5]}",
                fix="--set model.unit=characters",
                code="bad_weights",
            )
