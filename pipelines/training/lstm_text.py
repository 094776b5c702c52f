"""A classifier of texts in torch: word vectors that are learned, a (bi)directional LSTM, and pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from pipelines.search_space import Dimension
from pipelines.task import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LstmConfig:
    """Sizes and dropout. dropout: on word vectors and on the pooled states."""

    embedding: int = 128
    hidden: int = 64
    bidirectional: bool = True
    dropout: float = 0.5

    kind: ClassVar[str] = "lstm"
    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "embedding": Dimension(low=32, high=256, log=True),
        "hidden": Dimension(low=16, high=128, log=True),
        "dropout": Dimension(low=0.0, high=0.7),
    }


def build_model(vocabulary: int, classes: int, config: LstmConfig, private: bool = False) -> Any:
    """A torch module: ids (rows, tokens), padded on the right, and lengths (rows,) >= 1 -> logits (rows, classes).

    private: of layers that give the gradient of each row, which is slower; weights have the same names.
    """
    import torch
    from torch import nn

    lstm: Any = nn.LSTM
    if private:
        from opacus.layers import DPLSTM

        lstm = DPLSTM

    class LstmClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, config.embedding)
            nn.init.normal_(self.embedding.weight, std=0.1)
            self.lstm = lstm(config.embedding, config.hidden, batch_first=True)
            if config.bidirectional:
                self.lstm_reverse = lstm(config.embedding, config.hidden, batch_first=True)
            self.dropout = nn.Dropout(config.dropout)
            states = config.hidden * (2 if config.bidirectional else 1)
            self.head = nn.Linear(2 * (states + config.embedding), classes)

        def forward(self, ids: Any, lengths: Any) -> Any:
            vectors = self.dropout(self.embedding(ids))
            places = torch.arange(ids.shape[1], device=ids.device)[None, :]
            states = self.lstm(vectors)[0]
            if config.bidirectional:
                # Each row turned round within its own length: padding stays behind the text in both directions, so
                # nothing has to be packed, which is four times faster on a CPU.
                turned = (lengths[:, None] - 1 - places).clamp(min=0)[:, :, None]
                backwards = self.lstm_reverse(vectors.gather(1, turned.expand_as(vectors)))[0]
                states = torch.cat([states, backwards.gather(1, turned.expand_as(backwards))], dim=2)
            # The word vectors themselves are pooled too: with little data they are what is learned first.
            states = torch.cat([states, vectors], dim=2)
            outside = (places >= lengths[:, None])[:, :, None]
            highest = states.masked_fill(outside, -1e9).amax(dim=1)
            mean = states.masked_fill(outside, 0.0).sum(dim=1) / lengths[:, None]
            return self.head(self.dropout(torch.cat([highest, mean], dim=1)))

    return LstmClassifier()
