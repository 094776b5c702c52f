"""Whether the reasons of texts and images are true of the model: what taking them out costs its answer.

Beside it stands what taking out as much at random costs (comprehensiveness: DeYoung et al., ERASER, 2020). Of texts
words are taken out, of images patches are covered, of spans tokens are hidden, so that their places stay, of lists
items of the history, and of sources of a text that is written sentences, or the words of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.engine import Reason
from contracts.problems.ranking import SEPARATOR, listed

if TYPE_CHECKING:
    from contracts.bundle import BundleDocument
    from contracts.engine import Engine

TOP = 5  # reasons of each row that are taken out
DRAWS = 3  # of as much at random
_NUDGED = 8  # rows that are changed a little
MODALITIES = frozenset({"text", "image"})
_NOISE = 0.01  # deviation, of the range of a pixel
Columns = Mapping[str, NDArray[Any]]
Row = dict[str, NDArray[Any]]  # columns of one row
Scores = Callable[..., Callable[[Columns], NDArray[np.float64]]]


@dataclass(frozen=True)
class _Way:
    """How reasons of one kind are taken out of a row: `what`, in words; `without`, where a generator takes out as much
    anywhere; `nudged`, a row that is hardly another one."""

    what: str
    without: Callable[[Engine, Row, Sequence[Reason], np.random.Generator | None], Row]
    nudged: Callable[[Engine, Row, Sequence[Reason], np.random.Generator], Row]


def measure(
    engine: Engine, document: BundleDocument, columns: Columns, like: Any, score_of: Scores, rng: np.random.Generator
) -> dict[str, Any] | None:
    """What the foremost reasons for the answers `like` to some rows are worth.

    Args:
        score_of: see `pipelines.evaluation.explaining.score_of`, of an engine and a document.

    Returns:
        rows, of those with a reason for their answer; removed: what, and the log-odds that taking out the reasons
        costs, or what else reasons are counted in, and as much at random; above_random, how much more the reasons cost;
        stability, the share of a row's reasons that are among those of it nudged, of some. None where no row has a
        reason.
    """
    way = _WAYS[document.modality, document.signature.output.problem == "tagging"]
    reasons = [[one for one in found if one.contribution > 0] for found in engine.explain(columns, TOP)]
    rows = [at for at, found in enumerate(reasons) if found]
    if not rows:
        return None
    costs: dict[str, list[float]] = {"reasons": [], "random": []}
    alike: list[float] = []
    for at in rows:
        row = {name: values[at : at + 1] for name, values in columns.items()}
        score = score_of(like[at : at + 1], alone=True)
        before = score(row)
        for name, draws in (("reasons", [None]), ("random", [rng] * DRAWS)):
            after = [score(way.without(engine, row, reasons[at], draw)) for draw in draws]
            costs[name].append(float(before[0] - np.mean(after)))
        if len(alike) < _NUDGED:
            others = {one.feature for one in engine.explain(way.nudged(engine, row, reasons[at], rng), TOP)[0]}
            alike.append(float(np.mean([one.feature in others for one in reasons[at]])))
    return _told(len(rows), way.what, costs, alike)


def _told(rows: int, what: str, costs: Mapping[str, Sequence[float]], alike: Sequence[float]) -> dict[str, Any]:
    found = {name: float(np.mean(one)) for name, one in costs.items()}
    return {
        "rows": rows,
        "removed": {"what": what, **found},
        "above_random": found["reasons"] - found["random"],
        "stability": float(np.mean(alike)),
    }


def of_lists(engine: Engine, columns: Columns, rng: np.random.Generator) -> dict[str, Any] | None:
    """What the items of a history are worth that a list names as its reasons (``because``).

    They are taken out of the history, and as many others of it; the cost is the share of the listed item's score that
    is gone. Items of a history that is no longer than its reasons are left out: nothing else could be taken.

    Returns:
        See `measure`: rows are people; stability is the share of an item's reasons that stay when an item of the
        history is left out that is none of them. None where no list names reasons.
    """
    model, places = engine.model, engine.places  # type: ignore[attr-defined]

    def answered(row: Row, history: Sequence[str]) -> Any:
        return engine.predict({**row, "items": np.array([SEPARATOR.join(history)], dtype=object)})[0]

    def worth(history: Sequence[str], item: str) -> float:
        recent, _ = model.history([places[one] for one in history if one in places])
        return float(model.worth(recent, np.array([places[item]]))[0])

    costs: dict[str, list[float]] = {"reasons": [], "random": []}
    alike: list[float] = []
    people = 0
    for at in range(len(columns["items"])):
        row = {name: values[at : at + 1] for name, values in columns.items()}
        history = list(dict.fromkeys(reversed(listed(row["items"][0]))))[::-1]
        found = answered(row, history)
        told = [
            (item, because)
            for item, because in zip(found.items, found.because, strict=True)
            if because and len(history) > 2 * len(because) and worth(history, item) > 0
        ][:TOP]
        people += bool(told)
        for item, because in told:
            before, others = worth(history, item), [one for one in history if one not in because]
            drawn = [set(rng.choice(others, len(because), replace=False).tolist()) for _ in range(DRAWS)]
            for name, gone in (("reasons", [set(because)]), ("random", drawn)):
                after = [worth([one for one in history if one not in some], item) for some in gone]
                costs[name].append(float(np.clip(1 - np.mean(after) / before, -1, 1)))
            left = str(rng.choice(others))
            again = answered(row, [one for one in history if one != left])
            named = dict(zip(again.items, again.because, strict=True))
            if item in named:  # else the list has changed, and says nothing of this item
                alike.append(len(set(because) & set(named[item])) / len(because))
    if not people or not alike:
        return None
    made = _told(people, "items of the history", costs, alike)
    return {**made, "removed": {**made["removed"], "unit": "share of the score of a listed item"}}


def of_written(engine: Engine, columns: Columns, rng: np.random.Generator) -> dict[str, Any] | None:
    """What the parts of a source are worth that an answer is said to rest on, see `Seq2SeqEngine.explain`.

    They are left out one after the other, the foremost first, at most `TOP` and never all; the cost is by how much the
    log-likelihood of a token of the answer has fallen, as a mean over how many are gone (the area of a deletion curve).
    Beside it stand random orders of all parts. Sources of one part, and empty answers, are left out.

    Returns:
        See `measure`: stability is the share of the foremost half of the reasons that stay in it when the part is left
        out that counts least. None where no source has two parts.
    """
    from contracts.engines.seq2seq import Seq2SeqEngine, parts_of, without

    assert isinstance(engine, Seq2SeqEngine)
    costs: dict[str, list[float]] = {"reasons": [], "random": []}
    alike: list[float] = []
    rows = 0
    for fields in zip(*columns.values(), strict=True):
        text = engine.read(fields)
        parts, answer = parts_of(text), engine.answer(text)
        if len(parts) < 2 or not answer:
            continue
        rows += 1
        found = engine.likelihoods([text, *(without(text, [part]) for part in parts)], answer)
        order = np.argsort(found[1:], kind="stable")
        orders = [order, *(rng.permutation(len(parts)) for _ in range(DRAWS))]
        most = min(TOP, len(parts) - 1)
        variants = [without(text, [parts[at] for at in one[:gone]]) for one in orders for gone in range(1, most + 1)]
        fallen = (found[0] - engine.likelihoods(variants, answer)).reshape(len(orders), most).mean(axis=1) / len(answer)
        costs["reasons"].append(float(fallen[0]))
        costs["random"].append(float(fallen[1:].mean()))
        if len(alike) < _NUDGED and len(parts) > 2:
            left = [parts[at] for at in order[:-1]]
            base = without(text, [parts[order[-1]]])
            again = engine.likelihoods([without(text, [part, parts[order[-1]]]) for part in left], engine.answer(base))
            half = max(1, len(left) // 2)
            stay = set(np.argsort(again, kind="stable")[:half].tolist())
            alike.append(len(stay & set(range(half))) / half)
    if not rows:
        return None
    made = _told(rows, "sentences, or words of one", costs, alike or [1.0])
    return {**made, "removed": {**made["removed"], "unit": "log-likelihood of a token of the answer"}}


def _without_words(engine: Engine, row: Row, reasons: Sequence[Reason], rng: np.random.Generator | None) -> Row:
    """Without the reasons' words, or without as long stretches anywhere."""
    made = {}
    for name, values in row.items():
        text = values[0]
        for one in reasons if isinstance(text, str) else ():
            if found := re.search(re.escape(one.feature), text, flags=re.IGNORECASE):
                size = found.end() - found.start()
                start = found.start() if rng is None else int(rng.integers(len(text) - size + 1))
                text = f"{text[:start]} {text[start + size :]}"
        made[name] = np.array([text], dtype=values.dtype)
    return made


