"""A tagger of tokens in torch: hashed embeddings, convolutions of growing reach or an LSTM, and tags; then as ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from contracts.problems.tagging import Labelled
from pipelines.search_space import Dimension
from pipelines.task import STRICT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.token_hashes import WordList


NEVER = -10_000.0
_COMPOSED = 0.5  # of the values that replace others
_SHORT, _LISTED = 12, 25  # characters of a value in a list, and values
_BETWEEN = {True: ("", "", "、", "，", " "), False: (", ", "\n", "; ", " and ")}  # of Chinese names, and of others


@settings(frozen=True, kw_only=True, config=STRICT)
class TaggerModel:
    """Sizes and dropout.

    size: rows of the table of hashes.  embedding, hidden: widths.  dropout: of vectors and of states.
    """

    size: int = 32_768
    embedding: int = 48
    hidden: int = 96
    dropout: float = 0.35

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "embedding": Dimension(low=16, high=96, log=True),
        "hidden": Dimension(low=32, high=192, log=True),
        "dropout": Dimension(low=0.1, high=0.6),
    }


@settings(frozen=True, kw_only=True, config=STRICT)
class ChangeConfig:
    """Chances, while training.

    replaced: of a labelled span to be another of its type, so that the words around it count.  alone: of a text to
    be one of its spans and nothing else, as in signatures.  listed: of a text to be a list of short spans of one type,
    also without anything between them, as members and those present are told.  lowered: of a text to be in small
    letters, as people write to each other.  hide: of a hash to be left out.
    """

    replaced: Annotated[float, Field(ge=0, le=1)] = 0.3
    listed: Annotated[float, Field(ge=0, le=1)] = 0.0
    alone: Annotated[float, Field(ge=0, le=1)] = 0.02
    lowered: Annotated[float, Field(ge=0, le=1)] = 0.02
    hide: Annotated[float, Field(ge=0, lt=1)] = 0.05


def build_model(tags: int, config: TaggerModel) -> Any:
    """A torch module: ids (rows, tokens, hashes), padded by 0, and lengths (rows,) -> logits (rows, tokens, tags)."""
    import torch
    from torch import nn

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(config.size, config.embedding, padding_idx=0)
            nn.init.normal_(self.embedding.weight, std=0.02)
            with torch.no_grad():
                self.embedding.weight[0] = 0
            self.dropout = nn.Dropout(config.dropout)
            self.lstm = nn.LSTM(config.embedding, config.hidden, batch_first=True)
            self.lstm_reverse = nn.LSTM(config.embedding, config.hidden, batch_first=True)
            self.head = nn.Linear(2 * config.hidden + config.embedding, tags)
            self.transitions = nn.Parameter(torch.zeros(tags, tags))

        def forward(self, ids: Any, lengths: Any) -> Any:
            vectors = self.dropout(self.embedding(ids).sum(dim=2))
            forth = self.lstm(vectors)[0]
            # Each row turned round within its own length: padding stays behind the text in both directions.
            places = torch.arange(ids.shape[1], device=ids.device)[None, :]
            turned = (lengths[:, None] - 1 - places).clamp(min=0)[:, :, None]
            back = self.lstm_reverse(vectors.gather(1, turned.expand_as(vectors)))[0]
            back = back.gather(1, turned.expand_as(back))
            return self.head(self.dropout(torch.cat([forth, back, vectors], dim=2)))

    return Tagger()


def transition_scores(weights: Any) -> Any:
    """Scores of one tag (row) after another (column), those that cannot be far below all others.

    weights: a torch tensor, shape (tags, tags).
    """
    import torch

    from contracts.tagging import possible

    return weights.masked_fill(~torch.from_numpy(possible(len(weights)).copy()).to(weights.device), NEVER)


def sequence_loss(logits: Any, transitions: Any, tags: Any, lengths: Any) -> Any:
    """Minus the log-likelihood of `tags`, summed over rows (J. Lafferty, A. McCallum, F. Pereira: CRF, 2001).

    Args:
        logits: shape (rows, tokens, tags).  transitions: of `transition_scores`; a text begins as if behind an O.
        tags: shape (rows, tokens), -100 where there is no token.
    """
    import torch

    rows = torch.arange(len(tags), device=tags.device)
    real = tags >= 0
    known = tags.clamp(min=0)
    before = torch.cat([torch.zeros_like(known[:, :1]), known[:, :-1]], dim=1)
    steps = logits.gather(2, known[:, :, None])[:, :, 0] + transitions[before, known]
    truth = (steps * real).sum(dim=1)
    reached = logits[:, 0] + transitions[0]
    states = [reached]
    for at in range(1, logits.shape[1]):
        reached = torch.logsumexp(reached[:, :, None] + transitions[None], dim=1) + logits[:, at]
        states.append(reached)
    last = torch.stack(states, dim=1)[rows, lengths - 1]
    return ((torch.logsumexp(last, dim=1) - truth) * real[:, 0]).sum()


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts with their spans, and the tokens of these."""

    texts: Sequence[str]
    spans: Sequence[Sequence[Labelled]]


