"""Recipe `seq2seq`: texts written by an encoder and a decoder, from the task's texts or from pretrained weights."""

from __future__ import annotations

import math
import tempfile
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.text.settings import TextConfig, TextTaskConfig
from pipelines.search_space import Dimension
from pipelines.task import STRICT, Progress
from pipelines.training.loop import LoopConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.task import Task
    from pipelines.training.seq2seq import Pairs

_MEASURED = 2_000  # validation rows that tell epochs apart
_WRITTEN = 200  # of them, that are answered to tell whether weights of 8 bits are as good


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Seq2SeqModel:
    """An encoder and a decoder.

    layers: of each of the two.  width, heads, inner: sizes of a model that begins with random weights.  dropout: while
    training; attention_dropout: that of what is looked at, where 0 saves about an eighth of the time.
    smoothing: share of each target that is spread over all tokens.
    whole: texts that no token ends within, such as marks of who speaks: each is one token if it is frequent.
    copies: the next token may also be one of the source, which names and numbers are.
    int8: weights of 8 bits, if the answers to validation rows are as good, see ``gate.int8_tolerance``.
    pretrained: folder of a BART, Marian, T5 or mT5 as transformers saves them (config.json, model.safetensors, and
    tokenizer.json or spiece.model), to go on from; or s3://, ``package:NAME``, or ``hub:ORG/NAME@revision`` where the
    platform has a hub.
    prefix: stands before every source, such as the ``summarize: `` that a T5 knows.
    """

    layers: Annotated[int, Field(ge=1, le=24)] = 2
    width: Annotated[int, Field(ge=8, le=2_048)] = 192
    heads: Annotated[int, Field(ge=1, le=32)] = 4
    inner: Annotated[int, Field(ge=8, le=8_192)] = 512
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    whole: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=1_000)] = ()
    copies: bool = True
    int8: bool = True
    pretrained: str = ""
    prefix: Annotated[str, Field(max_length=200)] = ""

    # Sizes are those of the pretrained weights where there are such.
    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "dropout": Dimension(low=0.0, high=0.4),
        "smoothing": Dimension(low=0.0, high=0.2),
        "layers": Dimension(low=1, high=4, when={"pretrained": ("",)}),
    }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DecodingConfig:
    """How texts are written, see `contracts.decoding.Decoding`.

    temperature, top_k, top_p, seed: what holds for requests that ask for a text drawn by chance, where they say nothing
    else, see `contracts.decoding.Sampling`; texts that are measured, and those of golden examples, are never drawn.
    max_tokens: references beyond it are cut while training; how many is told in the parameters.
    """

    beams: Annotated[int, Field(ge=1, le=32)] = 1
    max_tokens: Annotated[int, Field(ge=1, le=4_096)] = 128
    min_tokens: Annotated[int, Field(ge=0)] = 1
    no_repeat: Annotated[int, Field(ge=0)] = 4
    length_penalty: Annotated[float, Field(ge=-10, le=10)] = 1.0
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Seq2SeqText(TextTaskConfig):
    """Of `text`, `max_tokens` is how much of a source is read; its `unit` is always a pair of bytes."""

    text: TextConfig = field(
        default_factory=lambda: TextConfig(max_characters=20_000, max_tokens=512, vocabulary=8_000, min_frequency=2)
    )
    model: Seq2SeqModel = field(default_factory=Seq2SeqModel)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    training: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            epochs=20, patience=3, batch_size=32, learning_rate=1e-3, warmup=200, schedule="linear"
        )
    )

    reports: ClassVar[str] = "valid_loss"

    def training_part(self) -> Self:
        """Keeps what weights of 8 bits are measured by."""
        part = super().training_part()
        kept = replace(part.gate, primary=self.gate.primary, int8_tolerance=self.gate.int8_tolerance)
        return replace(part, gate=kept) if self.model.int8 else part

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Train until the loss of ``valid`` stops falling, and write both graphs."""
        from pipelines.training.device import import_torch, resolve_device
        from pipelines.training.distributed import group
        from pipelines.training.seq2seq import Pairs

        device, torch = resolve_device(self.training.device), import_torch()
        torch.set_num_threads(self.training.threads)
        torch.manual_seed(self.seed)
        texts = {part: _read(task, self, dataset, part) for part in ("train", "valid")}
        network, tokenizer, revision = _begin(texts["train"], self)
        most = (self.text.max_tokens, self.decoding.max_tokens)
        pairs = {part: Pairs.of(*these, tokenizer, network.model, most) for part, these in texts.items()}
        history = _fit(network.to(device), pairs, self, device, checkpoints, progress)
        if not group().leads:
            return {"history": [], "parameters": {}, "device": device}
        out.mkdir(parents=True, exist_ok=True)
        longest = _save(network, tokenizer, pairs["train"], self, out)
        train = pairs["train"]
        output = {"problem": "generation", "max_characters": longest, "says_cut": True}
        choices, form = _form(task, self, dataset, out, output) if self.model.int8 else ([], {"form": "fp32"})
        return {
            "engine": "seq2seq",
            "output": output,
            "choices": choices,
            "decision": None,
            "history": history,
            "parameters": {
                "vocabulary": tokenizer.get_vocab_size(),
                "weights": sum(one.numel() for one in network.parameters()),
                "epochs_run": len(history),
                "cut_sources": train.cut_sources,
                "cut_references": train.cut_references,
                "window": train.window,
                **form,
                **({"pretrained_revision": revision} if revision else {}),
            },
            "device": device,
        }


def _read(task: Task, config: Seq2SeqText, dataset: Path, part: str) -> tuple[list[str], list[str]]:
    import pandas as pd

    from contracts.texts import join_fields
    from pipelines.recipes.text.examples import joined_texts, text_fields

    rows = pd.read_parquet(dataset / f"{part}.parquet")
    cut = config.text.max_characters
    texts = [config.model.prefix + text for text in joined_texts(rows, text_fields(task, config), cut)]
    return texts, [join_fields([label], cut) for label in rows["label"]]


def _begin(texts: tuple[list[str], list[str]], config: Seq2SeqText) -> tuple[Any, Any, str]:
    """Network and tokenizer: pretrained, with a hub's revision, or of random weights with the tokens of `texts`."""
    from pipelines.io.weights import weights_here
    from pipelines.training.seq2seq import Network, new_model, pretrained_model, train_byte_pairs

    wanted, text = config.model, config.text
    if wanted.pretrained:
        with weights_here(wanted.pretrained) as weights:
            model, tokenizer = pretrained_model(weights.folder, wanted.dropout)
        # A head that was never trained would spoil what the others know.
        return Network(model, copies=False), tokenizer, weights.revision
    if wanted.width % wanted.heads:
        raise PlatformError(
            "model.width cannot be shared by the heads",
            detail=f"{wanted.width} is no multiple of {wanted.heads}",
            fix="change model.width or model.heads",
            code="bad_config",
        )
    size = {"vocabulary": text.vocabulary, "min_frequency": text.min_frequency}
    tokenizer = train_byte_pairs([*texts[0], *texts[1]], whole=wanted.whole, **size)
    model = new_model(
        vocabulary=tokenizer.get_vocab_size(),
        layers=wanted.layers,
        width=wanted.width,
        heads=wanted.heads,
        inner=wanted.inner,
        longest=max(text.max_tokens, config.decoding.max_tokens + 1),
        dropout=wanted.dropout,
        attention_dropout=wanted.attention_dropout,
    )
    return Network(model, copies=wanted.copies), tokenizer, ""