def _fewer_words(engine: Engine, row: Row, reasons: Sequence[Reason], rng: np.random.Generator) -> Row:
    """Without one word that is no part of a reason."""
    from contracts.texts import words

    told = {word for one in reasons for word in words(one.feature)}
    made = dict(row)
    for name, values in row.items():
        text = values[0] if isinstance(values[0], str) else ""
        if others := [word for word in dict.fromkeys(words(text)) if word not in told]:
            found = re.search(re.escape(others[int(rng.integers(len(others)))]), text, flags=re.IGNORECASE)
            if found:
                made[name] = np.array([text[: found.start()] + text[found.end() :]], dtype=values.dtype)
    return made


def _without_patches(engine: Engine, row: Row, reasons: Sequence[Reason], rng: np.random.Generator | None) -> Row:
    """With the reasons' patches covered by the image's mean color, or with patches of their size anywhere."""
    from contracts.engines.onnx_image import patch_of

    ((name, values),) = row.items()
    pixels = engine.decode({name: values})[name].copy()  # type: ignore[attr-defined]
    image = pixels[0].copy()
    high, wide = engine.content(image)  # type: ignore[attr-defined]
    mean = np.asarray(image)[:high, :wide].mean(axis=(0, 1)).round()
    for one in reasons:
        top, bottom, left, right = patch_of(one.feature, high, wide)
        if rng is not None:
            down, across = rng.integers(high - (bottom - top) + 1), rng.integers(wide - (right - left) + 1)
            top, bottom, left, right = down, down + bottom - top, across, across + right - left
        image[top:bottom, left:right] = mean
    pixels[0] = image
    return {name: pixels}