def encode(
    text: str, labels: Sequence[Labelled], kinds: Sequence[str], size: int, words: WordList | None = None
) -> tuple[Any, Any]:
    """Hashes of the tokens of `text`, see `contracts.token_hashes.tokenise`, and their tags, shape (tokens,).

    A token belongs to the span that it begins in; of spans that overlap the longest counts.
    """
    return encode_all([(text, labels)], kinds, size, words)[0]


def encode_all(
    given: Sequence[tuple[str, Sequence[Labelled]]],
    kinds: Sequence[str],
    size: int,
    words: WordList | None = None,
    around: int = 0,
) -> list[tuple[Any, Any]]:
    """What `encode` gives of each text with its labels; `around` as in `contracts.token_hashes.tokenise`."""
    from contracts.token_hashes import tokenise_all

    read = tokenise_all([text for text, _ in given], size, words, around)
    return [
        (tokens.ids, _tags(tokens.places[:, 0], labels, kinds)) for tokens, (_, labels) in zip(read, given, strict=True)
    ]


def _tags(starts: NDArray[np.int64], labels: Sequence[Labelled], kinds: Sequence[str]) -> NDArray[np.int64]:
    import numpy as np

    tags = np.zeros(len(starts), np.int64)
    for start, end, kind in sorted(labels, key=lambda one: one[1] - one[0]):
        inside = np.flatnonzero((starts >= start) & (starts < end))
        if len(inside):
            tags[inside] = 2 + 2 * kinds.index(kind)
            tags[inside[0]] -= 1
            if inside[-1] + 1 < len(tags) and tags[inside[-1] + 1] and tags[inside[-1] + 1] % 2 == 0:
                tags[inside[-1] + 1] -= 1  # what is left of a shorter span begins anew
    return tags


class Mentions:
    """Other values for labelled spans: so a model learns the words around them, and what names are made of."""

    def __init__(self, data: Texts) -> None:
        self._of: dict[str, list[str]] = {}
        for text, spans in zip(data.texts, data.spans, strict=True):
            for start, end, kind in spans:
                self._of.setdefault(kind, []).append(text[start:end])
        self._parts = {kind: _parts(values) for kind, values in self._of.items()}

    def replaced(
        self, text: str, spans: Sequence[Labelled], share: float, rng: np.random.Generator
    ) -> tuple[str, list[Labelled]]:
        """The text with about `share` of its spans replaced by others of their type."""
        made, labels, at, length = [], [], 0, 0
        for start, end, kind in spans:
            if start < at:
                continue  # overlaps the one before
            value = text[start:end]
            if rng.random() < share:
                value = self._other(kind, value, rng)
            made += [text[at:start], value]
            length += start - at
            labels.append((length, length + len(value), kind))
            length, at = length + len(value), end
        return "".join([*made, text[at:]]), labels

    def listed(self, kind: str, rng: np.random.Generator) -> tuple[str, list[Labelled]]:
        """A text of a few values of `kind` that are short, in order or not; empty where there are none."""
        short = [value for value in self._of[kind] if len(value) <= _SHORT]
        if not short:
            return "", []
        count = int(rng.integers(2, _LISTED))
        values = [self._other(kind, short[rng.integers(len(short))], rng) for _ in range(count)]
        if rng.random() < 0.5:
            values.sort()
        between = _BETWEEN[all("\u4e00" <= value[0] <= "\u9fff" for value in values)]
        sign, text, labels = between[rng.integers(len(between))], "", list[Labelled]()
        for value in values:
            labels.append((len(text), len(text) + len(value), kind))
            text += value + sign
        return text.removesuffix(sign) if sign else text, labels

    def _other(self, kind: str, value: str, rng: np.random.Generator) -> str:
        """One that was seen, or one put together of parts of several of the same form."""
        parts = self._parts[kind].get(_form(value))
        if parts and rng.random() < _COMPOSED:
            return "".join(some[rng.integers(len(some))] for some in parts)
        values = self._of[kind]
        return values[rng.integers(len(values))]


def _form(value: str) -> str:
    """Values that can be put together: short ones of Chinese characters, of the same length; two words."""
    if len(value) in (2, 3) and all("\u4e00" <= sign <= "\u9fff" for sign in value):
        return str(len(value))
    return "words" if value.count(" ") == 1 else ""


def _cut(value: str) -> tuple[str, ...]:
    """Its parts: each character, or the first word and what is behind it."""
    if _form(value) != "words":
        return tuple(value)
    at = value.index(" ")
    return value[:at], value[at:]


def _parts(values: Sequence[str]) -> dict[str, list[list[str]]]:
    """By form, what stands in each place of the values."""
    found: dict[str, list[list[str]]] = {}
    for value in values:
        if form := _form(value):
            places = found.setdefault(form, [[] for _ in _cut(value)])
            for some, part in zip(places, _cut(value), strict=True):
                some.append(part)
    return found