def _fit(
    network: Any,
    pairs: Mapping[str, Pairs],
    config: Seq2SeqText,
    device: str,
    checkpoints: Path,
    progress: Progress,
) -> list[dict[str, float]]:
    import numpy as np
    import torch

    from pipelines.training.batches import bucket, pad
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.distributed import group
    from pipelines.training.loop import eager, run_epochs
    from pipelines.training.seq2seq import decoder_tokens, loss_of

    training, here, train, valid = config.training, group(), pairs["train"], pairs["valid"]
    lengths = np.array([len(row) for row in train.sources], np.int64)
    # A few hundred pairs would be a handful of steps an epoch; smaller batches make it at least twenty.
    size = min(training.batch_size, max(4, len(lengths) // 20))

    def tensors(data: Pairs, rows: Any) -> tuple[Any, ...]:
        """Source, given and wanted tokens, and which of the wanted ones are real."""
        wanted = [data.wanted[at] for at in rows]
        given = [np.array(decoder_tokens(data.start, row), np.int64) for row in wanted]
        marks = len(data.start) - 1  # tokens that are always given, not learned
        padded = [pad([data.sources[at] for at in rows], data.pad)[0], pad(given, data.pad)[0]]
        ids, sizes = pad(wanted, data.pad)
        places = np.arange(ids.shape[1])[None, :]
        real = (places < sizes[:, None]) & (places >= marks)
        return tuple(torch.from_numpy(one).to(device) for one in (*padded, ids, real))

    def made(epoch: int) -> Any:
        for rows in bucket(lengths, size, np.random.default_rng([config.seed, epoch])):
            mine = here.share(rows) if len(rows) >= here.size else rows
            copies = 1 if len(rows) >= here.size else here.size  # too few to share: each does all of them
            total = sum(len(train.wanted[at]) - len(train.start) + 1 for at in rows)
            yield tensors(train, mine), here.size / copies / max(1, total)

    def loss(current: Any, batch: Any) -> Any:
        (source, given, wanted, real), scale = batch
        log, mean = current(source, given, wanted)
        return loss_of(log, mean, real, config.model.smoothing) * scale

    seen = sorted(range(min(len(valid.sources), _MEASURED)), key=lambda at: len(valid.sources[at]))

    def evaluate(current: Any) -> dict[str, float]:
        """Of a token of the references: its loss without smoothing, and how often its chance is above one half."""
        current.eval()
        lost = sure = total = 0.0
        with torch.no_grad():
            for at in range(0, len(seen), 64):
                source, given, wanted, real = tensors(valid, seen[at : at + 64])
                log, _ = current(source, given, wanted)
                lost -= float((log * real).double().sum())
                sure += float(((log > math.log(0.5)) & real).sum())
                total += float(real.sum())
        return {"valid_loss": lost / max(1.0, total), "valid_sure": sure / max(1.0, total)}

    optimizer = eager(torch.optim.AdamW)(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, betas=(0.9, 0.98)
    )
    return run_epochs(
        network,
        optimizer,
        batches=made,
        steps_per_epoch=-(-len(lengths) // size),
        loss=loss,
        evaluate=evaluate,
        monitor="valid_loss",
        config=training,
        seed=config.seed,
        checkpoint=Checkpoint(checkpoints / f"{config.recipe}.pt", _fingerprint(pairs, config, device)),
        progress=progress,
    )


def _fingerprint(pairs: Mapping[str, Pairs], config: Seq2SeqText, device: str) -> str:
    """Names all that trained weights depend on."""
    import hashlib

    from pipelines.task import dump_config

    digest = hashlib.sha256(f"{dump_config(config)}|{device}".encode())
    for name in sorted(pairs):
        for row in (*pairs[name].sources, *pairs[name].wanted):
            digest.update(row.tobytes() + b"|")
    return digest.hexdigest()


def _form(
    task: Task, config: Seq2SeqText, dataset: Path, out: Path, output: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Take weights of 8 bits if they write as well: the choice for the gate's decision, and what is told of it."""
    import pandas as pd

    from contracts.engines import load_engine
    from contracts.engines.seq2seq import DECODER, ENCODER
    from pipelines.evaluation import get_evaluation, scoring
    from pipelines.evaluation.gate_metrics import worth
    from pipelines.recipes.text.examples import text_fields
    from pipelines.task import problem_of
    from pipelines.training.quantise import quantise_if_as_good, quantise_weights

    rows = pd.read_parquet(dataset / "valid.parquet").head(_WRITTEN)
    columns = {name: rows[name].to_numpy(object) for name in text_fields(task, config)}
    evaluation, metric = get_evaluation(problem_of(task)), config.gate.primary
    trained = {"engine": "seq2seq", "output": output, "decision": None, "parameters": {}}
    fields = scoring.fields_of(task, config, trained)

    def quality(folder: Path) -> float:
        with tempfile.TemporaryDirectory(prefix="written-") as name:
            (Path(name) / "model").symlink_to(folder.resolve())
            bundle = scoring.provisional(Path(name), fields)
            said = load_engine(bundle, threads=config.training.threads).predict(columns)
        found = evaluation.measure_for(rows, said, bundle.document.signature.output, None, only=[metric])(None)
        return worth(evaluation, found, metric)

    before, check = quantise_if_as_good(
        out,
        quality,
        metric=metric,
        largest_drop=config.gate.int8_tolerance,
        form=quantise_weights,
        graphs=(ENCODER, DECODER),
    )
    measured = {f"valid_{metric}_fp32": before, f"valid_{metric}_int8": check.value}
    return [check.model_dump()], {"form": "int8" if check.passed else "fp32", **measured}


def _save(network: Any, tokenizer: Any, pairs: Pairs, config: Seq2SeqText, out: Path) -> int:
    """Write what the engine reads; returns the most characters that an answer can have."""
    from contracts.decoding import Decoding, Sampling
    from contracts.engines.seq2seq import FILE, TOKENIZER, Seq2SeqSpec
    from pipelines.training.seq2seq import limits
    from pipelines.training.seq2seq_graph import past_of, write_graphs

    model, wanted = network.model, config.decoding
    most = limits(model, config.text.max_tokens, wanted.max_tokens, len(pairs.start))[1]
    write_graphs(network, pairs.start, out)
    tokenizer.save(str(out / TOKENIZER), pretty=False)
    special = {at for at, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    unnamed = range(tokenizer.get_vocab_size(), model.config.vocab_size)  # that fill up the model's table
    never = {*special, *unnamed, pairs.pad, *pairs.start} - {pairs.end}
    layers, heads, size = past_of(model.config)
    spec = Seq2SeqSpec(
        max_characters=config.text.max_characters,
        prefix=config.model.prefix,
        window=pairs.window,
        start=pairs.start,
        end=pairs.end,
        pad=pairs.pad,
        never=tuple(sorted(never)),
        layers=layers,
        heads=heads,
        size=size,
        copies=network.copies,
        decoding=Decoding(
            beams=wanted.beams,
            max_tokens=most,
            min_tokens=min(wanted.min_tokens, most),
            no_repeat=wanted.no_repeat,
            length_penalty=wanted.length_penalty,
            sampling=Sampling(**{name: getattr(wanted, name) for name in Sampling.model_fields}),
        ),
    )
    (out / FILE).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
    longest = max(len(token) for token in tokenizer.get_vocab())
    return most * longest