def _noisy(engine: Engine, row: Row, reasons: Sequence[Reason], rng: np.random.Generator) -> Row:
    """With a little noise on each pixel."""
    ((name, values),) = row.items()
    pixels = engine.decode({name: values})[name].copy()  # type: ignore[attr-defined]
    image = pixels[0].copy()
    image[:] = np.clip(np.asarray(image) + rng.normal(0, 255 * _NOISE, image.shape), 0, 255).round()
    pixels[0] = image
    return {name: pixels}


def _without_tokens(engine: Engine, row: Row, reasons: Sequence[Reason], rng: np.random.Generator | None) -> Row:
    """With the reasons' tokens hidden, or as many characters anywhere."""
    from contracts.engines.tagger import place_of
    from contracts.tagging import hidden

    text = _whole(row)
    for one in reasons:
        start, end = place_of(one.feature)
        if rng is not None:
            size = end - start
            start = int(rng.integers(max(1, len(text) - size + 1)))
            end = start + size
        text = hidden(text, start, end)
    return _as_row(row, text)


def _hidden_elsewhere(engine: Engine, row: Row, reasons: Sequence[Reason], rng: np.random.Generator) -> Row:
    """With one character hidden that is no part of a reason."""
    from contracts.engines.tagger import place_of
    from contracts.tagging import hidden

    text = _whole(row)
    told = {at for one in reasons for at in range(*place_of(one.feature))}
    free = [at for at, sign in enumerate(text) if at not in told and not sign.isspace()]
    if free:
        at = free[int(rng.integers(len(free)))]
        text = hidden(text, at, at + 1)
    return _as_row(row, text)


def _whole(row: Row) -> str:
    from contracts.texts import join_fields

    fields = [values[0] for values in row.values()]
    return join_fields(fields, sum(len(str(one)) + 1 for one in fields))


def _as_row(row: Row, text: str) -> Row:
    """A row whose fields together are `text`."""
    rest = dict.fromkeys(row, "")
    return {name: np.array([text if at == 0 else value], dtype=object) for at, (name, value) in enumerate(rest.items())}


_WAYS = {
    ("text", False): _Way("words", _without_words, _fewer_words),
    ("text", True): _Way("tokens", _without_tokens, _hidden_elsewhere),
    ("image", False): _Way("patches", _without_patches, _noisy),
}
