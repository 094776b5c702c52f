"""Models of texts that can be federated: recipes ``embedding_lstm``, ``transformer`` and ``transformer_lstm``.

The coordinator gives the sites the vocabulary: that of the sample that ships with the task, which everybody knows, or
that of pretrained weights. No site says which words its texts have, and there is nothing else to agree on. Pretrained
weights are with the coordinator alone, and reach the sites as the weights of the first round.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from contracts.bundle import Input
from pipelines.federation.learner import Valid, loaded, weights_of
from pipelines.federation.state_dict import StateDict
from pipelines.training.lstm_text import LstmConfig, build_model
from pipelines.training.network import Spread
from pipelines.training.tokens import PAD_ID

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task

LSTM, TRANSFORMER = "lstm", "transformer"
Floats = NDArray[np.float64]
Ids = list[NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class _Texts(StateDict):
    """See `pipelines.federation.models.Model`; what is kept and seen of a row are its token ids.

    max_characters, max_tokens: where a text is cut.
    """

    fields: tuple[str, ...]
    max_characters: int
    max_tokens: int
    tokenizer: Any
    classes: Sequence[str]

    @property
    @abstractmethod
    def pad_id(self) -> int:
        """The id that rows are filled up with."""

    def read(self, frame: pd.DataFrame) -> Ids:
        from contracts.texts import join_fields
        from pipelines.training.tokens import tokenise

        rows = zip(*(frame[name] for name in self.fields), strict=True)
        texts = [join_fields(row, self.max_characters) for row in rows]
        return [np.array(row, np.int64) for row in tokenise(self.tokenizer, texts, self.max_tokens)]

    def losses(self, module: Any, seen: Ids, y: NDArray[np.int64], at: NDArray[np.int64]) -> Any:
        import torch
        from torch.nn.functional import cross_entropy

        from pipelines.training.batches import pad

        rows = at if len(at) else np.zeros(1, np.int64)  # none: a row that does not count
        ids, lengths = (torch.from_numpy(one) for one in pad([seen[row] for row in rows], self.pad_id))
        found = cross_entropy(module(ids, lengths), torch.from_numpy(y[rows]), reduction="none")
        return found * float(len(at) > 0)

    def answers(self, module: Any, seen: Ids) -> Floats:
        from pipelines.training.batches import scores

        found: Floats = scores(module, seen, self.pad_id, "cpu")
        return found

    def _told(self) -> dict[str, Any]:
        cut = {"max_characters": self.max_characters, "max_tokens": self.max_tokens}
        return {**cut, "tokenizer": self.tokenizer.to_str()}


@dataclass(frozen=True, kw_only=True)
class Words(_Texts):
    """Word vectors and an LSTM."""

    config: LstmConfig

    imports = ()

    @property
    def pad_id(self) -> int:
        return PAD_ID

    def told(self) -> dict[str, Any]:
        return {"kind": LSTM, "sizes": asdict(self.config), **self._told()}

    def module(self, private: bool) -> Any:
        return build_model(self.tokenizer.get_vocab_size(), len(self.classes), self.config, private)

    def finish(
        self, weights: Floats, spread: Spread, recipe: Any, valid: Valid, private: bool, out: Path
    ) -> dict[str, Any]:
        from pipelines.training.calibration import fit_temperature

        factor = 1.0 if private else fit_temperature(self.scores(weights, valid.x), valid.y)
        recipe.save(loaded(self, weights), factor, self.tokenizer, out)
        told = {"temperature": 1 / factor, "vocabulary": self.tokenizer.get_vocab_size()}
        return {"decision": None, "parameters": told}


@dataclass(frozen=True, kw_only=True)
class Transformer(_Texts):
    """BERT's shape, or that of pretrained weights; see `pipelines.training.transformer`.

    shape: of transformers' configuration, as JSON.  hidden: of the LSTM on top, 0 without one.  begun: the network with
    the weights of the beginning, at the coordinator only.
    """

    shape: Mapping[str, Any]
    hidden: int
    dropout: float
    begun: Any = None

    imports = ("transformers.models.bert.modeling_bert",)

    @property
    def pad_id(self) -> int:
        return int(self.shape["pad_token_id"])

    def told(self) -> dict[str, Any]:
        sizes = {"shape": dict(self.shape), "hidden": self.hidden, "dropout": self.dropout}
        return {"kind": TRANSFORMER, **sizes, **self._told()}

    def module(self, private: bool) -> Any:
        from pipelines.training.transformer import shaped

        return shaped(self.shape, len(self.classes), self.hidden, self.dropout)

    def first(self, seed: int) -> Floats:
        return weights_of(self, self.begun) if self.begun is not None else super().first(seed)

    def finish(
        self, weights: Floats, spread: Spread, recipe: Any, valid: Valid, private: bool, out: Path
    ) -> dict[str, Any]:
        from pipelines.training.calibration import fit_temperature

        factor = fit_temperature(self.scores(weights, valid.x), valid.y)
        recipe.save(loaded(self, weights), factor, len(self.classes), self.tokenizer, out)
        form = recipe.form(valid.task, valid.frame, list(self.classes), out)
        told = {"temperature": 1 / factor, "vocabulary": self.tokenizer.get_vocab_size(), **form["parameters"]}
        return {**form, "decision": None, "parameters": told}


def words_of(recipe: Any, task: Task, classes: Sequence[str]) -> Words:
    """The model of recipe ``embedding_lstm``, with the vocabulary of the task's own sample."""
    tokenizer = recipe.vocabulary(recipe.public_texts(task))
    cut = {"max_characters": recipe.text.max_characters, "max_tokens": recipe.text.max_tokens}
    fields = _fields(task.inputs(recipe))
    return Words(fields=fields, config=recipe.model, tokenizer=tokenizer, classes=classes, **cut)


def transformer_of(
    network: Any, tokenizer: Any, limit: int, recipe: Any, task: Task, classes: Sequence[str]
) -> Transformer:
    """The model of a recipe `TransformerText`, that begins with `network`; texts are cut at `limit` tokens."""
    from pipelines.training.pretrained import shape_of

    return Transformer(
        fields=_fields(task.inputs(recipe)),
        max_characters=recipe.text.max_characters,
        max_tokens=limit,
        tokenizer=tokenizer,
        classes=classes,
        shape=shape_of(network.model),
        hidden=getattr(recipe.model, "hidden", 0),
        dropout=recipe.model.dropout,
        begun=network,
    )


def words_told(told: Mapping[str, Any], inputs: Sequence[Input], classes: Sequence[str]) -> Words | Transformer:
    """The model that `told` of `Words` or `Transformer` describes.

    Raises:
        ValueError, KeyError: it describes none.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(told["tokenizer"])
    except Exception as err:  # the library raises nothing narrower
        raise ValueError(f"a vocabulary that cannot be read: {err}") from err
    cut = {"max_characters": int(told["max_characters"]), "max_tokens": int(told["max_tokens"])}
    known: dict[str, Any] = {"fields": _fields(inputs), "tokenizer": tokenizer, "classes": classes, **cut}
    if told["kind"] == LSTM:
        return Words(config=TypeAdapter(LstmConfig).validate_python(told["sizes"]), **known)
    made = Transformer(shape=told["shape"], hidden=int(told["hidden"]), dropout=float(told["dropout"]), **known)
    made.layout()  # a shape that is none says so here
    return made


def _fields(inputs: Sequence[Input]) -> tuple[str, ...]:
    return tuple(item.name for item in inputs if item.dtype == "string")
