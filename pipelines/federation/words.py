"""Models of texts that can be federated: word vectors and an LSTM, of recipe ``embedding_lstm``.

The coordinator makes the vocabulary of the sample that ships with the task, which everybody knows, and gives it to the
sites; no site says which words its texts have. There is nothing else to agree on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from contracts.bundle import Input
from pipelines.federation.learner import Valid, loaded, weights_of
from pipelines.training.lstm_text import LstmConfig, build_model
from pipelines.training.network import Spread
from pipelines.training.tokens import PAD_ID

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task

KIND = "lstm"
Floats = NDArray[np.float64]
Ids = list[NDArray[np.int64]]


@dataclass(frozen=True)
class Words:
    """See `pipelines.federation.models.Model`; what is kept and seen of a row are its token ids.

    max_characters, max_tokens: where a text is cut.
    """

    fields: tuple[str, ...]
    config: LstmConfig
    max_characters: int
    max_tokens: int
    tokenizer: Any
    classes: Sequence[str]

    @property
    def count(self) -> int:
        return sum(int(np.prod(shape)) for _, shape in self.layout())

    def told(self) -> dict[str, Any]:
        cut = {"max_characters": self.max_characters, "max_tokens": self.max_tokens}
        return {"kind": KIND, "sizes": asdict(self.config), **cut, "tokenizer": self.tokenizer.to_str()}

    def read(self, frame: pd.DataFrame) -> Ids:
        from contracts.texts import join_fields
        from pipelines.training.tokens import tokenise

        rows = zip(*(frame[name] for name in self.fields), strict=True)
        texts = [join_fields(row, self.max_characters) for row in rows]
        return [np.array(row, np.int64) for row in tokenise(self.tokenizer, texts, self.max_tokens)]

    def sums(self, x: Ids) -> Floats:
        return np.zeros(0)

    def agree(self, sums: Floats) -> Spread:
        return Spread(mean=np.zeros(0), deviation=np.zeros(0), counts={})

    def features(self, x: Ids, spread: Spread) -> Ids:
        return x

    def first(self, seed: int) -> Floats:
        import torch

        torch.manual_seed(seed)
        return weights_of(self, self.module(private=False))

    def layout(self) -> list[tuple[str, tuple[int, ...]]]:
        return [(name, tuple(value.shape)) for name, value in self.module(private=False).state_dict().items()]

    def module(self, private: bool) -> Any:
        return build_model(self.tokenizer.get_vocab_size(), len(self.classes), self.config, private)

    def losses(self, module: Any, seen: Ids, y: NDArray[np.int64], at: NDArray[np.int64]) -> Any:
        import torch
        from torch.nn.functional import cross_entropy

        from pipelines.training.batches import pad

        rows = at if len(at) else np.zeros(1, np.int64)  # none: a row that does not count
        ids, lengths = (torch.from_numpy(one) for one in pad([seen[row] for row in rows], PAD_ID))
        found = cross_entropy(module(ids, lengths), torch.from_numpy(y[rows]), reduction="none")
        return found * float(len(at) > 0)

    def scores(self, weights: Floats, seen: Ids) -> Floats:
        from pipelines.training.batches import scores

        found: Floats = scores(loaded(self, weights), seen, PAD_ID, "cpu")
        return found

    def finish(
        self, weights: Floats, spread: Spread, recipe: Any, valid: Valid, private: bool, out: Path
    ) -> dict[str, Any]:
        from pipelines.training.calibration import fit_temperature

        factor = 1.0 if private else fit_temperature(self.scores(weights, valid.x), valid.y)
        recipe.save(loaded(self, weights), factor, self.tokenizer, out)
        told = {"temperature": 1 / factor, "vocabulary": self.tokenizer.get_vocab_size()}
        return {"decision": None, "parameters": told}


def words_of(recipe: Any, task: Task, classes: Sequence[str]) -> Words:
    """The model of a recipe of texts, with the vocabulary of the task's own sample."""
    fields = tuple(item.name for item in task.inputs(recipe) if item.dtype == "string")
    tokenizer = recipe.vocabulary(recipe.public_texts(task))
    return Words(fields, recipe.model, recipe.text.max_characters, recipe.text.max_tokens, tokenizer, classes)


def words_told(told: Mapping[str, Any], inputs: Sequence[Input], classes: Sequence[str]) -> Words:
    """The model that `Words.told` describes.

    Raises:
        ValueError, KeyError: it describes none.
    """
    from tokenizers import Tokenizer

    fields = tuple(item.name for item in inputs if item.dtype == "string")
    config = TypeAdapter(LstmConfig).validate_python(told["sizes"])
    try:
        tokenizer = Tokenizer.from_str(told["tokenizer"])
    except Exception as err:  # the library raises nothing narrower
        raise ValueError(f"a vocabulary that cannot be read: {err}") from err
    return Words(fields, config, int(told["max_characters"]), int(told["max_tokens"]), tokenizer, classes)
