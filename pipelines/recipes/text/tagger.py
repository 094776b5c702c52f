"""Recipe `tagger`: spans of texts by tags of tokens, learned with torch and exported to ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.recipes.text.settings import TextConfig, TextTaskConfig
from pipelines.task import STRICT, GateConfig, Progress, TaskConfig
from pipelines.training.loop import LoopConfig
from pipelines.training.tagger import ChangeConfig, TaggerModel

if TYPE_CHECKING:
    from contracts.tagging import WordList
    from pipelines.task import Task
    from pipelines.training.tagger import Texts

_COMPARED = 2_000  # validation rows that are measured after each epoch


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaggerText(TextTaskConfig):
    """Of `text` only `max_characters` applies.

    words: a file of words, or its address, one a line (``word``, ``word`` tab ``kind``, or ``word number kind``), such
    as the dictionary of a word segmenter or a list of places: what of it is at a token is told to the model. The bundle
    has hashes of it.
    change: what texts become while training.
    cautions: candidates for what is added to the score of each span; the validation rows choose by F-beta with
    `recall_weight` as beta: above 1 what is missed weighs more than what is found wrongly.
    """

    text: TextConfig = field(default_factory=lambda: TextConfig(max_characters=100_000))
    model: TaggerModel = field(default_factory=TaggerModel)
    training: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            epochs=10, batch_size=32, learning_rate=4e-3, weight_decay=0.0, warmup=100, schedule="linear"
        )
    )
    change: ChangeConfig = field(default_factory=ChangeConfig)
    cautions: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    recall_weight: Annotated[float, Field(gt=0)] = 2.0
    words: str = ""

    reports: ClassVar[str] = "valid_error"

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Train until F1 on ``valid`` stops rising; it chooses `cautions` as well."""
        import numpy as np

        from contracts.engines.tagger import FILE, WORD_FILE, TaggerSpec
        from pipelines.training.device import import_torch, resolve_device
        from pipelines.training.tagger import build_model, write_tagger_graph

        device, torch = resolve_device(self.training.device), import_torch()
        torch.set_num_threads(self.training.threads)
        torch.manual_seed(self.seed)
        data = {part: _read(task, self, dataset, part) for part in ("train", "valid")}
        kinds = list(task.classes or sorted({kind for spans in data["train"].spans for _, _, kind in spans}))
        words = _word_list(self.words)
        model = build_model(1 + 2 * len(kinds), self.model).to(device)
        history = _fit(model, data, kinds, self, device, checkpoints, progress, words)
        caution, measured = _caution(model, data["valid"], kinds, self, device, words)
        out.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
        write_tagger_graph(out / "model.onnx", tensors, words)
        if words is not None:
            np.save(out / WORD_FILE, words.known, allow_pickle=False)
        scores = [[round(float(one), 5) for one in row] for row in tensors["transitions"]]
        spec = TaggerSpec(
            size=self.model.size,
            transitions=scores,
            caution=caution,
            max_characters=self.text.max_characters,
            words=words is not None,
        )
        (out / FILE).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        weights = sum(parameter.numel() for parameter in model.parameters())
        return {
            "engine": "tagger",
            "output": {"problem": "tagging", "types": kinds},
            "decision": None,
            "history": history,
            "parameters": {
                "caution": caution,
                "words": 0 if words is None else len(words.known),
                "weights": weights,
                "epochs_run": len(history),
                **measured,
            },
            "device": device,
        }


def tagger_recipes(gate: GateConfig) -> Mapping[str, TaskConfig]:
    """The recipes of every task of spans, by name."""
    return {"tagger": TaggerText(recipe="tagger", gate=gate)}


def _word_list(address: str) -> WordList | None:
    """The words of a file; None where none is named.

    Raises:
        PlatformError: it cannot be read, or has no word.
    """
    from contracts.errors import PlatformError
    from contracts.tagging import WordList
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


def _read(task: Task, config: TaggerText, dataset: Path, part: str) -> Texts:
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
    import hashlib
    import json

    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy

    from pipelines.task import dump_config
    from pipelines.training.checkpoint import Checkpoint
    from pipelines.training.loop import eager, run_epochs
    from pipelines.training.tagger import Texts, batches, encode, padded, sequence_loss, transition_scores

    training, rows = config.training, len(data["train"].texts)
    size = min(training.batch_size, max(2, rows // 20))
    seen = Texts(texts=data["valid"].texts[:_COMPARED], spans=data["valid"].spans[:_COMPARED])
    held = [
        encode(text, spans, kinds, config.model.size, words) for text, spans in zip(seen.texts, seen.spans, strict=True)
    ]

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
        score = _beta_score(*_sums(current, seen, kinds, config, device, [0.0], words)[0], 1.0)
        return {"valid_loss": lost / max(1, sum(len(tags) for _, tags in held)), "valid_error": 1 - score}

    optimizer = eager(torch.optim.AdamW)(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    about = json.dumps([dump_config(config), device, kinds], sort_keys=True, default=str)
    if words is not None:
        about += hashlib.sha256(words.known.tobytes()).hexdigest()
    texts = "\0".join([*data["train"].texts, *map(str, data["train"].spans), *data["valid"].texts])
    decides = hashlib.sha256(f"{about}{texts}".encode("utf-8", "replace")).hexdigest()
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


def _caution(
    model: Any, data: Texts, kinds: Sequence[str], config: TaggerText, device: str, words: WordList | None
) -> tuple[float, dict[str, float]]:
    """The candidate with the best F-beta on `data`, and what it reaches there."""
    candidates = sorted(set(config.cautions))
    found = dict(zip(candidates, _sums(model, data, kinds, config, device, candidates, words), strict=True))
    best = max(found, key=lambda each: (_beta_score(*found[each], config.recall_weight), -each))
    hit, said, there = found[best]
    return best, {"valid_recall": round(hit / max(1, there), 4), "valid_precision": round(hit / max(1, said), 4)}


def _beta_score(hit: int, said: int, there: int, beta: float) -> float:
    return (1 + beta**2) * hit / max(1, said + beta**2 * there)


def _sums(
    model: Any,
    data: Texts,
    kinds: Sequence[str],
    config: TaggerText,
    device: str,
    cautions: Sequence[float],
    words: WordList | None,
) -> list[tuple[int, int, int]]:
    """For each caution: spans of `data` that are found, that are said to be there, and that are there."""
    import numpy as np
    import torch

    from contracts.tagging import spans, tokenise, width

    moves = model.transitions.detach().cpu().numpy()
    sums = np.zeros((len(cautions), 3), np.int64)
    order = sorted(range(len(data.texts)), key=lambda at: len(data.texts[at]))
    model.eval()
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        read = [tokenise(data.texts[at], config.model.size, words) for at in rows]
        ids = torch.zeros((len(rows), max(1, *(len(one.ids) for one in read)), width(words)), dtype=torch.int64)
        for place, one in enumerate(read):
            ids[place, : len(one.ids)] = torch.from_numpy(one.ids)
        lengths = torch.tensor([max(1, len(one.ids)) for one in read])
        with torch.no_grad():
            logits = model(ids.to(device), lengths.to(device)).float().cpu().numpy()
        for place, (at, one) in enumerate(zip(rows, read, strict=True)):
            wanted = set(data.spans[at])
            for number, caution in enumerate(cautions):
                given = {span[:3] for span in spans(logits[place, : len(one.ids)], one.places, kinds, moves, caution)}
                sums[number] += [len(given & wanted), len(given), len(wanted)]
    return [(int(hit), int(said), int(there)) for hit, said, there in sums]