def batches(
    data: Texts,
    kinds: Sequence[str],
    size: int,
    batch: int,
    change: ChangeConfig,
    rng: np.random.Generator,
    words: WordList | None = None,
    around: int = 0,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Padded ids, lengths and tags (-100: no token) of an epoch."""
    import numpy as np

    from pipelines.training.batches import bucket

    mentions = Mentions(data)
    lengths = np.array([len(text) for text in data.texts], np.int64)
    for rows in bucket(lengths, batch, rng):
        made = [mentions.replaced(data.texts[at], data.spans[at], change.replaced, rng) for at in rows]
        made = [_alone(text, spans, rng) if rng.random() < change.alone else (text, spans) for text, spans in made]
        if change.listed:
            made = [
                _listed(text, spans, mentions, rng) if rng.random() < change.listed else (text, spans)
                for text, spans in made
            ]
        small = rng.random(len(made)) < change.lowered
        made = [(_lower(text) if low else text, spans) for (text, spans), low in zip(made, small, strict=True)]
        ids, sizes, tags = padded(encode_all(made, kinds, size, words, around))
        yield ids * (rng.random(ids.shape) >= change.hide), sizes, tags


def _alone(text: str, spans: list[Labelled], rng: np.random.Generator) -> tuple[str, list[Labelled]]:
    """One of the spans as a text; the text where it has none."""
    if not spans:
        return text, spans
    start, end, kind = spans[rng.integers(len(spans))]
    return text[start:end], [(0, end - start, kind)]


def _listed(
    text: str, spans: list[Labelled], mentions: Mentions, rng: np.random.Generator
) -> tuple[str, list[Labelled]]:
    """A list of values of the type of one of the spans; the text where it has none."""
    made = mentions.listed(spans[rng.integers(len(spans))][2], rng) if spans else ("", [])
    return made if made[0] else (text, spans)


def _lower(text: str) -> str:
    """In small letters, each sign where it was."""
    return "".join(low if len(low := sign.lower()) == 1 else sign for sign in text)


def padded(rows: Sequence[tuple[Any, Any]]) -> tuple[Any, Any, Any]:
    """Ids (rows, longest, hashes), lengths (at least 1) and tags (rows, longest) of rows of `encode`."""
    import numpy as np

    sizes = np.array([max(1, len(tags)) for _, tags in rows], np.int64)
    ids = np.zeros((len(rows), int(sizes.max()), rows[0][0].shape[1]), np.int64)
    tags = np.full(ids.shape[:2], -100, np.int64)
    for at, (some, told) in enumerate(rows):
        ids[at, : len(told)], tags[at, : len(told)] = some, told
    return ids, sizes, tags


def write_tagger_graph(path: Path, tensors: Mapping[str, NDArray[np.float32]], words: WordList | None = None) -> None:
    """The graph of `build_model`, of its state_dict, as `contracts.engines.tagger` executes it.

    The table of hashes is kept in half precision, which is most of the file.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from contracts.token_hashes import width
    from pipelines.training.onnx_text import IR_VERSION, OPSET, gates

    names = ("lstm", "lstm_reverse")
    hidden = tensors["lstm.weight_hh_l0"].shape[1]
    node = helper.make_node
    nodes = [
        node("Gather", ["embedding", "ids"], ["rows"], axis=0),
        node("Cast", ["rows"], ["full"], to=TensorProto.FLOAT),
        node("ReduceSum", ["full", "axis_2"], ["vectors"], keepdims=0),
        node("ReduceMax", ["ids", "axis_2"], ["highest"], keepdims=0),
        node("Sign", ["highest"], ["real"]),
        node("ReduceSum", ["real", "axis_1"], ["tokens"], keepdims=0),
        node("Cast", ["tokens"], ["length"], to=TensorProto.INT32),
        node("Transpose", ["vectors"], ["sequence"], perm=[1, 0, 2]),
        node("LSTM", ["sequence", "w", "r", "b", "length"], ["states"], hidden_size=hidden, direction="bidirectional"),
        node("Transpose", ["states"], ["by_row"], perm=[2, 0, 1, 3]),
        node("Reshape", ["by_row", "merge"], ["merged"]),
        node("Concat", ["merged", "vectors"], ["features"], axis=2),
        node("MatMul", ["features", "head_weight"], ["scores"]),
        node("Add", ["scores", "head_bias"], ["logits"]),
    ]
    constants: dict[str, Any] = {
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "merge": np.array([0, 0, 2 * hidden], np.int64),
        "embedding": tensors["embedding.weight"].astype(np.float16),
        "w": np.stack([gates(tensors[f"{name}.weight_ih_l0"]) for name in names]),
        "r": np.stack([gates(tensors[f"{name}.weight_hh_l0"]) for name in names]),
        "b": np.stack(
            [np.concatenate([gates(tensors[f"{name}.bias_{p}_l0"]) for p in ("ih", "hh")]) for name in names]
        ),
        "head_weight": np.ascontiguousarray(tensors["head.weight"].T),
        "head_bias": tensors["head.bias"],
    }
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "tokens", width(words)])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "tokens", len(tensors["head.bias"])])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
