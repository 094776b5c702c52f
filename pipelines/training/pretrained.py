"""Transformer models by the library transformers: new ones and pretrained ones; no code of a model is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.engines.torch_text import bad_weights, read_pretrained
from contracts.errors import PlatformError
from pipelines.training.device import import_torch

_HEADS = ("classifier", "pre_classifier", "pooler", "score")  # what is drawn anew, also as parts of names
_BARE = "bare"
# Of a configuration: where code and weights were, and classes, which are the task's.
_ELSEWHERE = ("auto_map", "_name_or_path", "architectures", "dtype", "torch_dtype", "id2label", "label2id")
_SHIFTED = {"roberta", "xlm-roberta", "camembert", "mpnet"}  # positions begin behind that of the padding


def import_transformers() -> Any:
    """The package, or how to get it."""
    import_torch()
    try:
        import transformers
    except ImportError as err:
        raise PlatformError(
            "transformers is not installed",
            detail="it reads and trains transformer models",
            fix="pip install 'fairlead[torch]'",
            code="missing_package",
        ) from err
    return transformers


def new_classifier(
    *, vocabulary: int, classes: int, layers: int, width: int, heads: int, inner: int, max_tokens: int, dropout: float
) -> Any:
    """A BERT with random weights and a classifier on its first token; id 0 fills rows."""
    return import_transformers().BertForSequenceClassification(_sizes(**{**locals()}))


def new_encoder(
    *, vocabulary: int, layers: int, width: int, heads: int, inner: int, max_tokens: int, dropout: float
) -> Any:
    """A BERT with random weights that gives the states of its tokens."""
    return import_transformers().BertModel(_sizes(**{**locals()}, classes=2), add_pooling_layer=False)


def pretrained_classifier(folder: Path, classes: int, dropout: float) -> Any:
    """The model of a folder with a classifier for `classes`, which is new where the folder has none that fits."""
    model, found = _read("AutoModelForSequenceClassification", folder, num_labels=classes, ignore_mismatched_sizes=True)
    _whole(folder, [*found["missing_keys"], *(item[0] for item in found["mismatched_keys"])])
    return with_dropout(model, dropout)


def pretrained_encoder(folder: Path, dropout: float = 0.0) -> Any:
    """The model of a folder without any head."""
    model, found = _read("AutoModel", folder)
    _whole(folder, found["missing_keys"])
    return with_dropout(model, dropout)


def shape_of(model: Any) -> dict[str, Any]:
    """What `classifier_of` and `encoder_of` make a model of the same tensors of, as JSON."""
    found: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    # Of an encoder made without a pooler, which other kinds do not have.
    return {**found, _BARE: True} if getattr(model, "pooler", model) is None else found


def classifier_of(shape: Mapping[str, Any], classes: int, dropout: float) -> Any:
    """A classifier with random weights, see `shape_of`.

    Raises:
        ValueError, KeyError, TypeError: `shape` is none of transformers.
    """
    transformers = import_transformers()
    config = _config(shape, num_labels=classes)
    return with_dropout(transformers.AutoModelForSequenceClassification.from_config(config), dropout)


def encoder_of(shape: Mapping[str, Any], dropout: float) -> Any:
    """An encoder with random weights, see `shape_of` and `classifier_of`."""
    transformers = import_transformers()
    more = {"add_pooling_layer": False} if shape.get(_BARE) else {}
    return with_dropout(transformers.AutoModel.from_config(_config(shape), **more), dropout)


def _config(shape: Mapping[str, Any], **more: Any) -> Any:
    known = {key: value for key, value in shape.items() if key not in (_BARE, *_ELSEWHERE)}
    return import_transformers().AutoConfig.for_model(**{**known, **more})


def with_dropout(model: Any, dropout: float) -> Any:
    """`model`, whose every dropout is `dropout` while it is trained."""
    from torch import nn

    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = dropout
    return model


def longest(model: Any) -> int:
    """How many tokens the model can place."""
    config = model.config
    return int(config.max_position_embeddings - (config.pad_token_id + 1 if config.model_type in _SHIFTED else 0))


def last_layer(model: Any, classes: int) -> Any:
    """The linear layer that gives the scores of the classes."""
    from torch import nn

    return [part for part in model.modules() if isinstance(part, nn.Linear) and part.out_features == classes][-1]


def _sizes(
    *,
    vocabulary: int,
    classes: int,
    layers: int,
    width: int,
    heads: int,
    inner: int,
    max_tokens: int,
    dropout: float,
) -> Any:
    return import_transformers().BertConfig(
        vocab_size=vocabulary,
        num_labels=classes,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=max_tokens,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
    )


def _read(kind: str, folder: Path, **settings: Any) -> tuple[Any, dict[str, Any]]:
    import_transformers()
    return read_pretrained(kind, folder, **settings)


def _whole(folder: Path, absent: Any) -> None:
    """Nothing but a head may be new."""
    if lost := sorted(name for name in absent if not any(head in name.split(".") for head in _HEADS)):
        raise bad_weights(folder, f"{lost[0]} is missing or of another shape")
