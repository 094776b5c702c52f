"""An encoder and a decoder of transformers, with a head that copies from the source, and how their tokens are made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.engines.torch_text import bad_weights, read_pretrained
from contracts.errors import PlatformError
from pipelines.training.pretrained import import_transformers, with_dropout
from pipelines.training.tokens import END, END_ID, PAD, PAD_ID, START, START_ID, UNKNOWN, tokenise

RELATIVE = ("t5", "mt5")  # whose places are distances
ARCHITECTURES = ("bart", "marian", *RELATIVE)  # whose graph `pipelines.training.seq2seq_graph` can write
SENTENCEPIECE = "spiece.model"
_UNIGRAM = 1  # of SentencePiece's kinds of models
_UNKNOWN, _CONTROL, _USER = 2, 3, 4  # and of its kinds of pieces
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
# As GPT-2 tells words apart (A. Radford et al., 2019), but each digit and each Chinese character is by itself.
_WORDS = (
    rf"[{_HAN}]|\p{{N}}|'s|'t|'re|'ve|'m|'ll|'d| ?[\p{{L}}&&[^{_HAN}]]+| ?[^\s\p{{L}}\p{{N}}]+"
    rf"|\s+(?=[{_HAN}\p{{N}}])|\s+(?!\S)|\s+"
)


def train_byte_pairs(texts: Iterable[str], *, vocabulary: int, min_frequency: int, whole: Sequence[str] = ()) -> Any:
    """A ``tokenizers.Tokenizer`` of byte pairs (R. Sennrich et al., 2016) for every script, whose texts end with `END`.

    Bytes are what a token is made of, so nothing is unknown and a text comes back as it was. A Chinese character and a
    digit are never joined with their neighbours: words of Chinese are not told apart, and numbers are copied by digits.
    Each of `whole`, with a blank before it or not, is one word whatever it is made of.
    """
    import re

    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    first = "|".join(re.escape(one) for one in sorted(whole, key=len, reverse=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f" ?(?:{first})|{_WORDS}" if first else _WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=max(2, min_frequency),
        special_tokens=[AddedToken(name, special=True) for name in (PAD, UNKNOWN, START, END)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, END_ID)])
    return tokenizer


def new_model(
    *,
    vocabulary: int,
    layers: int,
    width: int,
    heads: int,
    inner: int,
    longest: int,
    dropout: float,
    attention_dropout: float = 0.0,
) -> Any:
    """A BART (M. Lewis et al., 2020) with random weights, of `layers` in the encoder and as many in the decoder."""
    transformers = import_transformers()
    config = transformers.BartConfig(
        vocab_size=vocabulary,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=inner,
        decoder_ffn_dim=inner,
        max_position_embeddings=longest,
        dropout=dropout,
        attention_dropout=attention_dropout,
        activation_dropout=0.0,
        scale_embedding=True,
        pad_token_id=PAD_ID,
        bos_token_id=START_ID,
        eos_token_id=END_ID,
        decoder_start_token_id=START_ID,
        forced_eos_token_id=None,
        use_cache=False,
    )
    return transformers.BartForConditionalGeneration(config)


def pretrained_model(folder: Path, dropout: float) -> tuple[Any, Any]:
    """Model and tokenizer of a folder with config.json, model.safetensors and tokenizer.json or spiece.model.

    Raises:
        PlatformError: ``code="bad_weights"``: there is none, a part is missing, or it is of another architecture.
    """
    import json

    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as err:
        raise bad_weights(folder, f"config.json cannot be read: {err}") from err
    if kind not in ARCHITECTURES:
        raise bad_weights(folder, f"it is of architecture {kind!r}; {', '.join(ARCHITECTURES)} can be served")
    import_transformers()
    rate = {"dropout_rate" if kind in RELATIVE else "dropout": dropout}
    model, found = read_pretrained("AutoModelForSeq2SeqLM", folder, **rate)
    if lost := sorted(name for name in found["missing_keys"] if "embed_positions" not in name):
        raise bad_weights(folder, f"{lost[0]} is missing")
    tokenizer = _tokenizer_of(folder)
    if tokenizer.get_vocab_size() > model.config.vocab_size:
        sizes = f"{tokenizer.get_vocab_size()} tokens, the model {model.config.vocab_size}"
        raise bad_weights(folder, f"the tokenizer has {sizes}")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return with_dropout(model, dropout), tokenizer


def _tokenizer_of(folder: Path) -> Any:
    from tokenizers import Tokenizer

    own, pieces = folder / "tokenizer.json", folder / SENTENCEPIECE
    try:
        if pieces.is_file() and not own.is_file():
            return sentence_pieces(pieces)
        return Tokenizer.from_file(str(own))
    except PlatformError:
        raise
    except Exception as err:  # tokenizers raises nothing narrower
        raise bad_weights(folder, f"{(pieces if pieces.is_file() and not own.is_file() else own).name}: {err}") from err


def sentence_pieces(file: Path) -> Any:
    """The ``tokenizers.Tokenizer`` that a file of SentencePiece (T. Kudo, J. Richardson, 2018) describes.

    Texts end with its ``</s>``. The pieces are chosen by their likelihood (`unigram`, as in T5), and a letter that is
    none becomes bytes where the file has those.

    Raises:
        PlatformError: ``code="bad_weights"``: it is no such file, or has pieces of another kind.
    """
    from google.protobuf.message import DecodeError
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers.convert_slow_tokenizer import import_protobuf

    described: Any = import_protobuf
    proto = described().ModelProto()  # the format's own description, as transformers carries it
    try:
        proto.ParseFromString(file.read_bytes())
    except (OSError, DecodeError) as err:
        raise bad_weights(file.parent, f"{file.name} cannot be read: {err}") from err
    trained, normal = proto.trainer_spec, proto.normalizer_spec
    ends = [piece.piece for piece in proto.pieces if piece.type == _CONTROL and piece.piece == trained.eos_piece]
    if trained.model_type != _UNIGRAM or not ends:
        raise bad_weights(
            file.parent,
            f"{file.name} has no pieces of kind unigram with a mark of the end; save tokenizer.json beside it",
        )
    vocabulary = [(piece.piece, piece.score) for piece in proto.pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, trained.unk_id, trained.byte_fallback))
    steps: list[Any] = [normalizers.Precompiled(normal.precompiled_charsmap)] if normal.precompiled_charsmap else []
    if normal.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    how: dict[str, Any] = {"replacement": "\u2581", "prepend_scheme": "always" if normal.add_dummy_prefix else "never"}
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**how, split=trained.split_by_whitespace)
    back = [decoders.ByteFallback()] if trained.byte_fallback else []
    tokenizer.decoder = decoders.Sequence([*back, decoders.Metaspace(**how)])
    tokenizer.add_special_tokens(
        [AddedToken(one.piece, special=True) for one in proto.pieces if one.type in (_UNKNOWN, _CONTROL)]
    )
    tokenizer.add_tokens([AddedToken(one.piece, normalized=False) for one in proto.pieces if one.type == _USER])
    end = ends[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return tokenizer


def marks_of(tokenizer: Any, model: Any) -> tuple[tuple[int, ...], int, int]:
    """What the decoder begins with, the token that ends a text, and that of padding.

    Raises:
        PlatformError: ``code="bad_weights"``: the tokenizer does not end texts with the model's token of the end.
    """
    config = model.config
    if config.decoder_start_token_id is None or config.pad_token_id is None:
        raise PlatformError(
            "the model does not say what its texts begin with",
            detail="config.json has no decoder_start_token_id or no pad_token_id",
            fix="add both to config.json; in a T5 both are usually 0",
            code="bad_weights",
        )
    empty: list[int] = tokenizer.encode("").ids
    if not empty or empty[-1] != config.eos_token_id:
        raise PlatformError(
            "the tokenizer does not fit the model",
            detail=f"a text ends with token {empty[-1:]}, the model's end is {config.eos_token_id}",
            fix="save the tokenizer that the model was trained with, as tokenizer.json",
            code="bad_weights",
        )
    return (int(config.decoder_start_token_id), *empty[:-1]), int(empty[-1]), int(config.pad_token_id)


def limits(model: Any, read: int, written: int, marks: int) -> tuple[int, int]:
    """Tokens of a source, and of a text without its `marks`, of those asked for that the model's places allow."""
    places = getattr(model.config, "max_position_embeddings", None)  # None: its places are distances, of any length
    return (read, written) if places is None else (min(read, int(places)), min(written, int(places) - marks))


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Token ids of sources and of references, each with the mark of its end, and the marks themselves.

    cut_sources, cut_references: shares of those that were longer than what is read.
    """

    sources: Sequence[Any]
    wanted: Sequence[Any]
    start: tuple[int, ...]
    end: int
    pad: int
    window: int
    cut_sources: float
    cut_references: float

    @classmethod
    def of(cls, sources: list[str], wanted: list[str], tokenizer: Any, model: Any, most: tuple[int, int]) -> Pairs:
        """Tokenise; of a text with more than `most` tokens, of sources and of references, the beginning is kept."""
        start, end, pad = marks_of(tokenizer, model)
        window, written = limits(model, *most, len(start))
        found = []
        for texts, limit in ((sources, window), (wanted, written + len(start))):
            rows = tokenise(tokenizer, texts, limit + 1)
            long = [len(row) > limit for row in rows]
            cut = [[*row[: limit - 1], end] if too else row for row, too in zip(rows, long, strict=True)]
            found.append(([np.array(row, np.int64) for row in cut], round(sum(long) / max(1, len(rows)), 4)))
        return cls(
            sources=found[0][0], wanted=found[1][0], start=start, end=end, pad=pad, window=window,
            cut_sources=found[0][1], cut_references=found[1][1],
        )  # fmt: skip


class Network(nn.Module):
    """An encoder-decoder, and where it `copies` the chance that the next token is one of the source.

    The chance of a token is ``g`` that of the vocabulary and ``1 - g`` the attention on its places in the source
    (A. See, P. Liu, C. Manning: pointer-generator networks, 2017), with a head of its own for that attention. A place
    that stands behind the token that was written last gets a learned amount more, so that few rows are enough to learn
    that copies go on.
    """

    def __init__(self, model: Any, copies: bool) -> None:
        super().__init__()
        self.model = model
        self.pad_id = int(model.config.pad_token_id)
        self.copies = copies
        if copies:
            width = model.config.d_model
            self.ask = nn.Linear(width, width)
            self.key = nn.Linear(width, width)
            self.gate = nn.Linear(width, 1)
            self.follows = nn.Parameter(torch.tensor(2.0))
            self.start_id = int(model.config.decoder_start_token_id)

    def forward(self, source: Tensor, given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood of each token of `wanted`, and the mean over the vocabulary.

        Args:
            source: token ids, shape (rows, tokens).  given: what the decoder has seen before each of `wanted`, which
                has the same shape.
        """
        asked = {
            "input_ids": source,
            "attention_mask": (source != self.pad_id).long(),
            "decoder_input_ids": given,
            "use_cache": False,
        }
        if self.copies:
            found = self.model.model(**asked)
            states, seen = found.last_hidden_state, found.encoder_last_hidden_state
            scores = self.model.lm_head(states) + self.model.final_logits_bias
        else:
            scores = self.model(**asked).logits
        logs = functional.log_softmax(scores, dim=-1)
        log = logs.gather(2, wanted[:, :, None])[:, :, 0]
        if self.copies:
            weight, kept = self.copied(states, self.key(seen), source, given)
            copied = (weight * (source[:, None, :] == wanted[:, :, None])).sum(dim=-1)
            log = torch.logaddexp(log + functional.logsigmoid(kept), (copied * torch.sigmoid(-kept) + 1e-9).log())
        return log, logs.mean(dim=-1)

    def copied(self, states: Tensor, keys: Tensor, source: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """How much each place of the source is copied, shape (rows, written, tokens), and the score of the gate."""
        scores = self.ask(states) @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5
        before = torch.cat([torch.full_like(source[:, :1], self.start_id), source[:, :-1]], dim=1)
        scores = scores + self.follows * (before[:, None, :] == given[:, :, None])
        scores = scores.masked_fill((source == self.pad_id)[:, None, :], -1e9)
        return scores.softmax(dim=-1), self.gate(states)[:, :, 0]


def loss_of(log: Tensor, mean: Tensor, real: Tensor, smoothing: float) -> Tensor:
    """The sum over tokens of the cross-entropy with smoothed targets (C. Szegedy et al., 2016)."""
    each = -(1 - smoothing) * log - smoothing * mean
    return (each * real).sum()


def decoder_tokens(start: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """What the decoder is given before each of `wanted`, of the same length."""
    return [start[0], *wanted[:-1]]
