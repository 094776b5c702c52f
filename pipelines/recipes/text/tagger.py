"""Recipe `tagger`: spans of texts by tags of tokens, learned with torch and exported to ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.recipes.text.settings import TextConfig, TextTaskConfig
from pipelines.task import STRICT, Progress
from pipelines.training.loop import LoopConfig
from pipelines.training.tagger import ChangeConfig, TaggerModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.token_hashes import WordList
    from pipelines.recipes.text.cautions import Learned
    from pipelines.task import Task
    from pipelines.training.tagger import Texts

_COMPARED = 2_000  # validation rows that are measured after each epoch


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SpanText(TextTaskConfig):
    """Base of the recipes of spans. Of `text` only `max_characters` applies.

    words: a file of words, or its address, one a line (``word``, ``word`` tab ``kind``, or ``word number kind``), such
    as the dictionary of a word segmenter or a list of places: what of it is at a token is told to the model. The bundle
    has hashes of it.
    change: what texts become while training.
    cautions: candidates for what is added to the score of each span; the validation rows choose by F-beta with
    `recall_weight` as beta: above 1 what is missed weighs more than what is found wrongly.
    recall: types, and the share of their spans among the validation rows that is to be found, both borders right. A
    type that falls short gets a caution of its own, the least that reaches it: spans of it are added where none were
    found. What that costs is told as ``valid_precision:TYPE``.
    """

    text: TextConfig = field(default_factory=lambda: TextConfig(max_characters=100_000))
    change: ChangeConfig = field(default_factory=ChangeConfig)
    cautions: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    recall_weight: Annotated[float, Field(gt=0)] = 2.0
    recall: Mapping[str, Annotated[float, Field(gt=0, lt=1)]] = field(default_factory=dict)
    words: str = ""

    reports: ClassVar[str] = "valid_error"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaggerText(SpanText):
    """The recipe `tagger`: a network that reads a text in both directions."""

    model: TaggerModel = field(default_factory=TaggerModel)
    training: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            epochs=10, batch_size=32, learning_rate=4e-3, weight_decay=0.0, warmup=100, schedule="linear"
        )
    )

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Train until F1 on ``valid`` stops rising; it chooses `cautions` as well."""
        from pipelines.recipes.text.cautions import Learned
        from pipelines.training.device import import_torch, resolve_device
        from pipelines.training.tagger import build_model, write_tagger_graph

        device, torch = resolve_device(self.training.device), import_torch()
        torch.set_num_threads(self.training.threads)
        torch.manual_seed(self.seed)
        data, kinds, words = read_parts(task, self, dataset)
        model = build_model(1 + 2 * len(kinds), self.model).to(device)
        history = _fit(model, data, kinds, self, device, checkpoints, progress, words)
        tensors = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
        learned = Learned(_scores_of(model, device), tensors["transitions"], self.model.size, words)
        out.mkdir(parents=True, exist_ok=True)
        write_tagger_graph(out / "model.onnx", tensors, words)
        weights = sum(parameter.numel() for parameter in model.parameters())
        about = described(self, learned, data["valid"], kinds, out)
        return {**about, "history": history, "device": device} | {
            "parameters": {**about["parameters"], "weights": weights, "epochs_run": len(history)}
        }


