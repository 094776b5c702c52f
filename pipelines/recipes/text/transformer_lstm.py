"""Recipe `transformer_lstm`: a BERT, a bidirectional LSTM over the states of its tokens, dropout, pooling."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from pipelines.recipes.text.transformer import TransformerModel, TransformerText
from pipelines.task import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransformerLstmModel(TransformerModel):
    """See `TransformerModel`; hidden: states of the LSTM in each direction. It is served as a graph."""

    hidden: int = 64
    engine: Literal["onnx"] = "onnx"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransformerLstmText(TransformerText):
    """BERT's shape with an LSTM on top."""

    model: TransformerLstmModel = field(default_factory=TransformerLstmModel)

    def network(self, classes: int, *, vocabulary: int = 0, folder: Path | None = None) -> Any:
        """The states of a pretrained or a new encoder, and an LSTM with new weights."""
        from pipelines.training.pretrained import new_encoder, pretrained_encoder

        model = self.model
        encoder = pretrained_encoder(folder, model.dropout) if folder else new_encoder(**self.sizes(vocabulary))
        return _with_lstm(encoder, classes, model.hidden, model.dropout)


def _with_lstm(encoder: Any, classes: int, hidden: int, dropout: float) -> Any:
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = encoder
            self.pad_id = int(encoder.config.pad_token_id)
            width = encoder.config.hidden_size
            self.forwards = nn.LSTM(width, hidden, batch_first=True)
            self.backwards = nn.LSTM(width, hidden, batch_first=True)
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(4 * hidden, classes)

        def forward(self, ids: Any, lengths: Any = None) -> Any:
            inside = ids != self.pad_id
            states = self.dropout(self.model(input_ids=ids, attention_mask=inside.long()).last_hidden_state)
            count = inside.sum(dim=1, keepdim=True).clamp(min=1)
            # Each row turned round within its own length, as in the recipe embedding_lstm.
            turned = (count - 1 - torch.arange(ids.shape[1], device=ids.device)[None]).clamp(min=0)[:, :, None]
            back = self.backwards(states.gather(1, turned.expand(-1, -1, states.shape[2])))[0]
            both = torch.cat([self.forwards(states)[0], back.gather(1, turned.expand(-1, -1, hidden))], dim=2)
            real = inside[:, :, None]
            highest = both.masked_fill(~real, -1e9).amax(dim=1)
            mean = both.masked_fill(~real, 0.0).sum(dim=1) / count
            return self.head(self.dropout(torch.cat([highest, mean], dim=1)))

    return Network()
