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
        from pipelines.training.transformer import LstmNetwork

        model = self.model
        encoder = pretrained_encoder(folder, model.dropout) if folder else new_encoder(**self.sizes(vocabulary))
        return LstmNetwork(encoder, classes, model.hidden, model.dropout)