def _scores_of(model: Any, device: str) -> Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]:
    import torch

    def scores(ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        model.eval()
        with torch.no_grad():
            found = model(torch.from_numpy(ids).to(device), torch.from_numpy(lengths).to(device))
        told: NDArray[np.float32] = found.float().cpu().numpy()
        return told

    return scores


def described(config: SpanText, learned: Learned, valid: Texts, kinds: Sequence[str], out: Path) -> dict[str, Any]:
    """Choose what is added for each span by `valid`, write what the engine reads beside the graph, tell of the model.

    Raises:
        PlatformError: ``code="bad_config"``: `SpanText.recall` of a type that cannot be reached, or that there is not.
    """
    import numpy as np

    from contracts.engines.tagger import FILE, WORD_FILE, TaggerSpec
    from pipelines.recipes.text.cautions import chosen

    caution, own, measured = chosen(learned, valid, kinds, config.cautions, config.recall_weight, config.recall)
    if learned.words is not None:
        np.save(out / WORD_FILE, learned.words.known, allow_pickle=False)
    spec = TaggerSpec(
        size=learned.size,
        transitions=[[round(float(one), 5) for one in row] for row in learned.moves],
        caution=caution,
        cautions=own,
        max_characters=config.text.max_characters,
        words=learned.words is not None,
        around=learned.around,
    )
    (out / FILE).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
    known = 0 if learned.words is None else len(learned.words.known)
    return {
        "engine": "tagger",
        "output": {"problem": "tagging", "types": list(kinds)},
        "decision": None,
        "parameters": {"caution": caution, "words": known, **{f"caution:{kind}": one for kind, one in own.items()}}
        | measured,
    }


def _word_list(address: str) -> WordList | None:
    """The words of a file; None where none is named.

    Raises:
        PlatformError: it cannot be read, or has no word.
    """
    from contracts.errors import PlatformError
    from contracts.token_hashes import WordList
    from pipelines.data.origins import source_here

    if not address:
        return None
    try:
        with source_here(address) as here:
            found = WordList.of(Path(here).read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as err:
        raise PlatformError(
            f"the list of words cannot be read: {address}",
            detail=str(err),
            fix="name a file in UTF-8 with a word on each line: --set words=FILE",
            code="bad_config",
        ) from err
    if not len(found.known):
        raise PlatformError(
            f"the list of words has no word that is used: {address}",
            detail="words of 1 to 6 tokens, and no single signs of Chinese or Japanese",
            fix="name a file with a word on each line: --set words=FILE",
            code="bad_config",
        )
    return found


def read_parts(task: Task, config: SpanText, dataset: Path) -> tuple[Mapping[str, Texts], list[str], WordList | None]:
    """Training and validation texts, the types of spans, and the list of words."""
    data = {part: _read(task, config, dataset, part) for part in ("train", "valid")}
    kinds = list(task.classes or sorted({kind for spans in data["train"].spans for _, _, kind in spans}))
    return data, kinds, _word_list(config.words)


def _read(task: Task, config: SpanText, dataset: Path, part: str) -> Texts:
    import pandas as pd

    from contracts.problems.tagging import labelled
    from pipelines.recipes.text.examples import joined_texts, text_fields
    from pipelines.training.tagger import Texts

    rows = pd.read_parquet(dataset / f"{part}.parquet")
    texts = joined_texts(rows, text_fields(task, config), config.text.max_characters)
    spans = [
        [one for one in labelled(value) if one[1] <= len(text)]
        for value, text in zip(rows["label"], texts, strict=True)
    ]
    return Texts(texts=texts, spans=spans)


def _fit(
    model: Any,
    data: Mapping[str, Texts],
    kinds: Sequence[str],
    config: TaggerText,
    device: str,
    checkpoints: Path,
    progress: Progress,
    words: WordList | None,
) -> list[dict[str, float]]:
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy

    from pipelines.recipes.text.cautions import Learned, f1_of
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.loop import eager, run_epochs
    from pipelines.training.tagger import batches, encode_all, padded, sequence_loss, transition_scores

    training, rows = config.training, len(data["train"].texts)
    size = min(training.batch_size, max(2, rows // 20))
    seen = compared(data["valid"])
    held = encode_all(list(zip(seen.texts, seen.spans, strict=True)), kinds, config.model.size, words)

    def tensors(ids: Any, lengths: Any, tags: Any) -> tuple[Any, Any, Any]:
        return tuple(torch.from_numpy(np.asarray(one)).to(device) for one in (ids, lengths, tags))  # type: ignore[return-value]

    def made(epoch: int) -> Any:
        rng = np.random.default_rng([config.seed, epoch])
        for batch in batches(data["train"], kinds, config.model.size, size, config.change, rng, words):
            yield tensors(*batch)

    def loss(current: Any, batch: Any) -> Any:
        return total(current, batch) / (batch[2] >= 0).sum().clamp(min=1)

    def total(current: Any, batch: Any) -> Any:
        ids, lengths, tags = batch
        logits = current(ids, lengths)
        # Of single tokens too: paths alone leave the tags that cannot follow without a score that means anything.
        single = cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=-100, reduction="sum")
        return sequence_loss(logits, transition_scores(current.transitions), tags, lengths) + single

    def evaluate(current: Any) -> dict[str, float]:
        """Of a part of the rows, which is enough to tell epochs apart: `valid_error` is one minus the F1 of spans."""
        current.eval()
        with torch.no_grad():
            parts = [held[start : start + 64] for start in range(0, len(held), 64)]
            lost = sum(float(total(current, tensors(*padded(part)))) for part in parts)
        moves = current.transitions.detach().cpu().numpy()
        learned = Learned(_scores_of(current, device), moves, config.model.size, words)
        return {
            "valid_loss": lost / max(1, sum(len(tags) for _, tags in held)),
            "valid_error": 1 - f1_of(learned, seen, kinds),
        }

    optimizer = eager(torch.optim.AdamW)(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    decides = fingerprint(config, kinds, data, words, device)
    return run_epochs(
        model,
        optimizer,
        batches=made,
        steps_per_epoch=-(-rows // size),
        loss=loss,
        evaluate=evaluate,
        monitor="valid_error",
        config=training,
        seed=config.seed,
        checkpoint=Checkpoint(checkpoints / f"{config.recipe}.pt", decides),
        progress=progress,
    )


def fingerprint(
    config: SpanText, kinds: Sequence[str], data: Mapping[str, Texts], words: WordList | None, device: str = "cpu"
) -> str:
    """Of all that decides what is learned."""
    import hashlib
    import json

    from pipelines.task import dump_config

    after = ("cautions", "recall_weight", "recall")  # what is chosen when all is learned
    told = {key: value for key, value in json.loads(dump_config(config)).items() if key not in after}
    about = json.dumps([told, device, kinds], sort_keys=True, default=str)
    if words is not None:
        about += hashlib.sha256(words.known.tobytes()).hexdigest()
    texts = "\0".join([*data["train"].texts, *map(str, data["train"].spans), *data["valid"].texts])
    return hashlib.sha256(f"{about}{texts}".encode("utf-8", "replace")).hexdigest()


def compared(data: Texts) -> Texts:
    """The texts that are measured after each epoch, which are enough to tell epochs apart."""
    from pipelines.training.tagger import Texts

    return Texts(texts=data.texts[:_COMPARED], spans=data.spans[:_COMPARED])
